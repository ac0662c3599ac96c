/* See crowd.h. */
#define _GNU_SOURCE
#include "crowd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

enum { BUFFER = 1 << 20, ONE_IN = 10, NARROW = 4096 };

struct crowd crowd;
static int *free_slots, free_count, *ring, ring_head, ring_length;
static char buffer[BUFFER];

uint64_t clock_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

/* -- what a viewer receives ----------------------------------------------------------------- */

static void become_ready(struct viewer *viewer) {
    if (viewer->is_ready) return;
    viewer->is_ready = 1;
    crowd.ready++;
    crowd.last_ready = crowd.now;
    note(crowd.waits, (crowd.now - viewer->started) / 1000);
    if (viewer->is_stuck) {
        struct epoll_event only_its_end = {.events = EPOLLRDHUP, .data.ptr = viewer};
        epoll_ctl(crowd.poller, EPOLL_CTL_MOD, viewer->fd, &only_its_end);
    }
}

/* A stamped message holds `"t":<ns>,"i":<number>`, its time and its place in the order. */
void viewer_told(struct viewer *viewer, const char *text, size_t length) {
    static const char state[] = "{\"type\":\"job\"", stamp[] = "\"t\":";
    if (length >= sizeof state - 1 && memcmp(text, state, sizeof state - 1) == 0) {
        become_ready(viewer);
        crowd.others++;
        return;
    }
    const char *found = memmem(text, length, stamp, sizeof stamp - 1);
    if (found == NULL) {
        crowd.others++;
        return;
    }
    char *end;
    uint64_t sent = strtoull(found + sizeof stamp - 1, &end, 10);
    int64_t number = strtoll(end + sizeof ",\"i\":" - 1, NULL, 10);
    uint64_t took = crowd.now > sent ? (crowd.now - sent) / 1000 : 0;
    crowd.messages++;
    viewer->messages++;
    if (viewer->last_number >= number) crowd.repeated++;
    else if (viewer->last_number >= 0) crowd.missed += (uint64_t)(number - viewer->last_number - 1);
    if (viewer->last_number < number) viewer->last_number = number;
    note(crowd.latencies, took);
    if (took > crowd.slowest) crowd.slowest = took;
}

