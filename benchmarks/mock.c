/* mock.c - an OpenAI engine that does no work, so that what stands in front of it can be measured.
 *
 *   mock --listen unix:/path [--listen host:port]...
 *
 * /v1/chat/completions and /v1/completions answer a chat completion; with "stream": true as SSE, framed and written
 * like vLLM's: one write per event. `max_tokens` or `max_completion_tokens` sets the number of content chunks
 * (64 without). `seed` sets the milliseconds between them (0 without): it is the one field every router passes on.
 * With a delay of 0 it writes as fast as the socket takes, streams in turn. The answer carries the
 * request's model. Another route under /v1/ is not found, since some routers look for more of vLLM's.
 * /internal/adapters answers that nothing is resident, with the revision
 * it was last told; /internal/adapters/trial, that the adapter passed. Anything else under /internal/, /readyz,
 * /livez and /health answer 200.
 * One thread, epoll, HTTP/1.1 with keep-alive. It refuses nothing and checks nothing: it is no test of correctness.
 */
#include "answer.h"

#include "request.h"

#include <signal.h>
#include <sys/epoll.h>

#define MAX_LISTENERS 4
#define WRITES_PER_TURN 16 /* before the next stream gets its turn */
#define WHEEL_SLOTS 1024   /* of one millisecond each */

struct link {
    struct link *next, *previous;
};

enum place { NOWHERE, READY, TIMED };

struct connection {
    struct link link; /* must stay first */
    enum place place; /* the kind of list it is in */
    int fd;
    bool answering, keep_alive;
    struct buffer in;
    struct answer answer;
    unsigned piece;
    uint64_t round, due_ns; /* rounds of this piece written; when the last one was due */
    size_t sent;            /* bytes of this round */
};

static unsigned long long requests;
static unsigned long long revision; /* of the desired adapters it was last told */
static struct ask defaults = {.model = {"mock", NULL}, .chunks = 64};
static int poller, listeners[MAX_LISTENERS], listener_count;
static struct address addresses[MAX_LISTENERS];
static struct link ready, wheel[WHEEL_SLOTS];
static uint64_t timers, wheel_tick;

/* ---- lists -------------------------------------------------------------------------------------------------- */

static void list_clear(struct link *head) { head->next = head->previous = head; }

static void put(struct connection *c, struct link *head, enum place place)
{
    c->link.previous = head->previous;
    c->link.next = head;
    head->previous->next = &c->link;
    head->previous = &c->link;
    c->place = place;
    timers += place == TIMED;
}

static void take_out(struct connection *c)
{
    if (c->place == NOWHERE)
        return;
    c->link.previous->next = c->link.next;
    c->link.next->previous = c->link.previous;
    timers -= c->place == TIMED;
    c->place = NOWHERE;
}

/* ---- requests ----------------------------------------------------------------------------------------------- */

static void answer_completion(struct connection *c, struct span body)
{
    struct ask a = defaults;
    read_ask(body, &a);
    a.number = ++requests;
    if (a.stream)
        add_stream(&c->answer, &a);
    else
        add_completion(&c->answer, &a);
}

/* GET and PUT: a body, where there is one, brings the next revision. */
static void answer_adapters(struct connection *c, struct span body)
{
    char text[256];
    read_revision(body, &revision);
    int size = snprintf(text, sizeof text,
                        "{\"worker\":\"mock\",\"engine_starts\":1,\"revision\":%llu,\"slots\":[],\"host\":[],"
                        "\"pinned\":[],\"draining\":[],\"faults\":{}}",
                        revision);
    add_plain(&c->answer, "200 OK", text, (size_t)size);
}

static void answer(struct connection *c, const struct request *r)
{
    static const char passed[] = "{\"passed\":true,\"reason\":\"\",\"difference\":1.0,\"load_s\":0.0}";
    static const char missing[] = "{\"error\":{\"message\":\"the mock serves completions, /internal/ and /readyz\"}}";
    c->answer.out.size = c->answer.count = c->piece = 0;
    c->round = c->sent = 0;
    c->due_ns = now_ns();
    c->answering = true;
    if (span_is(r->path, "/v1/chat/completions") || span_is(r->path, "/v1/completions"))
        answer_completion(c, r->body);
    else if (span_is(r->path, "/internal/adapters"))
        answer_adapters(c, r->body);
    else if (span_is(r->path, "/internal/adapters/trial"))
        add_plain(&c->answer, "200 OK", passed, sizeof passed - 1);
    else if (starts_with(r->path, "/internal/") || span_is(r->path, "/readyz") || span_is(r->path, "/livez") ||
             span_is(r->path, "/health"))
        add_plain(&c->answer, "200 OK", "{}", 2);
    else
        add_plain(&c->answer, "404 Not Found", missing, sizeof missing - 1);
}

/* Take one request off the input and prepare its answer. */
static enum parsed take_request(struct connection *c)
{
    struct request r;
    enum parsed parsed = parse_request(&c->in, &r);
    if (parsed != REQUEST_WHOLE)
        return parsed;
    c->keep_alive = r.keep_alive;
    answer(c, &r);
    buffer_drop(&c->in, r.size);
    return parsed;
}

/* ---- connections -------------------------------------------------------------------------------------------- */

static void drop(struct connection *c)
{
    take_out(c);
    close(c->fd);
    free(c->in.data);
    free(c->answer.out.data);
    free(c);
}

enum progress { FINISHED, BLOCKED, WAITING, TURN_OVER, BROKEN };

