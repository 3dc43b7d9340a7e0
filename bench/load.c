/* The load client: N clients (of WebSockets, or of events) in one thread, which count their messages.
 *
 *     load [options] PORT PLAN
 *
 * PLAN has one line per client: its path and the text frames that it sends, separated by tabs. Each
 * frame is sent after the answer to the one before, which must contain "Success":true. After the last
 * answer (without frames: after the handshake) the client is ready, and further messages count.
 * With --events, a line has the path and a token, and the first event must contain "Success":true.
 *
 *     --at-once W    at most W clients are connecting or subscribing (default 100)
 *     --events       clients of server-sent events over HTTP
 *     --deflate      offer permessage-deflate, as browsers do; compressed messages are counted, not parsed
 *     --number KEY   the text before a message's number: each client's must increase by one
 *     --stamp KEY    the text before the number under which arrivals are recorded in --stamps FILE:
 *     --stamps FILE  records of two uint64, number and CLOCK_MONOTONIC in ns
 *     --step S       print {"event": "delivered"} after every S deliveries
 *     --until M      print {"event": "level"} when every client has M deliveries
 *
 * Standard output has a line of JSON for each event, stamped with CLOCK_MONOTONIC in ns: ready,
 * delivered, level, mark (the counters, for each line on the standard input), failed. The program
 * exits at the end of its input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTING, HANDSHAKE, ASKING, READY, GONE };
enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 };

struct client {
    int fd, state;
    char *path, *next;      /* next: the frames still to be sent, each ended by a NUL; NULL: none */
    char *end;              /* of this client's line in the plan */
    unsigned char *rest;    /* the beginning of an incomplete frame */
    size_t rest_size;
    uint64_t number, count; /* the last number, and the count */
};

static struct client *clients;
static size_t amount, started, ready, level;
static size_t at_once = 100;
static uint64_t step, until, began;
static const char *number_key, *stamp_key;
static FILE *stamps;
static bool deflate, events_only;
static int port, polled;
static struct { uint64_t deliveries, frames, bytes, compressed, resyncs, unnumbered, disordered, closed; } seen;
static unsigned char buffer[1 << 20];

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *reason, const unsigned char *text, size_t size) {
    printf("{\"event\": \"failed\", \"reason\": \"%s", reason);
    if (size) printf(": ");
    for (size_t i = 0; i < size && i < 300; i++)
        if (text[i] >= ' ' && text[i] < 127 && text[i] != '"' && text[i] != '\\') putchar(text[i]);
    printf("\"}\n");
    exit(1);
}

static void fail_errno(const char *call) {
    const char *why = strerror(errno);
    fail(call, (const unsigned char *)why, strlen(why));
}

/* ---- the conversation -------------------------------------------------------------------- */