void viewer_pinged(struct viewer *viewer, const char *payload, size_t length) {
    /* A pong, masked by zero. */
    unsigned char pong[6 + 125] = {0x8a, (unsigned char)(0x80 | length)};
    if (length > 125) return;
    memcpy(pong + 6, payload, length);
    if (send(viewer->fd, pong, 6 + length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) crowd.failed++;
}

/* -- coming and going ----------------------------------------------------------------------- */

static void forget(struct viewer *viewer) {
    crowd.shaking -= viewer->state == CONNECTING || viewer->state == SHAKING;
    crowd.open -= viewer->state == OPEN;
    crowd.ready -= viewer->is_ready;
    crowd.stuck -= viewer->is_stuck;
    close(viewer->fd);
    free(viewer->carry);
    viewer->carry = NULL;
    viewer->state = FREE;
    viewer->is_ready = viewer->is_stuck = 0;
    free_slots[free_count++] = (int)(viewer - crowd.viewers);
}

static void arrive(int is_stuck) {
    if (free_count == 0) return;
    int slot = free_slots[--free_count], yes = 1, narrow = NARROW, port;
    struct viewer *viewer = &crowd.viewers[slot];
    uint64_t number = crowd.arrived++;
    char address[LINE];
    memset(viewer, 0, sizeof *viewer);
    viewer->last_number = -1;
    viewer->state = CONNECTING;
    viewer->started = crowd.now;
    viewer->is_stuck = (uint8_t)is_stuck;
    crowd.shaking++;
    crowd.stuck += is_stuck;
    viewer->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (is_stuck) setsockopt(viewer->fd, SOL_SOCKET, SO_RCVBUF, &narrow, sizeof narrow);
    setsockopt(viewer->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(viewer->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    uint32_t own = 0x7f000002u + (uint32_t)(number % (uint64_t)crowd.options.sources);
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(own)};
    uint64_t target = number % (uint64_t)crowd.options.target_count;
    sscanf(crowd.options.targets[target], "%255s %d", address, &port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    struct epoll_event wait = {.events = EPOLLOUT, .data.ptr = viewer};
    int bad = viewer->fd < 0 || bind(viewer->fd, (struct sockaddr *)&from, sizeof from) < 0;
    if (bad || (connect(viewer->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        || epoll_ctl(crowd.poller, EPOLL_CTL_ADD, viewer->fd, &wait) < 0) {
        crowd.failed++;
        forget(viewer);
    } else {
        viewer->messages = target; /* until the request is sent */
        if (is_stuck) return;
        if (ring_length == crowd.options.capacity) ring_length--; /* its oldest are long gone */
        ring[(ring_head + ring_length++) % crowd.options.capacity] = slot;
    }
}

/* One viewer in ten goes without saying so, and half of those by a reset. */
static void leave_oldest(uint64_t number) {
    while (ring_length) {
        struct viewer *viewer = &crowd.viewers[ring[ring_head]];
        ring_head = (ring_head + 1) % crowd.options.capacity;
        ring_length--;
        if (viewer->state == FREE || viewer->is_stuck) continue;
        static const unsigned char goodbye[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8};
        struct linger reset = {.l_onoff = 1};
        if (number % (2 * ONE_IN) == 1)
            setsockopt(viewer->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        else if (crowd.options.is_websocket && viewer->state == OPEN && number % ONE_IN != 1)
            send(viewer->fd, goodbye, sizeof goodbye, MSG_NOSIGNAL | MSG_DONTWAIT);
        forget(viewer);
        return;
    }
}

static void request(struct viewer *viewer) {
    char text[4096], path[LINE];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(viewer->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    sscanf(crowd.options.targets[viewer->messages], "%*s %*d %255s", path);
    viewer->messages = 0;
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n", path,
        crowd.options.header, crowd.options.is_websocket
            ? "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
              "Sec-WebSocket-Key: bGl2ZWpvYnMgYmVuY2ggaw==\r\n"
            : "Accept: text/event-stream\r\n");
    struct epoll_event read = {.events = EPOLLIN, .data.ptr = viewer};
    if (error || send(viewer->fd, text, (size_t)length, MSG_NOSIGNAL) != length) {
        crowd.failed++;
        forget(viewer);
    } else {
        viewer->state = SHAKING;
        epoll_ctl(crowd.poller, EPOLL_CTL_MOD, viewer->fd, &read);
    }
}

static void receive(struct viewer *viewer) {
    memcpy(buffer, viewer->carry ? viewer->carry : "", viewer->carry_length);
    ssize_t got = recv(viewer->fd, buffer + viewer->carry_length,
                       BUFFER - viewer->carry_length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    crowd.now = clock_ns();
    enum outcome outcome = CLOSED;
    if (got > 0) {
        int was_open = viewer->state == OPEN;
        crowd.bytes += (uint64_t)got;
        outcome = parse(viewer, crowd.options.is_websocket, buffer, (size_t)got);
        if (!was_open && viewer->state == OPEN) {
            crowd.shaking--;
            crowd.open++;
            if (crowd.options.ready_when_open) become_ready(viewer);
        }
    }
    if (outcome == GOES_ON) return;
    if (outcome == REFUSED) crowd.refused++;
    else crowd.closed++;
    forget(viewer);
}

/* -- all of them ---------------------------------------------------------------------------- */

void crowd_begin(void) {
    size_t count = (size_t)crowd.options.capacity;
    crowd.viewers = calloc(count, sizeof *crowd.viewers);
    free_slots = calloc(count, sizeof *free_slots);
    ring = calloc(count, sizeof *ring);
    for (int i = crowd.options.capacity; i--;) free_slots[free_count++] = i;
    crowd.poller = epoll_create1(0);
    crowd.since = crowd.now = clock_ns();
}

void crowd_reset(void) {
    crowd.messages = crowd.bytes = crowd.others = crowd.missed = crowd.repeated = 0;
    crowd.closed = crowd.refused = crowd.failed = crowd.last_ready = crowd.slowest = 0;
    memset(crowd.latencies, 0, sizeof crowd.latencies);
    memset(crowd.waits, 0, sizeof crowd.waits);
    crowd.since = clock_ns();
    for (int i = 0; i < crowd.options.capacity; i++)
        if (crowd.viewers[i].state == OPEN) crowd.viewers[i].messages = 0;
}

void crowd_drop(void) {
    crowd.wanted = 0;
    for (int i = 0; i < crowd.options.capacity; i++)
        if (crowd.viewers[i].state != FREE) forget(&crowd.viewers[i]);
    ring_length = 0;
}

void crowd_move(void) {
    while (crowd.open + crowd.shaking - crowd.stuck < crowd.wanted
           && crowd.shaking < crowd.options.most_at_once && free_count)
        arrive(0);
    double due = crowd.churn_rate * (double)(crowd.now - crowd.churn_began) / 1e9;
    for (; crowd.churn_rate > 0 && (double)crowd.churned < due; crowd.churned++) {
        int is_stuck = crowd.churned % ONE_IN == 0;
        if (!is_stuck) leave_oldest(crowd.churned);
        arrive(is_stuck);
    }
}

void crowd_happened(struct viewer *viewer) {
    if (viewer->state == CONNECTING) {
        request(viewer);
    } else if (viewer->is_stuck && viewer->is_ready) {
        crowd.closed++;
        forget(viewer);
    } else if (viewer->state != FREE) {
        receive(viewer);
    }
}
