/* load.c - drives an OpenAI endpoint with a fixed number of connections and prints what came back as one JSON line.
 *
 *   load --connect unix:/path|host:port --bodies FILE [--path /v1/chat/completions] [--header 'Name: value']...
 *        [--connections 1] [--seconds 3] [--warmup 0.5] [--requests N] [--stagger-ms 0] [--timeout 30]
 *
 * FILE holds one JSON body per line, sent in turn. Every connection sends a request, reads the whole answer and sends
 * the next (closed loop, keep-alive). What ends between the warm-up and the end counts; what is running at the end is
 * read to its end without counting. With --requests it sends that many and counts them all. --stagger-ms spreads the
 * first requests over that time. An answer that is `text/event-stream` is counted event by event.
 * Since few long answers end in a short time, the work done is also told as shares: an answer that lies half in the
 * counted time counts half. One thread, epoll. Latencies are in milliseconds, from the first byte sent. It decides nothing about pass or fail.
 */
#include "counts.h"

#include <signal.h>
#include <sys/epoll.h>

#define MAX_BODIES 4096
#define READ_SIZE (256u << 10)
#define RETRY_NS (10 * MILLISECOND_NS)

enum place { RESTING, WRITING, READING };

struct connection {
    enum place place;
    int fd;
    const struct buffer *request;
    size_t sent;
    uint64_t start_at_ns; /* when resting: not before this */
    uint64_t begun_ns, last_ns, last_chunk_ns;
    struct reply reply;
};

static struct {
    struct address address;
    const char *target, *path, *bodies;
    uint64_t connections, requests, stagger_ns, timeout_ns;
    double seconds, warmup;
} options = {.path = "/v1/chat/completions", .connections = 1, .seconds = 3, .warmup = 0.5};

static struct counts counts;
static struct buffer headers, requests[MAX_BODIES];
static uint64_t request_count, started, active, begin_ns, end_ns, last_ns;
static int poller;

static bool counting(uint64_t now) { return now >= begin_ns && now < end_ns; }

/* ---- one request -------------------------------------------------------------------------------------------- */

static bool may_start(uint64_t now) { return options.requests ? started < options.requests : now < end_ns; }

static void watch(struct connection *c, int operation, uint32_t what)
{
    struct epoll_event e = {.events = what, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &e);
}

static void rest(struct connection *c, uint64_t until_ns)
{
    active -= c->place != RESTING;
    c->place = RESTING;
    c->start_at_ns = until_ns;
}

static void hang_up(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static bool connect_if_needed(struct connection *c)
{
    if (c->fd >= 0)
        return true;
    c->fd = socket(options.address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&options.address.storage, options.address.size)) {
        hang_up(c);
        return false;
    }
    no_delay(c->fd, &options.address);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    counts.opened++;
    return true;
}

/* The request came to nothing: count why, and try again a little later on a new connection. */
static void fail(struct connection *c, uint64_t now, uint64_t *counter, const char *why)
{
    if (counting(now)) {
        ++*counter;
        counts.requests++;
        note_error(&counts, why, "", 0);
    }
    last_ns = now;
    hang_up(c);
    rest(c, now + RETRY_NS);
}

static void write_request(struct connection *c)
{
    ssize_t n = send(c->fd, c->request->data + c->sent, c->request->size - c->sent, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        fail(c, now_ns(), &counts.broken, "the connection broke while a request was sent");
        return;
    }
    c->sent += n > 0 ? (size_t)n : 0;
    bool whole = c->sent == c->request->size;
    if (whole && c->place == READING)
        return;
    if (!whole || c->place == WRITING)
        watch(c, EPOLL_CTL_MOD, whole ? EPOLLIN : EPOLLIN | EPOLLOUT);
    c->place = whole ? READING : WRITING;
}

static void start(struct connection *c, uint64_t now)
{
    active++;
    c->place = READING;
    c->request = &requests[started++ % request_count];
    if (!connect_if_needed(c)) {
        fail(c, now, &counts.connect_errors, strerror(errno));
        return;
    }
    counts.sent++;
    c->sent = 0;
    c->last_chunk_ns = 0;
    reply_reset(&c->reply);
    c->begun_ns = c->last_ns = now_ns();
    write_request(c);
}

/* ---- one answer --------------------------------------------------------------------------------------------- */

static void count_arrival(struct connection *c, uint64_t now, uint64_t events, uint64_t chunks)
{
    if (counting(now)) {
        counts.events += events;
        counts.chunks += chunks;
        if (chunks && !c->last_chunk_ns)
            histogram_add(&counts.first_chunk, now - c->begun_ns);
        for (uint64_t i = c->last_chunk_ns ? 0 : 1; i < chunks; i++)
            histogram_add(&counts.gap, i ? 0 : now - c->last_chunk_ns);
    }
    if (chunks)
        c->last_chunk_ns = now;
}