static void transmit(struct client *c, const void *data, size_t size) {
    if (send(c->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) fail_errno("send");
}

static void send_frame(struct client *c, int opcode, const void *payload, size_t size) {
    static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
    static unsigned char out[65536 + 8];
    size_t head = 2;
    if (size > 65535) fail("a frame of the plan is too long", NULL, 0);
    out[0] = (unsigned char)(0x80 | opcode);
    out[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
    if (size >= 126) {
        out[2] = (unsigned char)(size >> 8);
        out[3] = (unsigned char)size;
        head = 4;
    }
    memcpy(out + head, mask, 4);
    head += 4;
    for (size_t i = 0; i < size; i++) out[head + i] = ((const unsigned char *)payload)[i] ^ mask[i % 4];
    transmit(c, out, head + size);
}

static void start(struct client *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    int one = 1;
    c->state = CONNECTING;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) fail_errno("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail_errno("connect");
    if (epoll_ctl(polled, EPOLL_CTL_ADD, c->fd, &event)) fail_errno("epoll_ctl");
}

static void start_more(void) {
    while (started < amount && started - ready < at_once) start(&clients[started++]);
}

static void shake_hands(struct client *c) {
    char request[1024];
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if ((errno = error)) fail_errno("connect");
    c->state = HANDSHAKE;
    epoll_ctl(polled, EPOLL_CTL_MOD, c->fd, &event);
    if (events_only) {
        int length = snprintf(request, sizeof request,
                              "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: text/event-stream\r\n"
                              "Authorization: Bearer %s\r\n\r\n", c->path, port, c->next);
        c->next = NULL;
        transmit(c, request, (size_t)length);
        return;
    }
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "Sec-WebSocket-Version: 13\r\n%s\r\n",
                          c->path, port,
                          deflate ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "");
    transmit(c, request, (size_t)length);
}

/* The handshake or a frame was answered: send the next frame, or become ready. */
static void advance(struct client *c, const unsigned char *answer, size_t size) {
    if (c->next) {
        size_t length = strlen(c->next);
        c->state = ASKING;
        send_frame(c, TEXT, c->next, length);
        c->next = c->next + length + 1 < c->end ? c->next + length + 1 : NULL;
        return;
    }
    c->state = READY;
    if (++ready == amount) {
        printf("{\"event\": \"ready\", \"at\": %lu, \"began\": %lu, \"answer\": ", now(), began);
        if (size) printf("%.*s}\n", (int)size, (const char *)answer);
        else printf("null}\n");
    }
    start_more();
}

/* ---- received data ----------------------------------------------------------------------- */

/* The number behind the key; 0 when there is none. */
static uint64_t numbered(const char *key, const unsigned char *text, size_t size) {
    const unsigned char *at = memmem(text, size, key, strlen(key)), *end = text + size;
    uint64_t value = 0;
    if (!at) return 0;
    for (at += strlen(key); at < end && *at >= '0' && *at <= '9'; at++) value = value * 10 + (*at - '0');
    return value;
}

static void stamp(uint64_t number, uint64_t arrived) {
    uint64_t record[2] = {number, arrived};
    if (number) fwrite(record, sizeof record, 1, stamps);
}

static void deliver(struct client *c, const unsigned char *text, size_t size, bool compressed, uint64_t arrived) {
    static const char resync[] = "{\"Type\":\"Resync\"";
    if (compressed) {
        seen.compressed++;
    } else if (number_key) {
        uint64_t number = numbered(number_key, text, size);
        if (number == 0) {
            seen.unnumbered++;
            return;
        }
        if (c->number && number != c->number + 1) seen.disordered++;
        c->number = number;
        if (size > sizeof resync && !memcmp(text, resync, sizeof resync - 1)) {
            seen.resyncs++;
            return;
        }
    }
    if (stamps && !compressed) stamp(numbered(stamp_key, text, size), arrived);
    seen.deliveries++;
    if (++c->count == until && ++level == amount)
        printf("{\"event\": \"level\", \"at\": %lu, \"began\": %lu}\n", now(), began);
    if (step && seen.deliveries % step == 0) printf("{\"event\": \"delivered\", \"deliveries\": %lu}\n", seen.deliveries);
}

static void leave(struct client *c, const unsigned char *text, size_t size) {
    if (c->state != READY) fail("closed while connecting", text, size);
    seen.closed++;
    c->state = GONE;
    close(c->fd);
}

static void understand(struct client *c, int head, const unsigned char *text, size_t size, uint64_t arrived) {
    int opcode = head & 0x0f;
    if (opcode == TEXT && (head & 0x80)) {
        seen.frames++;
        if (c->state == READY) {
            deliver(c, text, size, head & 0x40, arrived);
        } else if (memmem(text, size, "\"Success\":true", 14) || memmem(text, size, "\"Success\": true", 15)) {
            advance(c, text, size);
        } else {
            fail("refused", text, size);
        }
    } else if (opcode == PING) {
        send_frame(c, PONG, text, size);
    } else if (opcode == CLOSE) {
        leave(c, text, size);
    } else if (opcode != PONG) {
        fail("a frame that no server of ours sends", NULL, 0);
    }
}

/* Consumes whole events from a whole chunk: each has one line of data, and the first one is the answer. */
static void consume_events(struct client *c, const unsigned char *data, size_t size, uint64_t arrived) {
    static const char mark[] = "data: ";
    const unsigned char *end = data + size, *line;
    while ((line = memmem(data, (size_t)(end - data), mark, sizeof mark - 1))) {
        line += sizeof mark - 1;
        data = memchr(line, '\n', (size_t)(end - line));
        if (!data) fail("an event without an end", line, (size_t)(end - line));
        understand(c, 0x80 | TEXT, line, (size_t)(data - line), arrived);
    }
}

/* Consumes whole chunks of HTTP/1.1 from the front; returns their number of bytes. */
static size_t consume_chunks(struct client *c, const unsigned char *data, size_t size, uint64_t arrived) {
    size_t at = 0;
    while (c->state != GONE && at < size) {
        const unsigned char *end = memmem(data + at, size - at, "\r\n", 2);
        if (!end) break;
        size_t head = (size_t)(end - data) + 2 - at, length = strtoul((const char *)data + at, NULL, 16);
        if (size - at < head + length + 2) break;
        consume_events(c, data + at + head, length, arrived);
        at += head + length + 2;
    }
    return at;
}

/* Consumes whole answers and frames from the front; returns their number of bytes. */
static size_t consume(struct client *c, const unsigned char *data, size_t size, uint64_t arrived) {
    size_t at = 0;
    if (c->state == HANDSHAKE) {
        const unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
        if (!end) return 0;
        if (size < 12 || memcmp(data + 8, events_only ? " 200" : " 101", 4)) fail("handshake", data, size);
        at = (size_t)(end - data) + 4;
        if (events_only) c->state = ASKING;
        else advance(c, NULL, 0);
    }
    if (events_only) return at + consume_chunks(c, data + at, size - at, arrived);
    while (c->state != GONE && size - at >= 2) {
        const unsigned char *p = data + at;
        size_t head = 2, length = p[1] & 0x7f;
        if (length >= 126) {
            size_t wide = length == 126 ? 2 : 8;
            head += wide;
            if (size - at < head) break;
            length = 0;
            for (size_t i = 0; i < wide; i++) length = length << 8 | p[2 + i];
        }
        if (size - at < head + length) break;
        understand(c, p[0], p + head, length, arrived);
        at += head + length;
    }
    return at;
}

static void receive(struct client *c) {
    memcpy(buffer, c->rest, c->rest_size);
    ssize_t got = recv(c->fd, buffer + c->rest_size, sizeof buffer - c->rest_size, 0);
    uint64_t arrived = stamps ? now() : 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        leave(c, NULL, 0);
        return;
    }
    seen.bytes += (uint64_t)got;
    size_t size = c->rest_size + (size_t)got, used = consume(c, buffer, size, arrived);
    if (size == used && !c->rest_size) return;
    c->rest_size = size - used;
    if (c->rest_size == sizeof buffer) fail("a frame is longer than the buffer", NULL, 0);
    c->rest = realloc(c->rest, c->rest_size ? c->rest_size : 1);
    if (!c->rest) fail_errno("realloc");
    memcpy(c->rest, buffer + used, c->rest_size);
}

