/* loadgen: a bounded loopback HTTP/1.1 load client that checks every stream it reads (one process, epoll).
 *
 *   gcc -O2 -o loadgen loadgen.c
 *   loadgen PORT [-m METHOD] [-b BODY] [-p PATH] [-c CONNECTIONS] [-n REQUESTS] [-t SECONDS] [-r RAMP_MS] [-s STREAMS]
 *           [-e TOKENS] [-f KEY] [-k TEXT] [-H HEADER] [-a ADDRESS] [-x CUT_MS] [-w PAUSE_MS]
 *
 *   -c  requests in flight at once, each on its own kept-alive connection    -n  requests in all
 *   -t  stop after this many seconds, whatever is open                      -r  spread the first -c requests over so many ms
 *   -s  streams in one answer (lines say which by "instance_id":"m<number>")  -e  tokens each stream must have
 *   -f  key of the text in a line: token (default) or content                -H  one more request header
 *   -k  answers are no streams: complete with status 200 and TEXT in it      -a  come from this address (127.x.y.z)
 *   -m  POST (default), or a method that sends no body
 *   -x  hang up so many ms after sending, and print when                     -w  read nothing for so many ms after the first token
 * "__TAG__" in BODY becomes the request's number (1, 2 ...).
 *
 * The text must be fake_ollama's (see there): piece, "#", index in hex, and perhaps "@" and the time of the write. A stream
 * is complete if every token came, in order and unchanged, and then its done line; it is wrong as soon as one byte differs.
 * ttft_us is the time from sending a request to a stream's first token; lat_us is one-way, upstream's write to this read.
 * Prints one JSON object. 127.0.0.1 only.
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

typedef struct { float *v; size_t n, cap; } Samples;
typedef struct { long index; int pos, len, wrong, done, failed, begun; char expect[32]; } Stream;
typedef struct {
    int fd, state, status, chunked, close_after, seq;
    long long left;                              /* bytes left of body or chunk; -1: until the end */
    char head[4096]; int head_n;
    char size[32]; int size_n;
    char *line; size_t line_n, line_cap;         /* the beginning of a line whose end has not come */
    uint64_t sent, due, resume;
    char *out; size_t out_n, out_off;
    Stream *streams;
} C;
typedef struct { int seq; uint64_t at; } Cut;
enum { IDLE, HEAD, BODY, SIZE, CHUNK, CRLF, TRAIL };

static const char *PIECES[16] = {" the", " quick", ",", " brown", " fox", "\n", " jumps", " over",
    " a", " \"lazy\"", " caf\xc3\xa9", ".", " <tag>", " function", " 42", " and"};
static int ep, port, conns_n = 1, ramp, cut_ms, pause_ms, streams_n = 1, ncut;
static long want_n = 1, expect_n = -1, started, finished, errors, non200, lines, inflight, dropped, tokens;
static long complete, wrong, incomplete, failed, stray;
static unsigned long long bytes;
static const char *method = "POST", *path = "/", *body = "", *header = "", *needle, *source;
static char key[32] = "\"token\":";
static C *cs;
static Samples ttft, total, lat;
static Cut *cuts;
static uint64_t t0, first_send, last_byte;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}
static void add(Samples *s, double us) {
    if (s->n == s->cap) { s->cap = s->cap ? s->cap * 2 : 4096; s->v = realloc(s->v, s->cap * sizeof(float)); }
    s->v[s->n++] = us;
}
static int ascending(const void *a, const void *b) { float x = *(const float *)a, y = *(const float *)b; return (x > y) - (x < y); }
static void print_samples(const char *name, Samples *s) {
    if (!s->n) { printf(",\"%s\":null", name); return; }
    qsort(s->v, s->n, sizeof(float), ascending);
#define Q(q) s->v[(size_t)((s->n - 1) * (q))]
    printf(",\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f}", name, s->n, Q(.5), Q(.9), Q(.99), Q(1));
}
static void listen_for(C *c, int op, uint32_t events) { struct epoll_event x = {.events = events, .data.ptr = c}; epoll_ctl(ep, op, c->fd, &x); }
static void hang_up(C *c) { if (c->fd >= 0) close(c->fd); c->fd = -1; }

