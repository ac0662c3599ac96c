/* All viewers of a load client: coming, receiving, going. */
#ifndef LIVEJOBS_BENCH_CROWD_H
#define LIVEJOBS_BENCH_CROWD_H

#include "histogram.h"
#include "viewer.h"

enum { LINE = 256, EVENTS = 512 };

struct options {
    int is_websocket, sources, most_at_once, ready_when_open, capacity;
    const char *header;
    char (*targets)[LINE]; /* "address port path" */
    int target_count;
};

struct crowd {
    struct options options;
    struct viewer *viewers;
    int poller, wanted;
    int shaking, open, ready, stuck;
    uint64_t now, since; /* ns */
    uint64_t closed, refused, failed, arrived, last_ready;
    uint64_t messages, bytes, others, missed, repeated, slowest;
    uint32_t latencies[SLOTS], waits[SLOTS];
    double churn_rate;
    uint64_t churn_began, churned;
};

extern struct crowd crowd;

uint64_t clock_ns(void);
void crowd_begin(void);                       /* once the options are set */
void crowd_reset(void);                       /* count anew */
void crowd_drop(void);                        /* close all */
void crowd_move(void);                        /* let come and go who is due */
void crowd_happened(struct viewer *viewer);   /* its socket has something */

#endif
