/* What both tools need: a clock, growing buffers, addresses, and the parts of HTTP/1.1 that frame a message. */
#ifndef BENCHMARKS_NET_H
#define BENCHMARKS_NET_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull
#define MILLISECOND_NS 1000000ull

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND_NS + (uint64_t)t.tv_nsec;
}

static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

/* ---- growing buffer ------------------------------------------------------------------------------------- */

struct buffer {
    char *data;
    size_t size, capacity;
};

static inline void buffer_reserve(struct buffer *b, size_t extra)
{
    if (b->size + extra <= b->capacity)
        return;
    while (b->capacity < b->size + extra)
        b->capacity = b->capacity ? 2 * b->capacity : 1024;
    b->data = realloc(b->data, b->capacity);
    if (!b->data)
        die("out of memory: a buffer of %zu bytes", b->capacity);
}

static inline void buffer_add(struct buffer *b, const void *data, size_t size)
{
    buffer_reserve(b, size);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline void buffer_format(struct buffer *b, const char *format, ...)
{
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    buffer_reserve(b, (size_t)size + 1);
    vsnprintf(b->data + b->size, (size_t)size + 1, format, again);
    va_end(again);
    b->size += (size_t)size;
}

static inline void buffer_drop(struct buffer *b, size_t count)
{
    b->size -= count;
    memmove(b->data, b->data + count, b->size);
}

/* ---- addresses: "unix:/path", "unix:///path" or "host:port" ---------------------------------------------- */

struct address {
    struct sockaddr_storage storage;
    socklen_t size;
};

static inline struct address parse_address(const char *text)
{
    struct address a = {.size = 0};
    if (!strncmp(text, "unix:", 5)) {
        const char *path = text + (strncmp(text, "unix://", 7) ? 5 : 7);
        struct sockaddr_un *u = (struct sockaddr_un *)&a.storage;
        if (strlen(path) >= sizeof u->sun_path)
            die("%s: a Unix socket path has at most %zu characters", text, sizeof u->sun_path - 1);
        u->sun_family = AF_UNIX;
        strcpy(u->sun_path, path);
        a.size = sizeof *u;
        return a;
    }
    char host[256];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host)
        die("%s: write unix:/path or host:port", text);
    snprintf(host, sizeof host, "%.*s", (int)(colon - text), text);
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int failed = getaddrinfo(host, colon + 1, &hints, &found);
    if (failed)
        die("%s: %s", text, gai_strerror(failed));
    memcpy(&a.storage, found->ai_addr, found->ai_addrlen);
    a.size = found->ai_addrlen;
    freeaddrinfo(found);
    return a;
}

static inline void no_delay(int fd, const struct address *a)
{
    int one = 1;
    if (a->storage.ss_family == AF_INET)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* ---- HTTP framing ----------------------------------------------------------------------------------------- */

/* The value of a header in a head that ends in an empty line, or NULL; *size is its length. */
static inline const char *header_value(const char *head, size_t head_size, const char *name, size_t *size)
{
    size_t name_size = strlen(name);
    const char *end = head + head_size;
    for (const char *line = memchr(head, '\n', head_size); line && line + 1 < end;) {
        line++;
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop)
            return NULL;
        if ((size_t)(stop - line) > name_size && line[name_size] == ':' && !strncasecmp(line, name, name_size)) {
            const char *value = line + name_size + 1;
            while (value < stop && (*value == ' ' || *value == '\t'))
                value++;
            const char *last = stop;
            while (last > value && (last[-1] == '\r' || last[-1] == ' '))
                last--;
            *size = (size_t)(last - value);
            return value;
        }
        line = stop;
    }
    return NULL;
}

static inline bool header_has(const char *head, size_t head_size, const char *name, const char *word)
{
    size_t size, word_size = strlen(word);
    const char *value = header_value(head, head_size, name, &size);
    for (size_t i = 0; value && i + word_size <= size; i++)
        if (!strncasecmp(value + i, word, word_size))
            return true;
    return false;
}

/* Content-Length, or -1 where there is none. */
static inline int64_t content_length(const char *head, size_t head_size)
{
    size_t size;
    const char *value = header_value(head, head_size, "content-length", &size);
    return value ? strtoll(value, NULL, 10) : -1;
}

/* A chunked body, decoded as it arrives. Start from a zeroed struct. */
enum chunk_state { CHUNK_SIZE, CHUNK_EXTENSION, CHUNK_DATA, CHUNK_END, CHUNK_TRAILER, CHUNK_DONE, CHUNK_BAD };

struct chunked {
    enum chunk_state state;
    uint64_t left;
    bool line_has_text;
};

static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline void chunked_frame_byte(struct chunked *d, char c)
{
    int digit;
    switch (d->state) {
    case CHUNK_SIZE:
        if ((digit = hex_digit(c)) >= 0)
            d->left = d->left * 16 + (uint64_t)digit;
        else if (c == '\r' || c == ';' || c == ' ')
            d->state = CHUNK_EXTENSION;
        else
            d->state = CHUNK_BAD;
        break;
    case CHUNK_EXTENSION:
        if (c == '\n')
            d->state = d->left ? CHUNK_DATA : CHUNK_TRAILER;
        break;
    case CHUNK_END:
        if (c == '\n')
            d->state = CHUNK_SIZE;
        else if (c != '\r')
            d->state = CHUNK_BAD;
        break;
    case CHUNK_TRAILER:
        if (c == '\n') {
            if (!d->line_has_text)
                d->state = CHUNK_DONE;
            d->line_has_text = false;
        } else if (c != '\r') {
            d->line_has_text = true;
        }
        break;
    default:
        d->state = CHUNK_BAD;
    }
}

/* The next piece of payload in [*p, end), moving *p past it; 0 when more bytes are needed or the body ended. */
static inline size_t chunked_next(struct chunked *d, const char **p, const char *end, const char **piece)
{
    while (*p < end && d->state < CHUNK_DONE) {
        if (d->state == CHUNK_DATA) {
            size_t size = (size_t)(end - *p) < d->left ? (size_t)(end - *p) : (size_t)d->left;
            *piece = *p;
            *p += size;
            d->left -= size;
            if (!d->left)
                d->state = CHUNK_END;
            return size;
        }
        chunked_frame_byte(d, *(*p)++);
    }
    return 0;
}

#endif
