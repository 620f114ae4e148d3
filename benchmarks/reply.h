/* One HTTP/1.1 answer as it arrives: its status, its SSE events, its tokens. Does no I/O and keeps no clock. */
#ifndef BENCHMARKS_REPLY_H
#define BENCHMARKS_REPLY_H

#include "net.h"

#define MAX_REPLY_HEAD (64u << 10)
#define MAX_KEPT_BODY (4u << 20) /* of an answer that is no stream */

enum reply_state { REPLY_HEAD, REPLY_BODY, REPLY_WHOLE, REPLY_BROKEN };
enum framing { BY_LENGTH, BY_CHUNKS, BY_CLOSE };

struct reply {
    enum reply_state state;
    enum framing framing;
    struct chunked chunked;
    int64_t left; /* bytes of a body framed by length */
    int status;
    bool stream, keep_alive, saw_done;
    uint64_t events, chunks; /* `data:` events without [DONE]; those of them with content */
    uint64_t completion_tokens;
    struct buffer kept; /* the head, then an unfinished line of a stream or the body */
};

static inline void reply_reset(struct reply *r)
{
    struct buffer kept = r->kept;
    *r = (struct reply){.kept = kept};
    r->kept.size = 0;
}

static inline void read_completion_tokens(struct reply *r, const char *text, size_t size)
{
    static const char name[] = "\"completion_tokens\":";
    const char *end = text + size, *at = memmem(text, size, name, sizeof name - 1);
    if (!at)
        return;
    r->completion_tokens = 0;
    for (at += sizeof name - 1; at < end && *at == ' ';)
        at++;
    for (; at < end && *at >= '0' && *at <= '9'; at++)
        r->completion_tokens = 10 * r->completion_tokens + (uint64_t)(*at - '0');
}

static inline void reply_line(struct reply *r, const char *line, size_t size)
{
    static const char content[] = "\"content\":\"";
    if (size < 5 || memcmp(line, "data:", 5))
        return;
    if (size < 16 && memmem(line, size, "[DONE]", 6)) {
        r->saw_done = true;
        return;
    }
    r->events++;
    const char *at = memmem(line, size, content, sizeof content - 1);
    if (at && at + sizeof content - 1 < line + size && at[sizeof content - 1] != '"')
        r->chunks++;
    else
        read_completion_tokens(r, line, size);
}

static inline void reply_lines(struct reply *r, const char *p, const char *end)
{
    const char *stop;
    while (p < end && (stop = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        if (r->kept.size) {
            buffer_add(&r->kept, p, (size_t)(stop - p));
            reply_line(r, r->kept.data, r->kept.size);
            r->kept.size = 0;
        } else {
            reply_line(r, p, (size_t)(stop - p));
        }
        p = stop + 1;
    }
    if (p < end && r->kept.size < MAX_KEPT_BODY)
        buffer_add(&r->kept, p, (size_t)(end - p));
}

static inline void reply_payload(struct reply *r, const char *p, size_t size)
{
    if (r->stream)
        reply_lines(r, p, p + size);
    else if (r->kept.size < MAX_KEPT_BODY)
        buffer_add(&r->kept, p, size);
}

static inline void reply_end(struct reply *r)
{
    r->state = REPLY_WHOLE;
    if (r->stream)
        return;
    read_completion_tokens(r, r->kept.data, r->kept.size);
}

static inline void reply_head(struct reply *r, const char *head, size_t size)
{
    int64_t length = content_length(head, size);
    if (size < 16 || memcmp(head, "HTTP/1.", 7)) {
        r->state = REPLY_BROKEN;
        return;
    }
    r->status = atoi(head + 9);
    r->state = REPLY_BODY;
    r->stream = header_has(head, size, "content-type", "text/event-stream");
    r->keep_alive = !header_has(head, size, "connection", "close");
    r->left = length < 0 ? 0 : length;
    r->framing = header_has(head, size, "transfer-encoding", "chunked") ? BY_CHUNKS : length < 0 ? BY_CLOSE : BY_LENGTH;
    if (r->framing == BY_CLOSE)
        r->keep_alive = false;
    if (r->framing == BY_LENGTH && !length)
        reply_end(r);
}

/* Take the head off the front of what arrived; returns where the body starts, or NULL while it is incomplete. */
static inline const char *reply_take_head(struct reply *r, const char *p, const char *end)
{
    size_t before = r->kept.size, from = before > 3 ? before - 3 : 0;
    buffer_add(&r->kept, p, (size_t)(end - p));
    const char *stop = memmem(r->kept.data + from, r->kept.size - from, "\r\n\r\n", 4);
    if (!stop) {
        if (r->kept.size > MAX_REPLY_HEAD)
            r->state = REPLY_BROKEN;
        return NULL;
    }
    size_t size = (size_t)(stop - r->kept.data) + 4;
    r->kept.size = 0;
    reply_head(r, r->kept.data, size);
    return p + (size - before);
}

/* Take in bytes that arrived; look at `state` afterwards. Bytes behind a whole answer make it broken. */
static inline void reply_feed(struct reply *r, const char *p, const char *end)
{
    if (r->state == REPLY_HEAD && !(p = reply_take_head(r, p, end)))
        return;
    if (r->state == REPLY_BODY && r->framing == BY_CHUNKS) {
        const char *part;
        for (size_t n; (n = chunked_next(&r->chunked, &p, end, &part)) > 0;)
            reply_payload(r, part, n);
        if (r->chunked.state == CHUNK_DONE)
            reply_end(r);
        else if (r->chunked.state == CHUNK_BAD)
            r->state = REPLY_BROKEN;
    } else if (r->state == REPLY_BODY) {
        int64_t size = r->framing == BY_CLOSE || end - p < r->left ? end - p : r->left;
        reply_payload(r, p, (size_t)size);
        p += size;
        r->left -= size;
        if (r->framing == BY_LENGTH && !r->left)
            reply_end(r);
    }
    if (p < end)
        r->state = REPLY_BROKEN;
}

/* The server closed: that ends a body framed by it, and breaks any other. */
static inline void reply_closed(struct reply *r)
{
    if (r->state == REPLY_BODY && r->framing == BY_CLOSE)
        reply_end(r);
    else
        r->state = REPLY_BROKEN;
}

/* Whether a whole 200 answer holds what it should: the end mark of a stream, or a completion's choices. */
static inline bool reply_is_good(const struct reply *r)
{
    return r->stream ? r->saw_done : r->kept.size && memmem(r->kept.data, r->kept.size, "\"choices\"", 9);
}

#endif
