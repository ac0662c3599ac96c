/* Times in steps of 3 %: exact below 64, then 32 steps for each power of two. */
#ifndef LIVEJOBS_BENCH_HISTOGRAM_H
#define LIVEJOBS_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { EXACT = 64, STEPS = 32, SLOTS = EXACT + 34 * STEPS };

static inline void note(uint32_t *histogram, uint64_t value) {
    if (value >= 1ull << 39) value = (1ull << 39) - 1;
    int power = value < EXACT ? 0 : 63 - __builtin_clzll(value);
    int slot = power ? EXACT + (power - 6) * STEPS + (int)(value >> (power - 5)) - STEPS
                     : (int)value;
    histogram[slot]++;
}

static inline uint64_t quantile(const uint32_t *histogram, double share) {
    uint64_t all = 0, seen = 0;
    for (int i = 0; i < SLOTS; i++) all += histogram[i];
    for (int i = 0; i < SLOTS; i++) {
        seen += histogram[i];
        if (seen && (double)seen >= share * (double)all)
            return i < EXACT ? (uint64_t)i
                             : (uint64_t)((i - EXACT) % STEPS + STEPS) << ((i - EXACT) / STEPS + 1);
    }
    return 0;
}

#endif
