/* What is at least to be done: one loop that takes each message from Redis and writes it to all
   sockets. It keeps nothing for a socket that is full, and knows no names, rights or history. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, FRAME = 1 << 16, MOST = 65536 };

static int is_websocket, poller, count, viewers[MOST];
static char buffer[BUFFER], frame[FRAME];
static size_t filled;

static size_t framed(const char *payload, size_t length) {
    size_t at = 0;
    if (!is_websocket) {
        memcpy(frame, "data: ", 6);
        memcpy(frame + 6, payload, length);
        memcpy(frame + 6 + length, "\n\n", 2);
        return length + 8;
    }
    frame[at++] = (char)0x81;
    if (length < 126) {
        frame[at++] = (char)length;
    } else {
        frame[at++] = 126;
        frame[at++] = (char)(length >> 8);
        frame[at++] = (char)length;
    }
    memcpy(frame + at, payload, length);
    return at + length;
}

static void drop(int place) {
    close(viewers[place]);
    viewers[place] = viewers[--count];
}

static void tell_all(const char *payload, size_t length) {
    size_t size = framed(payload, length);
    for (int i = count; i--;)
        if (write(viewers[i], frame, size) < 0 && errno != EAGAIN) drop(i);
}

/* Parses one answer of Redis, an array of bulk strings and integers; 0: it is not complete. */
static size_t take(const char *data, size_t length) {
    const char *at = data, *all = data + length, *last = NULL, *kind = NULL;
    size_t last_length = 0;
    char *end;
    if (length < 4 || !memchr(at, '\n', length)) return 0;
    long parts = strtol(at + 1, &end, 10);
    for (at = end + 2; parts--;) {
        const char *line = at;
        if (at >= all || (at = memchr(at, '\n', (size_t)(all - at))) == NULL) return 0;
        at++;
        if (*line != '$') continue;
        last_length = strtoul(line + 1, NULL, 10);
        last = at;
        if (kind == NULL) kind = at;
        if ((size_t)(all - at) < last_length + 2) return 0;
        at += last_length + 2;
    }
    if (kind && memcmp(kind, "message", 7) == 0) {
        /* The first line is for the servers of livejobs. */
        const char *payload = memchr(last, '\n', last_length);
        if (payload++) tell_all(payload, last_length - (size_t)(payload - last));
    }
    return (size_t)(at - data);
}

static int hear(int redis) {
    ssize_t got = read(redis, buffer + filled, BUFFER - filled);
    if (got <= 0) return 0;
    filled += (size_t)got;
    size_t used = 0, step;
    while (used < filled && (step = take(buffer + used, filled - used)) > 0) used += step;
    memmove(buffer, buffer + used, filled - used);
    filled -= used;
    return 1;
}

static void greet(int fd) {
    static const char job[] = "{\"type\":\"job\"}";
    /* Its peer, the load client, has chosen the key and does not check the answer to it. */
    const char *head = is_websocket ? "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                      "Connection: Upgrade\r\n\r\n"
                                    : "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    char request[4096];
    if (read(fd, request, sizeof request) <= 0 || count == MOST
        || write(fd, head, strlen(head)) < 0
        || write(fd, frame, framed(job, sizeof job - 1)) < 0) {
        close(fd);
    } else {
        epoll_ctl(poller, EPOLL_CTL_DEL, fd, NULL);
        viewers[count++] = fd;
    }
}

static int connect_redis(int port, const char *channel) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) return -1;
    return dprintf(fd, "SUBSCRIBE %s\r\n", channel) < 0 ? -1 : fd;
}

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
    if (argc != 5) return 2; /* ws|sse port redis-port channel */
    is_websocket = strcmp(argv[1], "ws") == 0;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    int redis = connect_redis(atoi(argv[3]), argv[4]);
    if (redis < 0 || bind(listener, (struct sockaddr *)&own, sizeof own) < 0
        || listen(listener, 4096) < 0)
        return 1;
    poller = epoll_create1(0);
    watch(listener);
    watch(redis);
    for (;;) {
        struct epoll_event happened[256];
        int number = epoll_wait(poller, happened, 256, -1);
        for (int i = 0; i < number; i++) {
            int fd = happened[i].data.fd;
            if (fd == listener) {
                int peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (peer >= 0) {
                    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                    watch(peer);
                }
            } else if (fd == redis) {
                if (!hear(redis)) return 0;
            } else {
                greet(fd);
            }
        }
    }
}