/* ---- the program ------------------------------------------------------------------------- */

static void mark(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    double cpu = (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec)
                 + (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
    printf("{\"event\": \"mark\", \"at\": %lu, \"deliveries\": %lu, \"frames\": %lu, \"bytes\": %lu, "
           "\"compressed\": %lu, \"resyncs\": %lu, \"unnumbered\": %lu, \"disordered\": %lu, \"closed\": %lu, "
           "\"cpu\": %.3f}\n",
           now(), seen.deliveries, seen.frames, seen.bytes, seen.compressed, seen.resyncs, seen.unnumbered,
           seen.disordered, seen.closed, cpu);
}

static void read_plan(const char *path) {
    FILE *plan = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    if (!plan) fail_errno(path);
    while ((length = getline(&line, &capacity, plan)) > 0) {
        clients = realloc(clients, (amount + 1) * sizeof *clients);
        struct client *c = &clients[amount++];
        memset(c, 0, sizeof *c);
        if (line[length - 1] == '\n') line[--length] = 0;
        c->path = line;
        c->end = line + length;
        for (char *p = line; p < c->end; p++)
            if (*p == '\t') *p = 0;
        size_t path_size = strlen(line);
        c->next = path_size < (size_t)length ? line + path_size + 1 : NULL;
        c->rest = malloc(1);
        line = NULL;
        capacity = 0;
    }
    fclose(plan);
    if (!amount) fail("the plan is empty", NULL, 0);
}

/* Answers each line of the input with a mark; false at its end. */
static bool command(void) {
    char text[256];
    ssize_t got = read(0, text, sizeof text);
    for (ssize_t i = 0; i < got; i++)
        if (text[i] == '\n') mark();
    return got > 0;
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"at-once", 1, 0, 'w'}, {"deflate", 0, 0, 'd'}, {"events", 0, 0, 'e'}, {"number", 1, 0, 'n'}, {"stamp", 1, 0, 't'},
        {"stamps", 1, 0, 'f'},  {"step", 1, 0, 's'},    {"until", 1, 0, 'u'},  {0, 0, 0, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'w') at_once = strtoul(optarg, NULL, 10);
        else if (option == 'd') deflate = true;
        else if (option == 'e') events_only = true;
        else if (option == 'n') number_key = optarg;
        else if (option == 't') stamp_key = optarg;
        else if (option == 'f') stamps = fopen(optarg, "wb");
        else if (option == 's') step = strtoul(optarg, NULL, 10);
        else if (option == 'u') until = strtoul(optarg, NULL, 10);
        else exit(2);
    }
    if (argc - optind != 2 || (stamps && !stamp_key)) exit(2);
    port = atoi(argv[optind]);
    read_plan(argv[optind + 1]);
}

int main(int argc, char **argv) {
    struct epoll_event events[1024], input = {.events = EPOLLIN, .data.ptr = NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_options(argc, argv);
    polled = epoll_create1(0);
    if (polled < 0 || epoll_ctl(polled, EPOLL_CTL_ADD, 0, &input)) fail_errno("epoll");
    began = now();
    start_more();
    for (;;) {
        int count = epoll_wait(polled, events, 1024, -1);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            if (!c) {
                if (command()) continue;
                if (stamps) fclose(stamps);
                return 0;
            }
            if (c->state == CONNECTING) shake_hands(c);
            else receive(c);
        }
    }
}
