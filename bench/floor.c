/* The floor: one send() of one frame to each of N sockets, again and again, and nothing else.
 *
 *     floor CLIENTS BYTES [paced]
 *
 * Prints its port, accepts CLIENTS WebSocket clients, waits for a line on its standard input, and sends
 * frames of BYTES bytes until the input ends. The sockets block, so the slowest reader sets the pace.
 * Paced, it sends one frame to each socket for each line, and first prints the time (CLOCK_MONOTONIC, ns). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <poll.h>

static void die(const char *call) {
    perror(call);
    exit(1);
}

static int listening(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) || listen(fd, 4096)) die("listen");
    getsockname(fd, (struct sockaddr *)&at, &size);
    printf("{\"event\": \"listening\", \"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

/* Accepts one client: reads its request up to the blank line and answers the handshake. */
static int accepted(int listener) {
    static const char answer[] = "HTTP/1.1 101 Switching Protocols\r\n"
                                 "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    char request[4096];
    size_t have = 0;
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (have < 4 || !memmem(request, have, "\r\n\r\n", 4)) {
        ssize_t got = recv(fd, request + have, sizeof request - have, 0);
        if (got <= 0) die("handshake");
        have += (size_t)got;
    }
    if (send(fd, answer, sizeof answer - 1, 0) < 0) die("handshake");
    return fd;
}

/* A text frame of exactly `size` bytes (130 to 65,000), numbered as our messages are. */
static void frame(unsigned char *to, size_t size, unsigned long number) {
    size_t payload = size - 4;
    to[0] = 0x81;
    to[1] = 126;
    to[2] = (unsigned char)(payload >> 8);
    to[3] = (unsigned char)payload;
    memset(to + 4, ' ', payload);
    int length = sprintf((char *)to + 4, "{\"Type\":\"Floor\",\"Position\":%lu", number);
    to[4 + length] = ' ';
    to[size - 1] = '}';
}

static void print_time(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    printf("{\"event\": \"sending\", \"at\": %lld}\n", at.tv_sec * 1000000000LL + at.tv_nsec);
    fflush(stdout);
}

int main(int argc, char **argv) {
    int paced = argc == 4 && !strcmp(argv[3], "paced");
    if (argc != 3 && !paced) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    size_t clients = strtoul(argv[1], NULL, 10), size = strtoul(argv[2], NULL, 10);
    unsigned char *message = malloc(size + 1);
    int *sockets = malloc(clients * sizeof *sockets);
    if (!message || !sockets || size < 130 || size > 65000) return 2;
    signal(SIGPIPE, SIG_IGN);

    int listener = listening();
    for (size_t i = 0; i < clients; i++) sockets[i] = accepted(listener);

    char line[16];
    if (read(0, line, sizeof line) <= 0) return 0;
    struct pollfd input = {.fd = 0, .events = POLLIN};
    for (unsigned long number = 1; paced || poll(&input, 1, 0) == 0; number++) {
        if (paced && number > 1 && read(0, line, sizeof line) <= 0) return 0;
        frame(message, size, number);
        if (paced) print_time();
        for (size_t i = 0; i < clients; i++)
            if (send(sockets[i], message, size, 0) != (ssize_t)size) return 0;
    }
    return 0;
}
