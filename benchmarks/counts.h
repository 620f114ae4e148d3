/* What the load generator counts, and the JSON line it prints of it. */
#ifndef BENCHMARKS_COUNTS_H
#define BENCHMARKS_COUNTS_H

#include "reply.h"

#include "histogram.h"

#include <sys/resource.h>

struct counts {
    uint64_t sent; /* requests in all, warm-up and what ended too late included */
    uint64_t requests, ok; /* every request ends as ok, as another status, or as one of the next four */
    uint64_t connect_errors, broken, bad_content, timeouts;
    uint64_t opened; /* connections */
    double done_requests, done_tokens; /* work done while it counted: a good answer half inside counts half */
    uint64_t events, chunks, completion_tokens, by_status[600];
    struct histogram latency, first_chunk, gap;
    char first_error[512];
};

static inline void note_error(struct counts *n, const char *what, const char *text, size_t size)
{
    if (!n->first_error[0])
        snprintf(n->first_error, sizeof n->first_error, "%s%.*s", what, (int)(size < 400 ? size : 400), text);
}

static inline void count_answer(struct counts *n, const struct reply *r, uint64_t took_ns)
{
    n->requests++;
    n->by_status[r->status > 0 && r->status < 600 ? r->status : 0]++;
    if (r->status != 200) {
        char status[32];
        snprintf(status, sizeof status, "%d: ", r->status);
        note_error(n, status, r->kept.size ? r->kept.data : "", r->kept.size);
    } else if (!reply_is_good(r)) {
        n->bad_content++;
        note_error(n, "200 without an end mark or choices: ", r->kept.size ? r->kept.data : "", r->kept.size);
    } else {
        n->ok++;
        n->completion_tokens += r->completion_tokens;
        histogram_add(&n->latency, took_ns);
    }
}

/* Add the part of a good answer's work that lies between `from` and `to`, taking it as even over its time. */
static inline void count_work(struct counts *n, const struct reply *r, uint64_t begun, uint64_t ended, uint64_t from,
                              uint64_t to)
{
    uint64_t first = begun > from ? begun : from, last = ended < to ? ended : to;
    if (r->status != 200 || !reply_is_good(r) || last <= first)
        return;
    double share = (double)(last - first) / (double)(ended - begun);
    n->done_requests += share;
    n->done_tokens += share * (double)r->completion_tokens;
}

static inline void print_text(const char *name, const char *text)
{
    printf(",\"%s\":\"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else
            putchar((unsigned char)*text >= ' ' && (unsigned char)*text < 127 ? *text : '?');
    }
    putchar('"');
}

static inline void print_statuses(const struct counts *n)
{
    printf(",\"by_status\":{");
    for (int i = 0, seen = 0; i < 600; i++)
        if (n->by_status[i])
            printf("%s\"%d\":%llu", seen++ ? "," : "", i, (unsigned long long)n->by_status[i]);
    printf("}");
}

/* Print everything, with the time that was counted and the CPU time this process took. */
static inline void report(const struct counts *n, uint64_t counted_ns)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                   (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"sent", n->sent},
        {"requests", n->requests},
        {"ok", n->ok},
        {"connect_errors", n->connect_errors},
        {"broken", n->broken},
        {"bad_content", n->bad_content},
        {"timeouts", n->timeouts},
        {"opened", n->opened},
        {"events", n->events},
        {"chunks", n->chunks},
        {"completion_tokens", n->completion_tokens},
    };
    printf("{\"seconds\":%.6f,\"cpu_s\":%.4f", (double)counted_ns / 1e9, cpu_s);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        printf(",\"%s\":%llu", numbers[i].name, (unsigned long long)numbers[i].value);
    printf(",\"done_requests\":%.3f,\"done_tokens\":%.3f", n->done_requests, n->done_tokens);
    print_statuses(n);
    histogram_print("latency_ms", &n->latency);
    histogram_print("first_chunk_ms", &n->first_chunk);
    histogram_print("gap_ms", &n->gap);
    print_text("first_error", n->first_error);
    printf("}\n");
}

#endif
