/* limit_fan: the arena's fan-out in C, as the physical limit to measure the Python against.
 *
 *   gcc -O2 -o limit_fan limit_fan.c && ./limit_fan PORT UPSTREAM_PORT
 *
 * POST with the arena's body ("history", "model_instances"): one upstream request for each instance, the answers merged
 * line by line in the arena's form, and all that is ready in one turn of the loop goes out in one write.
 * A yardstick only: it trusts its input, checks nothing, passes no errors on. 127.0.0.1 only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define UPS 256
typedef struct Peer {
    int fd, is_up, head_done, live, dirty, paused;
    char *in; size_t n, cap;
    char *out; size_t on, oc;
    char prefix[256]; int prefix_n;
    struct Peer *client, **ups, *next;           /* an upstream's client; a client's upstreams; the next idle one */
    int nups;
} Peer;
static int ep, up_port;
static Peer *idle, *dirty[65536], *dead[65536];
static int nd, ndead;

static void put(Peer *p, const char *s, size_t n) {
    if (p->on + n > p->oc) { p->oc = (p->on + n) * 2; p->out = realloc(p->out, p->oc); }
    memcpy(p->out + p->on, s, n); p->on += n;
    if (!p->dirty) { p->dirty = 1; dirty[nd++] = p; }
}
static void listen_for(Peer *p, unsigned events) { struct epoll_event e = {.events = events, .data.ptr = p}; epoll_ctl(ep, EPOLL_CTL_MOD, p->fd, &e); }
static Peer *peer(int fd, int is_up) {
    int one = 1;
    Peer *p = calloc(1, sizeof *p);
    p->fd = fd; p->is_up = is_up;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = p};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    return p;
}
static void forget(Peer *client, Peer *up) { for (int i = 0; i < client->nups; i++) if (client->ups[i] == up) client->ups[i] = NULL; }
static void bury(Peer *p) {
    if (p->fd < 0) return;
    close(p->fd); p->fd = -1; dead[ndead++] = p;
    if (p->is_up) {
        if (p->client) forget(p->client, p);
        for (Peer **q = &idle; *q; q = &(*q)->next) if (*q == p) { *q = p->next; break; }
    } else for (int i = 0; i < p->nups; i++) if (p->ups[i]) { p->ups[i]->client = NULL; bury(p->ups[i]); }
}
static Peer *upstream(void) {
    Peer *u = idle;
    if (u) { idle = u->next; return u; }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(up_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    connect(fd, (void *)&a, sizeof a);
    return peer(fd, 1);
}
static const char *list(const char *s, const char *key, int *n) {        /* "key": [ ... ] */
    const char *p = strstr(s, key), *q;
    int depth = 0;
    *n = 0;
    if (!p || !(p = strchr(p, '['))) return "";
    q = p;
    do { depth += (*q == '{' || *q == '[') - (*q == '}' || *q == ']'); q++; } while (depth);
    *n = q - p;
    return p;
}
static const char *string(const char **p, const char *key, int *n) {     /* "key": "value", from *p on; *p moves behind it */
    const char *q = strstr(*p, key);
    if (!q || !(q = strchr(q + strlen(key), '"'))) return NULL;
    *n = strcspn(++q, "\"");
    *p = q + *n;
    return q;
}
static void start(Peer *c, const char *body) {
    static const char H[] = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
    int history_n, k, m;
    const char *history = list(body, "\"history\"", &history_n), *p = strstr(body, "\"model_instances\""), *id, *model;
    put(c, H, sizeof H - 1);
    if (!c->ups) c->ups = calloc(UPS, sizeof *c->ups);
    c->nups = c->live = 0;
    while (p && c->nups < UPS && (id = string(&p, "\"id\":", &k)) && (model = string(&p, "\"model\":", &m))) {
        Peer *u = upstream();
        u->client = c; u->head_done = 0; u->n = 0;
        u->prefix_n = snprintf(u->prefix, sizeof u->prefix, "{\"instance_id\":\"%.*s\",\"model\":\"%.*s\",\"token\":\"", k, id, m, model);
        c->ups[c->nups++] = u; c->live++;
        char b[8192], h[256];
        int bn = snprintf(b, sizeof b, "{\"model\":\"%.*s\",\"messages\":%.*s,\"stream\":true}", m, model, history_n, history);
        int hn = snprintf(h, sizeof h, "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", bn);
        put(u, h, hn); put(u, b, bn);
    }
}
static void line(Peer *u, char *p, size_t n) {
    char one[8192], h[16];
    char *s = memmem(p, n, "\"content\":\"", 11), *e;
    if (!s) return;
    for (e = s += 11; e < p + n && *e != '"'; ) e += *e == '\\' ? 2 : 1;
    int done = memmem(e, p + n - e, "\"done\":true", 11) != NULL;
    const char *tail = done ? "\",\"done\":true}\n" : "\",\"done\":false}\n";
    size_t k = u->prefix_n, t = strlen(tail);
    if (k + (e - s) + t > sizeof one) return;
    memcpy(one, u->prefix, k);
    memcpy(one + k, s, e - s); k += e - s;
    memcpy(one + k, tail, t); k += t;
    put(u->client, h, snprintf(h, sizeof h, "%zx\r\n", k));
    put(u->client, one, k); put(u->client, "\r\n", 2);
}
static void from_upstream(Peer *u) {
    size_t i = 0;
    if (!u->head_done) {
        char *e = memmem(u->in, u->n, "\r\n\r\n", 4);
        if (!e) return;
        i = e + 4 - u->in; u->head_done = 1;
    }
    for (;;) {
        char *nl = memmem(u->in + i, u->n - i, "\r\n", 2);
        if (!nl) break;
        size_t k = strtoul(u->in + i, NULL, 16), need = nl + 2 - u->in + k + 2;
        if (need > u->n) break;
        if (!k) {
            Peer *c = u->client;
            u->n = 0; u->client = NULL; u->next = idle; idle = u;
            forget(c, u);
            if (!--c->live) put(c, "0\r\n\r\n", 5);
            return;
        }
        line(u, nl + 2, k);
        i = need;
    }
    memmove(u->in, u->in + i, u->n - i); u->n -= i;
}
static void from_client(Peer *c) {
    c->in[c->n] = 0;
    char *e = strstr(c->in, "\r\n\r\n"), *cl = strcasestr(c->in, "\ncontent-length:");
    if (!e || !cl || c->n < (size_t)(e + 4 - c->in) + strtoul(cl + 16, NULL, 10)) return;
    start(c, e + 4);
    c->n = 0;
}
static void flush(Peer *p) {
    size_t o = 0;
    while (o < p->on) {
        ssize_t k = send(p->fd, p->out + o, p->on - o, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0) { if (errno == EAGAIN) break; bury(p); return; }
        o += k;
    }
    memmove(p->out, p->out + o, p->on - o); p->on -= o;
    int held = p->on > 0;
    if (held == p->paused) return;
    p->paused = held; listen_for(p, EPOLLIN | EPOLLRDHUP | (held ? EPOLLOUT : 0));
    for (int i = 0; i < p->nups; i++) if (p->ups[i]) listen_for(p->ups[i], held ? EPOLLRDHUP : EPOLLIN | EPOLLRDHUP);
}
static void on_event(Peer *p, unsigned events) {
    if (p->fd < 0) return;
    if (events & EPOLLOUT && !p->dirty) { p->dirty = 1; dirty[nd++] = p; }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP))) return;
    if (p->cap - p->n < 2048) { p->cap = p->cap * 2 + 4096; p->in = realloc(p->in, p->cap); }
    ssize_t k = recv(p->fd, p->in + p->n, p->cap - p->n - 1, MSG_DONTWAIT);
    if (k <= 0) { if (k == 0 || errno != EAGAIN) bury(p); return; }
    p->n += k;
    if ((size_t)k + 1 >= p->cap - p->n && p->cap < 65536) { p->cap = 65536; p->in = realloc(p->in, p->cap); }
    if (!p->is_up) from_client(p); else if (p->client) from_upstream(p);
}
int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    up_port = atoi(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) { perror("bind"); return 1; }
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, es[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, es, 256, -1);
        for (int i = 0; i < n; i++) {
            if (es[i].data.ptr) on_event(es[i].data.ptr, es[i].events);
            else for (int s; (s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) peer(s, 0);
        }
        for (int i = 0; i < nd; i++) { dirty[i]->dirty = 0; if (dirty[i]->fd >= 0) flush(dirty[i]); }
        nd = 0;
        for (int i = 0; i < ndead; i++) { free(dead[i]->in); free(dead[i]->out); free(dead[i]->ups); free(dead[i]); }
        ndead = 0;
    }
}