/* ---- the text ---- */
static void expect_token(Stream *s) {
    const char *p = PIECES[s->index & 15];
    char *w = s->expect;
    int digits = 1;
    while (*p) *w++ = *p++;
    *w++ = '#';
    while (digits < 15 && s->index >> (4 * digits)) digits++;
    while (digits--) *w++ = "0123456789abcdef"[s->index >> (4 * digits) & 15];
    s->len = w - s->expect; s->pos = 0;
}
static uint64_t hex(const char *p) {
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) v = v << 4 | (uint64_t)(p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
    return v;
}
static void text(C *c, Stream *s, const char *p, size_t n, uint64_t t) {
    if (!s->begun) { s->begun = 1; add(&ttft, (t - c->sent) / 1e3); if (pause_ms && !c->resume) c->resume = t + pause_ms * 1000000ull; }
    while (n && !s->wrong) {
        if (s->pos == s->len) {
            if (*p == '@') {
                if (n < 17) { s->wrong = 1; return; }
                add(&lat, ((double)t - (double)hex(p + 1)) / 1e3);
                p += 17; n -= 17;
                continue;
            }
            s->index++; expect_token(s);
        }
        size_t k = (size_t)(s->len - s->pos) < n ? (size_t)(s->len - s->pos) : n;
        if (memcmp(p, s->expect + s->pos, k)) { s->wrong = 1; return; }
        s->pos += k; p += k; n -= k;
        if (s->pos == s->len) tokens++;
    }
}
/* Decodes the JSON string after p's opening quote into w; returns its length. */
static size_t unescape(const char *p, const char *e, char *w) {
    char *b = w;
    for (; p < e && *p != '"'; p++) {
        if (*p != '\\') { *w++ = *p; continue; }
        switch (*++p) {
        case 'n': *w++ = '\n'; break;
        case 't': *w++ = '\t'; break;
        case 'u': {
            char h[5] = {p[1], p[2], p[3], p[4], 0};
            unsigned v = strtoul(h, NULL, 16);
            p += 4;
            if (v < 0x80) *w++ = v;
            else if (v < 0x800) { *w++ = 0xc0 | v >> 6; *w++ = 0x80 | (v & 63); }
            else { *w++ = 0xe0 | v >> 12; *w++ = 0x80 | (v >> 6 & 63); *w++ = 0x80 | (v & 63); }
            break; }
        default: *w++ = *p;
        }
    }
    return w - b;
}
static const char *value(const char *p, const char *e, const char *name) {
    const char *q = memmem(p, e - p, name, strlen(name));
    if (!q) return NULL;
    for (q += strlen(name); q < e && *q == ' '; q++) {}
    return q < e ? q : NULL;
}
static void line(C *c, const char *p, size_t n, uint64_t t) {
    static char decoded[1 << 20];
    const char *e = p + n, *q;
    long which = 0;
    if (n <= 2 && (*p == '\n' || *p == '\r')) return;   /* what ends a server-sent event */
    lines++;
    if (streams_n > 1 || (q = value(p, e, "\"instance_id\":"))) {
        q = value(p, e, "\"instance_id\":");
        which = q && q[1] == 'm' ? strtol(q + 2, NULL, 10) : -1;
        if (which < 0 || which >= streams_n) { stray++; return; }
    }
    Stream *s = &c->streams[which];
    if (s->done) { s->wrong = 1; return; }       /* nothing may follow the done line */
    if ((q = value(p, e, key)) && *q == '"' && n < sizeof decoded) {
        size_t k = unescape(q + 1, e, decoded);
        if (k) text(c, s, decoded, k, t);
    }
    if ((q = value(p, e, "\"done\":")) && *q == 't') s->done = 1;
    if (n >= 12 && !memcmp(p, "data: [DONE]", 12)) s->done = 1;
    if ((q = value(p, e, "\"error\":")) && *q != 'n') s->failed = 1;
}
static void consume(C *c, const char *p, size_t n, uint64_t t) {
    const char *e = p + n, *nl;
    bytes += n; last_byte = t;
    while (p < e) {
        nl = memchr(p, '\n', e - p);
        size_t k = (nl ? nl + 1 : e) - p;
        if (nl && !c->line_n && !needle) { line(c, p, k, t); p += k; continue; }
        if (c->line_n + k > c->line_cap) { c->line_cap = (c->line_n + k) * 2; c->line = realloc(c->line, c->line_cap); }
        memcpy(c->line + c->line_n, p, k); c->line_n += k; p += k;
        if (nl && !needle) { line(c, c->line, c->line_n, t); c->line_n = 0; }
    }
}

