/* Just enough JSON to read a few members of a request: steps over an object's members without building anything. */
#ifndef BENCHMARKS_JSON_H
#define BENCHMARKS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
    const char *start, *end;
};

static inline const char *json_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r' || *p == ',' || *p == ':'))
        p++;
    return p;
}

/* From an opening quote to just behind the closing one. */
static inline const char *json_string_end(const char *p, const char *end)
{
    for (p++; (p = memchr(p, '"', (size_t)(end - p))) != NULL; p++) {
        const char *slash = p;
        while (slash[-1] == '\\')
            slash--;
        if ((p - slash) % 2 == 0)
            return p + 1;
    }
    return end;
}

static inline const char *json_value_end(const char *p, const char *end)
{
    int depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = json_string_end(p, end);
        } else if (*p == '{' || *p == '[') {
            depth++, p++;
        } else if (*p == '}' || *p == ']') {
            if (!depth)
                return p;
            depth--, p++;
        } else if (!depth && (*p == ',' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
            return p;
        } else {
            p++;
            continue;
        }
        if (!depth)
            return p;
    }
    return end;
}

/* Step to the next member. Start with `at` at the opening brace; false at the end or where it is no object. */
static inline bool json_next(struct span *at, struct span *key, struct span *value)
{
    const char *p = json_space(at->start, at->end);
    if (p < at->end && *p == '{')
        p = json_space(p + 1, at->end);
    if (p >= at->end || *p != '"')
        return false;
    key->start = p + 1;
    p = json_string_end(p, at->end);
    key->end = p - 1;
    value->start = p = json_space(p, at->end);
    value->end = at->start = json_value_end(p, at->end);
    return value->start < value->end;
}

static inline bool span_is(struct span s, const char *text)
{
    size_t size = strlen(text);
    return (size_t)(s.end - s.start) == size && !memcmp(s.start, text, size);
}

#endif
