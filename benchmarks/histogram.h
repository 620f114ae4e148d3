/* Latencies in nanoseconds in buckets of constant relative width: at most 1/128 (0.8 %) wide, any range. */
#ifndef BENCHMARKS_HISTOGRAM_H
#define BENCHMARKS_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define SUB_BITS 7
#define SUB_COUNT (1u << SUB_BITS)
#define BUCKETS ((64 - SUB_BITS + 1) * SUB_COUNT)

struct histogram {
    uint64_t count, max;
    uint64_t buckets[BUCKETS];
};

static inline unsigned bucket_of(uint64_t value)
{
    if (value < SUB_COUNT)
        return (unsigned)value;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value) - SUB_BITS;
    return (shift + 1) * SUB_COUNT + (unsigned)((value >> shift) - SUB_COUNT);
}

/* The middle of a bucket. */
static inline uint64_t bucket_value(unsigned bucket)
{
    if (bucket < SUB_COUNT)
        return bucket;
    unsigned shift = bucket / SUB_COUNT - 1;
    return ((uint64_t)(bucket % SUB_COUNT + SUB_COUNT) << shift) + ((1ull << shift) >> 1);
}

static inline void histogram_add(struct histogram *h, uint64_t value)
{
    h->count++;
    if (value > h->max)
        h->max = value;
    h->buckets[bucket_of(value)]++;
}

/* The smallest recorded value that at least `fraction` of all values do not exceed; 0 when empty. */
static inline uint64_t histogram_at(const struct histogram *h, double fraction)
{
    uint64_t seen = 0, wanted = (uint64_t)(fraction * (double)h->count + 0.999999);
    if (wanted < 1)
        wanted = 1;
    for (unsigned i = 0; i < BUCKETS && h->count; i++) {
        seen += h->buckets[i];
        if (seen >= wanted)
            return bucket_value(i) < h->max ? bucket_value(i) : h->max;
    }
    return 0;
}

static inline void histogram_print(const char *name, const struct histogram *h)
{
    printf(",\"%s\":{\"count\":%llu", name, (unsigned long long)h->count);
    printf(",\"p50\":%.4f", (double)histogram_at(h, 0.50) / 1e6);
    printf(",\"p99\":%.4f}", (double)histogram_at(h, 0.99) / 1e6);
}

#endif