static void read_answer(struct connection *c)
{
    static char data[READ_SIZE];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    uint64_t now = now_ns(), events = c->reply.events, chunks = c->reply.chunks;
    c->last_ns = now;
    if (c->place == RESTING) { /* the server closed an idle connection */
        hang_up(c);
        return;
    }
    if (n > 0)
        reply_feed(&c->reply, data, data + n);
    else
        reply_closed(&c->reply);
    if (n > 0)
        count_arrival(c, now, c->reply.events - events, c->reply.chunks - chunks);
    if (c->reply.state == REPLY_BROKEN) {
        fail(c, now, &counts.broken, n > 0 ? "an answer is not HTTP/1.1" : "an answer was cut off");
    } else if (c->reply.state == REPLY_WHOLE) {
        last_ns = now;
        if (counting(now))
            count_answer(&counts, &c->reply, now - c->begun_ns);
        count_work(&counts, &c->reply, c->begun_ns, now, begin_ns, end_ns);
        if (!c->reply.keep_alive)
            hang_up(c);
        rest(c, now);
        if (may_start(now))
            start(c, now);
    }
}

/* ---- the run ------------------------------------------------------------------------------------------------ */

/* Start what is due and give up what is stuck; returns whether anything is still to be done. */
static bool tend(struct connection *connections, uint64_t now)
{
    bool more = may_start(now);
    for (uint64_t i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (c->place == RESTING && now >= c->start_at_ns && may_start(now))
            start(c, now);
        else if (c->place != RESTING && now - c->last_ns > options.timeout_ns)
            fail(c, now, &counts.timeouts, "no byte came within --timeout");
    }
    return more || active;
}

static void run(void)
{
    struct connection *connections = calloc(options.connections, sizeof *connections);
    struct epoll_event events[512];
    if (!connections)
        die("out of memory");
    uint64_t now = now_ns(), tended = 0, give_up = UINT64_MAX;
    begin_ns = options.requests ? now : now + (uint64_t)(options.warmup * (double)SECOND_NS);
    end_ns = options.requests ? UINT64_MAX : begin_ns + (uint64_t)(options.seconds * (double)SECOND_NS);
    if (!options.requests)
        give_up = end_ns + options.timeout_ns;
    for (uint64_t i = 0; i < options.connections; i++) {
        connections[i].fd = -1;
        connections[i].start_at_ns = now + options.stagger_ns * i / options.connections;
    }
    for (; now < give_up; now = now_ns()) {
        if (now - tended >= MILLISECOND_NS) {
            tended = now;
            if (!tend(connections, now))
                break;
        }
        int count = epoll_wait(poller, events, 512, 1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->place == WRITING && (events[i].events & EPOLLOUT))
                write_request(c);
            if (c->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                read_answer(c);
        }
    }
}

/* ---- options ------------------------------------------------------------------------------------------------ */

static void read_bodies(void)
{
    FILE *file = options.bodies ? fopen(options.bodies, "r") : NULL;
    char *line = NULL;
    size_t capacity = 0;
    if (!file)
        die("--bodies %s: %s", options.bodies ? options.bodies : "FILE", options.bodies ? strerror(errno) : "is needed");
    for (ssize_t size; (size = getline(&line, &capacity, file)) > 0 && request_count < MAX_BODIES;) {
        while (size && (line[size - 1] == '\n' || line[size - 1] == '\r'))
            size--;
        if (!size)
            continue;
        struct buffer *r = &requests[request_count++];
        buffer_format(r, "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-type: application/json\r\ncontent-length: %zd\r\n",
                      options.path, options.address.storage.ss_family == AF_UNIX ? "localhost" : options.target, size);
        buffer_add(r, headers.data, headers.size);
        buffer_add(r, "\r\n", 2);
        buffer_add(r, line, (size_t)size);
    }
    if (!request_count)
        die("%s holds no request body", options.bodies);
    fclose(file);
    free(line);
}

static void set_option(const char *name, const char *value)
{
    double number = strtod(value, NULL);
    if (!strcmp(name, "--connect")) {
        options.target = value;
        options.address = parse_address(value);
    } else if (!strcmp(name, "--header")) {
        buffer_format(&headers, "%s\r\n", value);
    } else if (!strcmp(name, "--path")) {
        options.path = value;
    } else if (!strcmp(name, "--bodies")) {
        options.bodies = value;
    } else if (!strcmp(name, "--connections")) {
        options.connections = (uint64_t)number;
    } else if (!strcmp(name, "--requests")) {
        options.requests = (uint64_t)number;
    } else if (!strcmp(name, "--seconds")) {
        options.seconds = number;
    } else if (!strcmp(name, "--warmup")) {
        options.warmup = number;
    } else if (!strcmp(name, "--stagger-ms")) {
        options.stagger_ns = (uint64_t)(number * (double)MILLISECOND_NS);
    } else if (!strcmp(name, "--timeout")) {
        options.timeout_ns = (uint64_t)(number * (double)SECOND_NS);
    } else {
        die("unknown option %s", name);
    }
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    options.timeout_ns = 30 * SECOND_NS;
    buffer_add(&headers, "", 0);
    for (int i = 1; i < count; i += 2) {
        if (i + 1 == count)
            die("%s needs a value", words[i]);
        set_option(words[i], words[i + 1]);
    }
    if (!options.target || !options.connections)
        die("load --connect unix:/path|host:port --bodies FILE [--header 'Name: value']... [--connections N]");
    poller = epoll_create1(EPOLL_CLOEXEC);
    read_bodies();
    run();
    uint64_t stop_ns = options.requests ? last_ns : end_ns;
    report(&counts, stop_ns > begin_ns ? stop_ns - begin_ns : 0);
}
