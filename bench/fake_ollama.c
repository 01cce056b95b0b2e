/* fake_ollama: a fast stand-in for an Ollama server (one process, epoll), for measuring what stands before it.
 *
 *   gcc -O2 -o fake_ollama fake_ollama.c && ./fake_ollama PORT [MODELS]       (port 0 picks a free one, and says which)
 *
 * It speaks the real framing: HTTP/1.1 keep-alive, chunked, one JSON line a chunk, and, like the real server,
 * no response head before the first token.
 *
 *   POST /api/chat, /api/generate          NDJSON stream, or one object for "stream":false
 *   GET  /api/tags, /api/ps, /api/version  MODELS models (16 unless told), named bench-m0:1b, bench-m1:1b ...
 *   POST /api/show                         the same fixed answer for every model
 *   GET  /_stats   counters                GET  /_aborts   streams that were cut, and when
 *   POST /_reset   clears both             POST /_quit     ends the process
 *   POST /_hold    stops accepting ("backlog":0 in the body lets even the handshake fail) and closes idle connections
 *   POST /_release accepts again
 *
 * A word "bench-..." in the model's name or anywhere in the messages steers an answer; the last one wins:
 *
 *   bench-d20000-t1000-n400-b64-w5000-h7-g12
 *     d  mean microseconds between tokens, +-20 % (0: as fast as it goes)    t  microseconds before the first token
 *     n  tokens (100)        b  tokens a write when d is 0 (1)               w  microseconds between last token and done
 *     h  stops for good in the middle of this token's line                   g  tag that /_aborts repeats
 *     p  1: plain text, the pieces alone, for looking at
 *
 * The text is known in advance, so a reader can check that nothing is lost, doubled or out of order: token i is
 * piece i & 15 of PIECES, "#", and i in hex. With a delay, "@" and 16 hex digits follow: CLOCK_MONOTONIC in ns at
 * the write, from which a reader on the same machine takes the latency. Listens on 127.0.0.1 only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAXFD 20000
#define OUTMAX 65536
#define ABORTS 4096
#define FOREVER_NS 3600000000000ull

typedef struct {
    int fd, active, header_sent, heap_pos, generate, closing, plain;
    char *in; size_t in_len, in_cap;
    char *out; size_t out_len, out_off, out_cap;
    char model[128];
    long left, total, tag, burst, halt;
    uint64_t delay, wait, due, start, first;
    uint32_t interest, rng;
} Conn;
typedef struct { long tag, sent, total; uint64_t at; } Abort;

static Conn *conns[MAXFD], *heap[MAXFD];
static int heap_n, ep, listener, holding, n_models = 16;
static long n_open, n_active, n_peak, n_requests, n_chats, n_tokens, n_aborts, n_accepts;
static Abort aborts[ABORTS];

static const char *PIECES[16] = {" the", " quick", ",", " brown", " fox", "\\n", " jumps", " over",
    " a", " \\\"lazy\\\"", " caf\xc3\xa9", ".", " \\u003ctag\\u003e", " function", " 42", " and"};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- timers: a heap keyed by due time ---- */
static void heap_set(int i, Conn *c) { heap[i] = c; c->heap_pos = i; }
static void heap_up(int i) {
    Conn *c = heap[i];
    for (; i && heap[(i - 1) / 2]->due > c->due; i = (i - 1) / 2) heap_set(i, heap[(i - 1) / 2]);
    heap_set(i, c);
}
static void heap_down(int i) {
    Conn *c = heap[i];
    for (;;) {
        int k = 2 * i + 1;
        if (k >= heap_n) break;
        if (k + 1 < heap_n && heap[k + 1]->due < heap[k]->due) k++;
        if (heap[k]->due >= c->due) break;
        heap_set(i, heap[k]); i = k;
    }
    heap_set(i, c);
}
static void timer_add(Conn *c, uint64_t due) { c->due = due; heap_set(heap_n++, c); heap_up(heap_n - 1); }
static void timer_del(Conn *c) {
    int i = c->heap_pos;
    if (i < 0) return;
    c->heap_pos = -1;
    Conn *last = heap[--heap_n];
    if (last == c) return;
    heap_set(i, last); heap_up(i); heap_down(last->heap_pos);
}