static enum progress write_some(struct connection *c)
{
    for (int writes = 0; c->piece < c->answer.count;) {
        const struct piece *p = &c->answer.pieces[c->piece];
        if (p->pause_ns && !c->sent && now_ns() < c->due_ns + p->pause_ns)
            return WAITING;
        if (writes++ == WRITES_PER_TURN)
            return TURN_OVER;
        if (!c->sent)
            write_tokens(&c->answer, p, c->round);
        ssize_t n = send(c->fd, c->answer.out.data + p->start + c->sent, p->size - c->sent, MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN ? BLOCKED : BROKEN;
        c->sent += (size_t)n;
        if (c->sent < p->size)
            continue;
        c->sent = 0;
        c->due_ns += p->pause_ns;
        if (++c->round == p->times) {
            c->piece++;
            c->round = 0;
        }
    }
    return FINISHED;
}

static void wait_until_due(struct connection *c)
{
    uint64_t due_ns = c->due_ns + c->answer.pieces[c->piece].pause_ns;
    put(c, &wheel[(due_ns / MILLISECOND_NS + 1) % WHEEL_SLOTS], TIMED);
}

/* Answer, and take the next request, as far as it goes; false when the connection is gone. */
static bool proceed(struct connection *c)
{
    for (;;) {
        if (!c->answering) {
            enum parsed parsed = take_request(c);
            if (parsed == REQUEST_BROKEN)
                drop(c);
            if (parsed != REQUEST_WHOLE)
                return parsed == REQUEST_PARTIAL;
        }
        enum progress progress = write_some(c);
        if (progress == WAITING)
            wait_until_due(c);
        else if (progress == TURN_OVER)
            put(c, &ready, READY);
        if (progress == FINISHED)
            c->answering = false;
        if (progress == BROKEN || (progress == FINISHED && !c->keep_alive)) {
            drop(c);
            return false;
        }
        if (progress != FINISHED)
            return true;
    }
}

/* Read what there is; false when the client has gone and the connection with it. */
static bool receive(struct connection *c)
{
    for (;;) {
        buffer_reserve(&c->in, 16384);
        size_t room = c->in.capacity - c->in.size - 1; /* a NUL byte follows the input: numbers are read up to it */
        ssize_t n = recv(c->fd, c->in.data + c->in.size, room, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN) || c->in.size > MAX_INPUT + MAX_HEAD) {
            drop(c);
            return false;
        }
        if (n > 0)
            c->in.size += (size_t)n;
        c->in.data[c->in.size] = 0;
        if (n < (ssize_t)room)
            return true;
    }
}

static void accept_all(int listener)
{
    for (int fd; (fd = accept4(listeners[listener], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct connection *c = calloc(1, sizeof *c);
        if (!c)
            die("out of memory");
        c->fd = fd;
        no_delay(fd, &addresses[listener]);
        struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

/* ---- the loop ----------------------------------------------------------------------------------------------- */

/* Give everything that is in the list now its turn; what is put back meanwhile waits for the next one. */
static void run_list(struct link *head, uint64_t now)
{
    struct link turn = *head;
    if (head->next == head)
        return;
    turn.next->previous = turn.previous->next = &turn;
    list_clear(head);
    while (turn.next != &turn) {
        struct connection *c = (struct connection *)turn.next;
        bool early = c->place == TIMED && c->due_ns + c->answer.pieces[c->piece].pause_ns > now;
        take_out(c);
        if (early)
            put(c, head, TIMED); /* due in a later round of the wheel */
        else
            proceed(c);
    }
}

static void run_timers(void)
{
    uint64_t now = now_ns(), tick = now / MILLISECOND_NS;
    if (tick - wheel_tick > WHEEL_SLOTS)
        wheel_tick = tick - WHEEL_SLOTS;
    while (wheel_tick < tick)
        run_list(&wheel[++wheel_tick % WHEEL_SLOTS], now);
}

static void serve(void)
{
    struct epoll_event events[512];
    for (;;) {
        int timeout_ms = ready.next != &ready ? 0 : timers ? 1 : -1;
        int count = epoll_wait(poller, events, 512, timeout_ms);
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 < MAX_LISTENERS) {
                accept_all((int)events[i].data.u64);
                continue;
            }
            struct connection *c = events[i].data.ptr;
            bool there = !(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || receive(c);
            if (there && c->place == NOWHERE)
                proceed(c);
        }
        run_list(&ready, 0);
        run_timers();
    }
}

static void listen_on(const char *text)
{
    if (listener_count == MAX_LISTENERS)
        die("at most %d --listen", MAX_LISTENERS);
    struct address a = parse_address(text);
    int one = 1, fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (a.storage.ss_family == AF_UNIX)
        unlink(((struct sockaddr_un *)&a.storage)->sun_path);
    if (bind(fd, (struct sockaddr *)&a.storage, a.size) || listen(fd, 4096))
        die("cannot listen on %s: %s", text, strerror(errno));
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u64 = (uint64_t)listener_count};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    addresses[listener_count] = a;
    listeners[listener_count++] = fd;
}

int main(int count, char **words)
{
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    defaults.model.end = defaults.model.start + strlen(defaults.model.start);
    list_clear(&ready);
    for (int i = 0; i < WHEEL_SLOTS; i++)
        list_clear(&wheel[i]);
    wheel_tick = now_ns() / MILLISECOND_NS;
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--listen") || ++i == count)
            die("mock --listen unix:/path | host:port");
        listen_on(words[i]);
    }
    serve();
}
