/* What the mock engine answers: reads a request, renders the answer as pieces. Does no I/O. */
#ifndef BENCHMARKS_ANSWER_H
#define BENCHMARKS_ANSWER_H

#include "net.h"

#include "json.h"

#define MAX_PIECES 32
#define PROMPT_TOKENS 32ull
#define MAX_CHUNKS 1000000000ull /* bounds the pieces */

/* A part of an answer, written `times` times over, each `pause_ns` after the one before. */
struct piece {
    size_t start, size;
    uint64_t times, pause_ns;
    uint64_t first_tokens;          /* the completion tokens of the first round; 0: it carries no running count */
    size_t total_end, completion_end; /* just behind those two numbers */
};

struct answer {
    struct buffer out;
    struct piece pieces[MAX_PIECES];
    unsigned count;
};

struct ask {
    struct span model;
    bool stream, usage, running_usage;
    uint64_t chunks, delay_ns;
    unsigned long long number; /* of this request: makes its id */
};

/* ---- the request -------------------------------------------------------------------------------------------- */

static inline void read_stream_options(struct span options, struct ask *a)
{
    struct span key, value;
    while (json_next(&options, &key, &value)) {
        a->usage |= span_is(key, "include_usage") && *value.start == 't';
        a->running_usage |= span_is(key, "continuous_usage_stats") && *value.start == 't';
    }
}

/* Read the members the answer depends on; `a` holds the defaults. The body must end in a NUL byte. */
static inline void read_ask(struct span body, struct ask *a)
{
    struct span key, value;
    while (json_next(&body, &key, &value)) {
        bool number = *value.start >= '0' && *value.start <= '9';
        if (span_is(key, "model") && *value.start == '"')
            a->model = (struct span){value.start + 1, value.end - 1};
        else if (span_is(key, "stream"))
            a->stream = *value.start == 't';
        else if (number && (span_is(key, "max_tokens") || span_is(key, "max_completion_tokens")))
            a->chunks = strtoull(value.start, NULL, 10) % MAX_CHUNKS;
        else if (number && span_is(key, "seed"))
            a->delay_ns = strtoull(value.start, NULL, 10) * MILLISECOND_NS;
        else if (span_is(key, "stream_options"))
            read_stream_options(value, a);
    }
}

/* Take the revision out of what PUT /internal/adapters is sent; any other body changes nothing. */
static inline void read_revision(struct span body, unsigned long long *revision)
{
    struct span key, value;
    while (json_next(&body, &key, &value))
        if (span_is(key, "revision"))
            *revision = strtoull(value.start, NULL, 10);
}

/* ---- the answer --------------------------------------------------------------------------------------------- */

static inline struct piece *piece_begin(struct answer *o)
{
    struct piece *p = &o->pieces[o->count++];
    *p = (struct piece){.start = o->out.size, .times = 1};
    return p;
}

static inline void piece_end(struct answer *o, struct piece *p) { p->size = o->out.size - p->start; }

static inline void add_plain(struct answer *o, const char *status, const char *body, size_t size)
{
    struct piece *p = piece_begin(o);
    buffer_format(&o->out, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", status,
                  size);
    buffer_add(&o->out, body, size);
    piece_end(o, p);
}

/* A whole chat completion, after the time all its tokens take. */
static inline void add_completion(struct answer *o, const struct ask *a)
{
    static struct buffer body;
    body.size = 0;
    buffer_format(&body,
                  "{\"id\":\"chatcmpl-%032llx\",\"object\":\"chat.completion\",\"created\":1767225600,\"model\":\"%.*s\","
                  "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A token and another one, "
                  "as many as were asked for.\",\"refusal\":null,\"annotations\":null,\"audio\":null,"
                  "\"function_call\":null,\"tool_calls\":[],\"reasoning\":null},\"logprobs\":null,"
                  "\"finish_reason\":\"stop\",\"stop_reason\":null,\"token_ids\":null}],\"service_tier\":null,"
                  "\"system_fingerprint\":null,\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu,"
                  "\"completion_tokens\":%llu,\"prompt_tokens_details\":null},\"prompt_logprobs\":null}",
                  a->number, (int)(a->model.end - a->model.start), a->model.start, PROMPT_TOKENS,
                  (unsigned long long)a->chunks + PROMPT_TOKENS, (unsigned long long)a->chunks);
    add_plain(o, "200 OK", body.data, body.size);
    o->pieces[o->count - 1].pause_ns = a->chunks * a->delay_ns;
}

