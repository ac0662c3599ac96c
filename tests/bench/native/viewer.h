/* One simulated viewer: what it has received, and what is left of a message cut in two. */
#ifndef LIVEJOBS_BENCH_VIEWER_H
#define LIVEJOBS_BENCH_VIEWER_H

#include <stddef.h>
#include <stdint.h>

enum state { FREE, CONNECTING, SHAKING, OPEN };
enum outcome { GOES_ON, CLOSED, REFUSED };

struct viewer {
    int fd;
    uint8_t state;
    uint8_t is_ready;      /* the message with the job's state has come */
    uint8_t is_stuck;      /* never reads once it is ready */
    uint8_t is_chunked;    /* the event stream comes in chunks */
    uint8_t chunk_state;   /* see parse.c */
    uint32_t chunk_left;
    uint32_t carry_length; /* bytes of a message that is not complete */
    char *carry;
    uint64_t messages;     /* stamped ones since the last reset */
    int64_t last_number;   /* of the last stamped message; -1: none yet */
    uint64_t started;      /* when it began to connect, ns */
};

/* Both transports' messages end up here; implemented by crowd.c. */
void viewer_told(struct viewer *viewer, const char *text, size_t length);
void viewer_pinged(struct viewer *viewer, const char *payload, size_t length);

/* Feed what was received, `length` bytes after the viewer's carry at the begin of `buffer`. */
enum outcome parse(struct viewer *viewer, int is_websocket, char *buffer, size_t length);

#endif