/* ---- requests ---- */
static void begin(C *c);
static void judge(C *c) {
    if (needle) {
        if (c->status == 200 && c->line_n && memmem(c->line, c->line_n, needle, strlen(needle))) complete++;
        else if (c->status == 200 && c->line_n) wrong++;
        else incomplete++;
        return;
    }
    for (int i = 0; i < streams_n; i++) {
        Stream *s = &c->streams[i];
        if (s->wrong) wrong++;
        else if (s->failed) failed++;
        else if (s->done && s->pos == s->len && (expect_n < 0 || s->index + 1 == expect_n)) complete++;
        else incomplete++;
    }
}
static void end_request(C *c, int ok) {
    uint64_t t = now_ns();
    if (ok) { finished++; add(&total, (t - c->sent) / 1e3); if (c->status != 200) non200++; } else errors++;
    judge(c);
    inflight--;
    c->state = IDLE;
    if (!ok || c->close_after) hang_up(c);
    if (started < want_n) begin(c);
}
static void send_more(C *c) {
    while (c->out_off < c->out_n) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_n - c->out_off, MSG_NOSIGNAL);
        if (n < 0) { if (errno == EAGAIN || errno == ENOTCONN) { listen_for(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT); return; } end_request(c, 0); return; }
        c->out_off += n;
    }
    listen_for(c, EPOLL_CTL_MOD, EPOLLIN);
}
static void fill_in(C *c) {
    char num[16];
    char *b = malloc(strlen(body) + 16 * 256), *w = b;
    int k = snprintf(num, sizeof num, "%d", c->seq + 1);
    for (const char *p = body, *q; ; p = q + 7) {
        q = strstr(p, "__TAG__");
        if (!q) { strcpy(w, p); break; }
        memcpy(w, p, q - p); w += q - p;
        memcpy(w, num, k); w += k;
    }
    free(c->out);
    c->out = malloc(strlen(b) + strlen(path) + strlen(header) + strlen(method) + 256);
    c->out_n = sprintf(c->out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s%s", method, path, port, header, *header ? "\r\n" : "");
    if (strcmp(method, "POST")) c->out_n += sprintf(c->out + c->out_n, "\r\n");
    else c->out_n += sprintf(c->out + c->out_n, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(b), b);
    c->out_off = 0;
    free(b);
}
static void begin(C *c) {
    c->seq = started++; inflight++;
    fill_in(c);
    c->state = HEAD; c->head_n = c->size_n = c->status = 0; c->line_n = 0; c->resume = 0;
    for (int i = 0; i < streams_n; i++) { memset(&c->streams[i], 0, sizeof(Stream)); c->streams[i].index = -1; }
    c->sent = now_ns();
    if (!first_send) first_send = c->sent;
    c->due = cut_ms ? c->sent + cut_ms * 1000000ull : 0;
    if (c->fd >= 0) { send_more(c); return; }
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (source) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        inet_pton(AF_INET, source, &from.sin_addr);
        setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
        bind(c->fd, (void *)&from, sizeof from);
    }
    connect(c->fd, (void *)&a, sizeof a);
    listen_for(c, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
}

/* ---- answers ---- */
static void read_head(C *c, char ch) {
    if (c->head_n < (int)sizeof c->head - 1) c->head[c->head_n++] = ch;
    if (ch != '\n' || c->head_n < 4 || memcmp(c->head + c->head_n - 4, "\r\n\r\n", 4)) return;
    c->head[c->head_n] = 0;
    c->status = atoi(c->head + 9);
    char *cl = strcasestr(c->head, "\ncontent-length:");
    c->chunked = strcasestr(c->head, "\ntransfer-encoding: chunked") != NULL;
    c->close_after = strcasestr(c->head, "\nconnection: close") != NULL;
    c->left = cl ? atoll(cl + 16) : -1;
    if (c->chunked) c->state = SIZE;
    else if (c->left == 0) end_request(c, 1);
    else c->state = BODY;
}
static void parse(C *c, char *p, size_t n, uint64_t t) {
    char *e = p + n;
    while (p < e && c->state != IDLE) switch (c->state) {
    case HEAD: read_head(c, *p++); break;
    case BODY: {
        size_t k = c->left >= 0 && c->left < e - p ? (size_t)c->left : (size_t)(e - p);
        consume(c, p, k, t); p += k;
        if (c->left >= 0 && !(c->left -= k)) end_request(c, 1);
        break; }
    case SIZE: {
        char ch = *p++;
        if (ch != '\n') { if (c->size_n < (int)sizeof c->size - 1) c->size[c->size_n++] = ch; break; }
        c->size[c->size_n] = 0; c->size_n = 0;
        c->left = strtoll(c->size, NULL, 16);
        c->state = c->left ? CHUNK : TRAIL;
        break; }
    case CHUNK: {
        size_t k = c->left < e - p ? (size_t)c->left : (size_t)(e - p);
        consume(c, p, k, t); p += k;
        if (!(c->left -= k)) c->state = CRLF;
        break; }
    case CRLF: if (*p++ == '\n') c->state = SIZE; break;
    case TRAIL:
        if (*p == '\n' && !c->size_n) { end_request(c, 1); return; }
        c->size_n = *p == '\n' ? 0 : *p == '\r' ? c->size_n : c->size_n + 1;
        p++;
        break;
    }
}
static void on_event(C *c, uint32_t events) {
    static char buf[262144];
    if (c->state == IDLE) { if (c->fd >= 0 && events & (EPOLLHUP | EPOLLIN)) hang_up(c); return; }
    if (events & EPOLLOUT) send_more(c);
    if (c->state == IDLE || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    int paused = c->resume != 0;
    ssize_t k = recv(c->fd, buf, sizeof buf, 0);
    if (k > 0) parse(c, buf, k, now_ns());
    else if (k == 0 || errno != EAGAIN) end_request(c, k == 0 && c->state == BODY && c->left < 0);
    if (!paused && c->resume && c->fd >= 0) listen_for(c, EPOLL_CTL_MOD, 0);
}
/* Cuts and resumes what is due; returns the longest the loop may sleep, in ms. */
static int on_clock(int launched, uint64_t t) {
    int sleep_ms = launched < conns_n ? 1 : 100;
    if (!cut_ms && !pause_ms) return sleep_ms;
    for (int i = 0; i < launched; i++) {
        C *c = &cs[i];
        if (c->state == IDLE) continue;
        if (c->due && c->due <= t) {
            cuts[ncut++] = (Cut){c->seq + 1, now_ns()};
            hang_up(c);
            c->state = IDLE; inflight--; dropped++;
            if (started < want_n) begin(c);
        }
        if (c->resume > 1 && c->resume <= t) { c->resume = 1; listen_for(c, EPOLL_CTL_MOD, EPOLLIN); }
    }
    return 1;
}
static void report(void) {
    double wall = ((last_byte > first_send ? last_byte : now_ns()) - first_send) / 1e9;
    printf("{\"started\":%ld,\"finished\":%ld,\"errors\":%ld,\"non200\":%ld,\"cut\":%ld,\"open\":%ld,\"lines\":%ld,\"bytes\":%llu,\"wall_s\":%.6f,"
           "\"tokens\":%ld,\"complete\":%ld,\"wrong\":%ld,\"incomplete\":%ld,\"failed\":%ld,\"stray\":%ld",
           started, finished, errors, non200, dropped, inflight, lines, bytes, wall, tokens, complete, wrong, incomplete, failed, stray);
    print_samples("ttft_us", &ttft); print_samples("total_us", &total); print_samples("lat_us", &lat);
    printf(",\"cuts\":[");
    for (int i = 0; i < ncut; i++) printf("%s[%d,%llu]", i ? "," : "", cuts[i].seq, (unsigned long long)cuts[i].at);
    printf("]}\n");
}
int main(int argc, char **argv) {
    int o;
    double secs = 30;
    signal(SIGPIPE, SIG_IGN);
    while ((o = getopt(argc, argv, "m:p:b:c:n:t:r:s:e:f:k:H:a:x:w:")) != -1) switch (o) {
        case 'p': path = optarg; break; case 'b': body = optarg; break; case 'c': conns_n = atoi(optarg); break;
        case 'n': want_n = atol(optarg); break; case 't': secs = atof(optarg); break; case 'r': ramp = atoi(optarg); break;
        case 's': streams_n = atoi(optarg); break; case 'e': expect_n = atol(optarg); break; case 'H': header = optarg; break;
        case 'm': method = optarg; break; case 'k': needle = optarg; break; case 'a': source = optarg; break;
        case 'f': snprintf(key, sizeof key, "\"%s\":", optarg); break;
        case 'x': cut_ms = atoi(optarg); break; case 'w': pause_ms = atoi(optarg); break;
        default: return 2; }
    if (optind >= argc) return 2;
    port = atoi(argv[optind]);
    if (conns_n > want_n) conns_n = want_n;
    ep = epoll_create1(EPOLL_CLOEXEC);
    cs = calloc(conns_n, sizeof *cs);
    cuts = calloc(want_n + 1, sizeof *cuts);
    for (int i = 0; i < conns_n; i++) { cs[i].fd = -1; cs[i].streams = calloc(streams_n, sizeof(Stream)); }
    struct epoll_event es[512];
    t0 = now_ns();
    for (int launched = 0;;) {
        uint64_t t = now_ns();
        if (t - t0 > secs * 1e9) break;
        while (launched < conns_n && started < want_n && (!ramp || t - t0 >= (uint64_t)launched * ramp * 1000000ull / conns_n)) begin(&cs[launched++]);
        if (!inflight && (started >= want_n || launched >= conns_n)) break;
        int n = epoll_wait(ep, es, 512, on_clock(launched, t));
        for (int i = 0; i < n; i++) on_event(es[i].data.ptr, es[i].events);
    }
    report();
    return 0;
}