/* One SSE event in its own HTTP chunk; without a delta it is the usage event. */
static inline struct piece *add_event(struct answer *o, const struct ask *a, const char *delta, const char *reason,
                                      uint64_t tokens)
{
    static struct buffer data;
    size_t total_end = 0, completion_end = 0;
    data.size = 0;
    buffer_format(&data,
                  "data: {\"id\":\"chatcmpl-%032llx\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,"
                  "\"model\":\"%.*s\",\"choices\":[",
                  a->number, (int)(a->model.end - a->model.start), a->model.start);
    if (delta)
        buffer_format(&data, "{\"index\":0,\"delta\":%s,\"logprobs\":null,\"finish_reason\":%s}", delta, reason);
    buffer_add(&data, "]", 1);
    if (!delta || a->running_usage) {
        buffer_format(&data, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu", PROMPT_TOKENS,
                      (unsigned long long)tokens + PROMPT_TOKENS);
        total_end = data.size;
        buffer_format(&data, ",\"completion_tokens\":%llu", (unsigned long long)tokens);
        completion_end = data.size;
        buffer_add(&data, "}", 1);
    }
    buffer_add(&data, "}\n\n", 3);
    struct piece *p = piece_begin(o);
    buffer_format(&o->out, "%zx\r\n", data.size);
    p->total_end = o->out.size + total_end;
    p->completion_end = o->out.size + completion_end;
    buffer_add(&o->out, data.data, data.size);
    buffer_add(&o->out, "\r\n", 2);
    piece_end(o, p);
    return p;
}

static inline void write_number_before(char *end, uint64_t number)
{
    do
        *--end = (char)('0' + number % 10);
    while (number /= 10);
}

/* Bring the running counts of a content event up to date; they keep their width within one piece. */
static inline void write_tokens(struct answer *o, const struct piece *p, uint64_t round)
{
    if (!p->first_tokens)
        return;
    write_number_before(o->out.data + p->completion_end, p->first_tokens + round);
    write_number_before(o->out.data + p->total_end, p->first_tokens + round + PROMPT_TOKENS);
}

/* The last count from `first` on in which neither the completion nor the total tokens get one digit longer. */
static inline uint64_t last_of_width(uint64_t first)
{
    uint64_t limit = 10, total_limit = 10;
    while (limit <= first)
        limit *= 10;
    while (total_limit <= first + PROMPT_TOKENS)
        total_limit *= 10;
    return limit < total_limit - PROMPT_TOKENS ? limit - 1 : total_limit - PROMPT_TOKENS - 1;
}

static inline void add_content(struct answer *o, const struct ask *a)
{
    for (uint64_t first = 1, last; first <= a->chunks; first = last + 1) {
        last = a->running_usage ? last_of_width(first) : a->chunks;
        if (last > a->chunks)
            last = a->chunks;
        struct piece *p = add_event(o, a, "{\"content\":\" token\"}", "null", first);
        p->times = last - first + 1;
        p->pause_ns = a->delay_ns;
        p->first_tokens = a->running_usage ? first : 0;
    }
}

static inline void add_text(struct answer *o, const char *text)
{
    struct piece *p = piece_begin(o);
    buffer_add(&o->out, text, strlen(text));
    piece_end(o, p);
}

/* The events of vLLM's stream: role, content, finish, usage where asked for, end. */
static inline void add_stream(struct answer *o, const struct ask *a)
{
    add_text(o, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                "transfer-encoding: chunked\r\n\r\n");
    add_event(o, a, "{\"role\":\"assistant\",\"content\":\"\"}", "null", 0);
    add_content(o, a);
    add_event(o, a, "{\"content\":\"\"}", "\"stop\"", a->chunks);
    if (a->usage)
        add_event(o, a, NULL, NULL, a->chunks);
    add_text(o, "e\r\ndata: [DONE]\n\n\r\n");
    add_text(o, "0\r\n\r\n");
}

#endif