/* ---- output ---- */
static void put(Conn *c, const char *s, size_t n) {
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, s, n);
    c->out_len += n;
}
static void want(Conn *c, uint32_t events) {
    if (c->interest == events) return;
    struct epoll_event e = {.events = events, .data.fd = c->fd};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    c->interest = events;
}
static void drop(Conn *c) {
    if (c->active) {
        n_active--;
        aborts[n_aborts++ % ABORTS] = (Abort){c->tag, c->total - c->left, c->total, now_ns()};
    }
    timer_del(c);
    conns[c->fd] = NULL;
    close(c->fd);
    free(c->in); free(c->out); free(c);
    n_open--;
}
/* 1: all written, 0: the socket is full, -1: the connection is gone (and freed) */
static int flush(Conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) { want(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT); return 0; }
            drop(c); return -1;
        }
        c->out_off += n;
    }
    c->out_off = c->out_len = 0;
    if (c->closing && !c->active) { drop(c); return -1; }
    return 1;
}
static const char *stamp(void) {                 /* RFC 3339 with nanoseconds, as Go writes it */
    static char s[40]; static time_t last;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (t.tv_sec != last) {
        struct tm g;
        gmtime_r(&t.tv_sec, &g);
        strftime(s, sizeof s, "%Y-%m-%dT%H:%M:%S.000000000Z", &g); last = t.tv_sec;
    }
    long v = t.tv_nsec;
    for (int i = 28; i > 19; i--, v /= 10) s[i] = '0' + v % 10;
    return s;
}
static char *copy(char *w, const char *s) { size_t n = strlen(s); memcpy(w, s, n); return w + n; }
static char *hex(char *w, uint64_t v, int digits) {
    if (!digits) for (digits = 1; digits < 16 && v >> (4 * digits); digits++) {}
    for (int i = digits - 1; i >= 0; i--) *w++ = "0123456789abcdef"[v >> (4 * i) & 15];
    return w;
}
static void put_line(Conn *c, const char *content, int done) {
    char b[1024], h[16], *w = b;
    w = copy(copy(copy(w, "{\"model\":\""), c->model), "\",\"created_at\":\"");
    w = copy(copy(w, stamp()), c->generate ? "\",\"response\":\"" : "\",\"message\":{\"role\":\"assistant\",\"content\":\"");
    w = copy(copy(w, content), c->generate ? "\",\"done\":" : "\"},\"done\":");
    w = copy(w, done ? "true" : "false");
    if (done) {
        uint64_t t = now_ns();
        w += sprintf(w, ",\"done_reason\":\"stop\",\"total_duration\":%llu,\"load_duration\":1000000,\"prompt_eval_count\":26,"
                     "\"prompt_eval_duration\":%llu,\"eval_count\":%ld,\"eval_duration\":%llu", (unsigned long long)(t - c->start + 1000000),
                     (unsigned long long)(c->first - c->start), c->total, (unsigned long long)(t - c->first));
    }
    w = copy(w, "}\n");
    char *k = copy(hex(h, w - b, 0), "\r\n");
    put(c, h, k - h); put(c, b, w - b); put(c, "\r\n", 2);
}
static void put_token(Conn *c, int stamped) {
    char s[64], *w = s;
    long i = c->total - c->left;
    w = copy(w, PIECES[i & 15]);
    if (!c->plain) { *w++ = '#'; w = hex(w, i, 0); }
    if (stamped && !c->plain) { *w++ = '@'; w = hex(w, now_ns(), 16); }
    *w = 0;
    put_line(c, s, 0);
    c->left--; n_tokens++;
}
static void put_head(Conn *c) {
    static const char H[] = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                            "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n";
    if (!c->header_sent) { put(c, H, sizeof H - 1); c->header_sent = 1; c->first = now_ns(); }
}
static void put_reply(Conn *c, const char *type, const char *body, size_t n) {
    char h[256];
    int k = snprintf(h, sizeof h, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", type, n);
    put(c, h, k); put(c, body, n);
}
static void finish(Conn *c) {
    put_line(c, "", 1); put(c, "0\r\n\r\n", 5);
    c->active = 0; n_active--;
}

static int next_request(Conn *c);

static void pump(Conn *c) {                      /* no delay: fill the socket, a bounded amount a turn */
    for (int turn = 0; turn < 64; turn++) {
        put_head(c);
        for (long k = 0; k < c->burst && c->left && c->out_len < OUTMAX; k++) put_token(c, 0);
        int waits = !c->left && c->wait;
        if (waits) timer_add(c, now_ns() + c->wait);
        else if (!c->left) finish(c);
        int r = flush(c);
        if (r <= 0) return;
        if (waits || !c->active) want(c, EPOLLIN | EPOLLRDHUP);
        if (waits) return;
        if (!c->active) { next_request(c); return; }
    }
    want(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
}
static void on_due(Conn *c, uint64_t now) {
    if (!c->delay && c->left) { timer_del(c); pump(c); return; }
    if (c->out_len - c->out_off > OUTMAX) { c->due = now + c->delay; heap_down(0); return; }
    put_head(c);
    if (!c->left) { timer_del(c); finish(c); }
    else if (c->total - c->left == c->halt) {
        put(c, "40\r\n{\"model\":\"", 14);
        c->due = now + FOREVER_NS; heap_down(c->heap_pos);
    } else {
        put_token(c, 1);
        if (!c->left && !c->wait) { timer_del(c); finish(c); }
        else {
            c->rng = c->rng * 1664525u + 1013904223u;
            c->due += c->left ? c->delay * 8 / 10 + (uint64_t)((c->rng >> 8) / 16777216.0 * c->delay * 4 / 10) : c->wait;
            if (c->due < now) c->due = now;
            heap_down(c->heap_pos);
        }
    }
    if (flush(c) > 0 && !c->active) next_request(c);
}

/* ---- requests ---- */
static void read_knobs(Conn *c, const char *body, uint64_t *ttft) {
    for (const char *p = body; (p = strstr(p, "bench-")); ) {
        for (p += 6; *p >= 'a' && *p <= 'z'; p++) {
            char key = *p, *end;
            long v = strtol(p + 1, &end, 10);
            if (end == p + 1) break;
            switch (key) {
            case 'd': c->delay = v * 1000ull; break;
            case 't': *ttft = v * 1000ull; break;
            case 'n': c->total = v; break;
            case 'b': c->burst = v; break;
            case 'w': c->wait = v * 1000ull; break;
            case 'h': c->halt = v; break;
            case 'g': c->tag = v; break;
            case 'p': c->plain = v; break;
            }
            p = end;
            if (*p != '-') break;
        }
    }
}
static void chat(Conn *c, const char *line, const char *body) {
    static const char *MODEL = "\"model\":";
    uint64_t ttft = 0;
    const char *m = strstr(body, MODEL);
    strcpy(c->model, "bench-m0:1b");
    if (m && (m = strchr(m + strlen(MODEL), '"'))) {
        int n = strcspn(++m, "\"");
        if (n < (int)sizeof c->model) { memcpy(c->model, m, n); c->model[n] = 0; }
    }
    c->generate = line[10] == 'g';
    c->total = 100; c->burst = 1; c->tag = 0; c->delay = c->wait = 0; c->halt = -1; c->plain = 0;
    read_knobs(c, body, &ttft);
    c->left = c->total;
    c->start = c->first = now_ns(); c->header_sent = 0; c->rng = (uint32_t)c->start ^ (c->fd * 2654435761u);
    n_chats++;
    if (strstr(body, "\"stream\":false") || strstr(body, "\"stream\": false")) {
        char b[1024];
        int n = snprintf(b, sizeof b, "{\"model\":\"%s\",\"created_at\":\"%s\",\"message\":{\"role\":\"assistant\",\"content\":"
            "\"The quick brown fox jumps over the lazy dog.\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":174560334,"
            "\"load_duration\":101397084,\"prompt_eval_count\":26,\"prompt_eval_duration\":13074791,\"eval_count\":12,"
            "\"eval_duration\":52479709}", c->model, stamp());
        put_reply(c, "application/json; charset=utf-8", b, n);
        return;
    }
    c->active = 1;
    if (++n_active > n_peak) n_peak = n_active;
    if (c->delay || ttft) timer_add(c, c->start + ttft);
}
static void models(Conn *c, int loaded) {
    static char b[256 * 600];
    int n = sprintf(b, "{\"models\":[");
    for (int i = 0; i < n_models; i++)
        n += sprintf(b + n, "%s{\"name\":\"bench-m%d:1b\",\"model\":\"bench-m%d:1b\",%s\"size\":1321098329,"
            "\"digest\":\"baf6a787fdffd633537aa2eb51cfd54cb93ff08e28040095462bb63daf55%04x\",\"details\":{\"parent_model\":\"\","
            "\"format\":\"gguf\",\"family\":\"llama\",\"families\":[\"llama\"],\"parameter_size\":\"1.2B\",\"quantization_level\":\"Q8_0\"}%s}",
            i ? "," : "", i, i, loaded ? "" : "\"modified_at\":\"2026-01-01T00:00:00.000000000Z\",", i,
            loaded ? ",\"expires_at\":\"2036-01-01T00:00:00Z\",\"size_vram\":0,\"context_length\":4096" : "");
    n += sprintf(b + n, "]}");
    put_reply(c, "application/json; charset=utf-8", b, n);
}
static void stats(Conn *c) {
    char b[512];
    int n = snprintf(b, sizeof b, "{\"open\":%ld,\"active\":%ld,\"peak\":%ld,\"accepts\":%ld,\"requests\":%ld,\"chats\":%ld,\"tokens\":%ld,\"aborts\":%ld}",
        n_open, n_active, n_peak, n_accepts, n_requests, n_chats, n_tokens, n_aborts);
    put_reply(c, "application/json", b, n);
}
static void list_aborts(Conn *c) {
    static char b[ABORTS * 100];
    int n = sprintf(b, "[");
    for (long i = 0; i < n_aborts && i < ABORTS; i++)
        n += sprintf(b + n, "%s{\"tag\":%ld,\"sent\":%ld,\"total\":%ld,\"at_ns\":%llu}", i ? "," : "",
                     aborts[i].tag, aborts[i].sent, aborts[i].total, (unsigned long long)aborts[i].at);
    n += sprintf(b + n, "]");
    put_reply(c, "application/json", b, n);
}
static void accept_again(int on, int backlog) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    listen(listener, backlog);
    if (on == !holding) return;
    epoll_ctl(ep, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener, &e);
    holding = !on;
}
static void hold(Conn *c, const char *body) {
    accept_again(0, strstr(body, "\"backlog\":0") || strstr(body, "\"backlog\": 0") ? 0 : 4096);
    for (int i = 0; i < MAXFD; i++) if (conns[i] && conns[i] != c && !conns[i]->active) drop(conns[i]);
    put_reply(c, "application/json", "{}", 2);
}
static int is(const char *line, const char *what) { return !strncmp(line, what, strlen(what)); }
static void serve(Conn *c, const char *line, char *body) {
    static const char SHOW[] = "{\"license\":\"\",\"modelfile\":\"FROM bench\",\"parameters\":\"\",\"template\":\"{{ .Prompt }}\",\"details\":{\"parent_model\":\"\","
        "\"format\":\"gguf\",\"family\":\"llama\",\"families\":[\"llama\"],\"parameter_size\":\"1.2B\",\"quantization_level\":\"Q8_0\"},\"model_info\":{"
        "\"general.architecture\":\"llama\",\"general.parameter_count\":1235814432,\"llama.context_length\":131072},\"capabilities\":[\"completion\"],"
        "\"modified_at\":\"2026-01-01T00:00:00.000000000Z\"}";
    n_requests++;
    if (is(line, "POST /api/chat") || is(line, "POST /api/generate")) chat(c, line, body);
    else if (is(line, "GET /api/tags")) models(c, 0);
    else if (is(line, "GET /api/ps")) models(c, 1);
    else if (is(line, "POST /api/show")) put_reply(c, "application/json; charset=utf-8", SHOW, sizeof SHOW - 1);
    else if (is(line, "GET /api/version")) put_reply(c, "application/json; charset=utf-8", "{\"version\":\"0.13.5\"}", 20);
    else if (is(line, "GET / ")) put_reply(c, "text/plain; charset=utf-8", "Ollama is running", 17);
    else if (is(line, "GET /_stats")) stats(c);
    else if (is(line, "GET /_aborts")) list_aborts(c);
    else if (is(line, "POST /_hold")) hold(c, body);
    else if (is(line, "POST /_release")) { accept_again(1, 4096); put_reply(c, "application/json", "{}", 2); }
    else if (is(line, "POST /_quit")) exit(0);
    else if (is(line, "POST /_reset")) {
        n_requests = n_chats = n_tokens = n_aborts = n_accepts = 0; n_peak = n_active;
        put_reply(c, "application/json", "{}", 2);
    } else {
        static const char N[] = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"error\":\"not found\"}";
        put(c, N, sizeof N - 1);
    }
}
/* Joins the chunks of a chunked body in place. Returns the bytes used up, 0 if it is not complete yet. */
static size_t dechunk(char *body, char *limit, size_t *length) {
    char *p = body, *w = body, *nl;
    for (;;) {                                   /* first see whether all is here */
        if (!(nl = memmem(p, limit - p, "\r\n", 2))) return 0;
        size_t k = strtoul(p, NULL, 16);
        if ((size_t)(limit - nl) < k + 4) return 0;
        p = nl + 2 + k + 2;
        if (!k) break;
    }
    size_t used = p - body;
    for (p = body;;) {
        nl = memmem(p, limit - p, "\r\n", 2);
        size_t k = strtoul(p, NULL, 16);
        if (!k) break;
        memmove(w, nl + 2, k);
        w += k; p = nl + 2 + k + 2;
    }
    *length = w - body;
    return used;
}
/* Serves the complete requests in c->in. -1: the connection is gone (and freed). */
static int next_request(Conn *c) {
    while (!c->active && c->in_len) {
        c->in[c->in_len] = 0;
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = end + 4 - c->in, used, length = 0;
        char *body = c->in + head;
        *end = 0;
        char *cl = strcasestr(c->in, "\ncontent-length:"), *te = strcasestr(c->in, "\ntransfer-encoding:");
        if (te && strcasestr(te, "chunked")) used = dechunk(body, c->in + c->in_len, &length);
        else {
            length = used = cl ? strtoul(cl + 16, NULL, 10) : 0;
            if (c->in_len < head + length) used = length = -1;
        }
        if ((te && !used) || used == (size_t)-1) { *end = '\r'; return 0; }
        if (strcasestr(c->in, "\nconnection: close")) c->closing = 1;
        char keep = body[length];
        body[length] = 0;
        serve(c, c->in, body);
        body[length] = keep;
        memmove(c->in, c->in + head + used, c->in_len - head - used);
        c->in_len -= head + used;
        if (c->active && c->heap_pos < 0) { int fd = c->fd; pump(c); return conns[fd] == c ? 0 : -1; }
        if (!c->active && flush(c) < 0) return -1;
    }
    return 0;
}
static void on_readable(Conn *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 4096) { c->in_cap = c->in_cap * 2 + 8192; c->in = realloc(c->in, c->in_cap); }
        size_t room = c->in_cap - c->in_len - 1;
        ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0) { drop(c); return; }
        c->in_len += n;
        if ((size_t)n < room) break;
    }
    next_request(c);
}
static void on_connections(void) {
    int one = 1;
    for (int s; (s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        if (s >= MAXFD) { close(s); continue; }
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Conn *c = calloc(1, sizeof *c);
        c->fd = s; c->heap_pos = -1; c->interest = EPOLLIN | EPOLLRDHUP;
        conns[s] = c; n_open++; n_accepts++;
        struct epoll_event e = {.events = c->interest, .data.fd = s};
        epoll_ctl(ep, EPOLL_CTL_ADD, s, &e);
    }
}
static void on_event(struct epoll_event *e) {
    Conn *c = conns[e->data.fd];
    if (e->data.fd == listener) { on_connections(); return; }
    if (!c) return;
    if (e->events & (EPOLLHUP | EPOLLERR) || (e->events & EPOLLRDHUP && c->active)) { drop(c); return; }
    if (e->events & (EPOLLIN | EPOLLRDHUP)) { on_readable(c); if (conns[e->data.fd] != c) return; }
    if (e->events & EPOLLOUT) {
        if (c->active && c->heap_pos < 0) pump(c);
        else if (flush(c) > 0) want(c, EPOLLIN | EPOLLRDHUP);
    }
}
int main(int argc, char **argv) {
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 11434), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (argc > 2) n_models = atoi(argv[2]) < 256 ? atoi(argv[2]) : 256;
    signal(SIGPIPE, SIG_IGN);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) { perror("bind"); return 1; }
    socklen_t size = sizeof a;
    getsockname(listener, (void *)&a, &size);
    printf("listening on http://127.0.0.1:%d\n", ntohs(a.sin_port));
    fflush(stdout);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener}, evs[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        struct timespec ts, *tp = NULL;
        if (heap_n) {
            uint64_t t = now_ns(), d = heap[0]->due > t ? heap[0]->due - t : 0;
            ts = (struct timespec){d / 1000000000ull, d % 1000000000ull}; tp = &ts;
        }
        int n = epoll_pwait2(ep, evs, 512, tp, NULL);
        for (int i = 0; i < n; i++) on_event(&evs[i]);
        for (uint64_t t = now_ns(); heap_n && heap[0]->due <= t;) on_due(heap[0], t);
    }
}
