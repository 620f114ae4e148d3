/* One HTTP/1.1 request out of the bytes that arrived so far. Does no I/O. */
#ifndef BENCHMARKS_REQUEST_H
#define BENCHMARKS_REQUEST_H

#include "net.h"

#include "json.h"

#define MAX_HEAD (64u << 10)
#define MAX_INPUT (64u << 20)

enum parsed { REQUEST_WHOLE, REQUEST_PARTIAL, REQUEST_BROKEN };

struct request {
    struct span method, path, body; /* the path without its query */
    size_t size;                    /* bytes of input it took */
    bool keep_alive;
};

static inline bool starts_with(struct span s, const char *prefix)
{
    size_t size = strlen(prefix);
    return (size_t)(s.end - s.start) >= size && !memcmp(s.start, prefix, size);
}

static inline enum parsed parse_chunked(const char **p, const char *end, struct span *body)
{
    static struct buffer decoded;
    struct chunked d = {.left = 0};
    const char *part;
    decoded.size = 0;
    for (size_t n; (n = chunked_next(&d, p, end, &part)) > 0;)
        buffer_add(&decoded, part, n);
    buffer_add(&decoded, "", 1);
    *body = (struct span){decoded.data, decoded.data + decoded.size - 1};
    return d.state == CHUNK_DONE ? REQUEST_WHOLE : d.state == CHUNK_BAD ? REQUEST_BROKEN : REQUEST_PARTIAL;
}

static inline enum parsed parse_line(const char *head, size_t head_size, struct request *r)
{
    const char *end = memchr(head, '\r', head_size), *space = memchr(head, ' ', (size_t)(end - head));
    const char *second = space ? memchr(space + 1, ' ', (size_t)(end - space - 1)) : NULL;
    if (!second)
        return REQUEST_BROKEN;
    const char *query = memchr(space, '?', (size_t)(second - space));
    r->method = (struct span){head, space};
    r->path = (struct span){space + 1, query ? query : second};
    r->keep_alive = end[-1] == '1' && !header_has(head, head_size, "connection", "close");
    return REQUEST_WHOLE;
}

/* The spans point into the input, or into a buffer that the next call uses again. */
static inline enum parsed parse_request(const struct buffer *in, struct request *r)
{
    const char *head = in->data, *stop = in->size ? memmem(head, in->size, "\r\n\r\n", 4) : NULL;
    if (!stop)
        return in->size > MAX_HEAD ? REQUEST_BROKEN : REQUEST_PARTIAL;
    size_t head_size = (size_t)(stop - head) + 4;
    const char *p = head + head_size, *end = head + in->size;
    int64_t length = content_length(head, head_size);
    r->body = (struct span){p, p};
    if (header_has(head, head_size, "transfer-encoding", "chunked")) {
        enum parsed parsed = parse_chunked(&p, end, &r->body);
        if (parsed != REQUEST_WHOLE)
            return parsed;
    } else if (length > end - p) {
        return length > (int64_t)MAX_INPUT ? REQUEST_BROKEN : REQUEST_PARTIAL;
    } else if (length > 0) {
        r->body.end = p += length;
    }
    r->size = (size_t)(p - head);
    return parse_line(head, head_size, r);
}

#endif
