/* The load client: very many viewers in one thread. It is led by lines on its standard input:

     open N        have N viewers in all, as fast as the server takes them
     churn R       R viewers a second come, and as many go (0: none)
     drop          close all of them at once
     reset         forget what was counted
     report        print what was counted since, as one line of JSON
*/
#include "crowd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { NAP_NS = 200000 };

#define N(value) (unsigned long long)(value)

static void report(void) {
    uint64_t least = UINT64_MAX, most = 0;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    for (int i = 0; i < crowd.options.capacity; i++) {
        struct viewer *viewer = &crowd.viewers[i];
        if (viewer->state != OPEN || viewer->is_stuck) continue;
        if (viewer->messages < least) least = viewer->messages;
        if (viewer->messages > most) most = viewer->messages;
    }
    uint64_t ready_after = crowd.last_ready > crowd.since ? crowd.last_ready - crowd.since : 0;
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
                 + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"open\":%d,\"ready\":%d,\"shaking\":%d,\"stuck\":%d,\"closed\":%llu,"
           "\"refused\":%llu,\"failed\":%llu,\"arrived\":%llu,",
           crowd.open, crowd.ready, crowd.shaking, crowd.stuck, N(crowd.closed),
           N(crowd.refused), N(crowd.failed), N(crowd.arrived));
    printf("\"messages\":%llu,\"bytes\":%llu,\"others\":%llu,\"missed\":%llu,\"repeated\":%llu,"
           "\"least\":%llu,\"most\":%llu,",
           N(crowd.messages), N(crowd.bytes), N(crowd.others), N(crowd.missed),
           N(crowd.repeated), N(least == UINT64_MAX ? 0 : least), N(most));
    printf("\"p50_us\":%llu,\"p99_us\":%llu,\"max_us\":%llu,\"ready_p50_us\":%llu,"
           "\"ready_p99_us\":%llu,\"all_ready_us\":%llu,\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n",
           N(quantile(crowd.latencies, .5)), N(quantile(crowd.latencies, .99)), N(crowd.slowest),
           N(quantile(crowd.waits, .5)), N(quantile(crowd.waits, .99)), N(ready_after / 1000),
           (double)(clock_ns() - crowd.since) / 1e9, cpu);
    fflush(stdout);
}

static void obey(const char *line) {
    if (strncmp(line, "open ", 5) == 0) {
        crowd.wanted = atoi(line + 5);
    } else if (strncmp(line, "churn ", 6) == 0) {
        crowd.churn_rate = atof(line + 6);
        crowd.churn_began = crowd.now;
        crowd.churned = 0;
    } else if (strncmp(line, "drop", 4) == 0) {
        crowd_drop();
    } else if (strncmp(line, "reset", 5) == 0) {
        crowd_reset();
    } else if (strncmp(line, "report", 6) == 0) {
        report();
    }
}

/* Reads commands; 0: there will be no more. */
static int listen_once(void) {
    static char pending[LINE];
    static size_t length;
    ssize_t got = read(0, pending + length, sizeof pending - 1 - length);
    if (got <= 0) return 0;
    pending[length + (size_t)got] = 0;
    char *line = pending, *end;
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1) obey(line);
    length = strlen(line);
    memmove(pending, line, length + 1);
    return 1;
}

static void read_targets(const char *path) {
    FILE *file = fopen(path, "r");
    char line[LINE];
    struct options *options = &crowd.options;
    while (file && fgets(line, sizeof line, file)) {
        size_t size = (size_t)(options->target_count + 1) * LINE;
        options->targets = realloc(options->targets, size);
        memcpy(options->targets[options->target_count++], line, LINE);
    }
    if (file) fclose(file);
}

int main(int argc, char **argv) {
    if (argc != 8) return 2; /* ws|sse targets header sources at-once ready-when-open capacity */
    crowd.options.is_websocket = strcmp(argv[1], "ws") == 0;
    read_targets(argv[2]);
    crowd.options.header = argv[3];
    crowd.options.sources = atoi(argv[4]);
    crowd.options.most_at_once = atoi(argv[5]);
    crowd.options.ready_when_open = atoi(argv[6]);
    crowd.options.capacity = atoi(argv[7]);
    crowd_begin();
    struct epoll_event commands = {.events = EPOLLIN}, happened[EVENTS];
    if (crowd.options.target_count == 0 || epoll_ctl(crowd.poller, EPOLL_CTL_ADD, 0, &commands) < 0)
        return 1;
    /* It sleeps here and not in epoll_wait, so that it is not woken by each single message: on one
       machine the server would pay for that, whom a client elsewhere costs nothing. */
    struct timespec nap = {.tv_nsec = NAP_NS};
    for (;;) {
        int waits = crowd.wanted || crowd.churn_rate > 0 ? 5 : 1000; /* ms */
        int count = epoll_wait(crowd.poller, happened, EVENTS, waits);
        crowd.now = clock_ns();
        for (int i = 0; i < count; i++) {
            struct viewer *viewer = happened[i].data.ptr;
            if (viewer != NULL) crowd_happened(viewer);
            else if (!listen_once()) return 0;
        }
        crowd_move();
        if (count < EVENTS) nanosleep(&nap, NULL);
    }
}
