// The clients of the benchmark: keep-alive connections that each ask again as soon as they are answered.
//
//   load PORT CONNECTIONS SECONDS REQUESTS BODY [HEADER...]
//
// Ends after SECONDS or after REQUESTS in all. Prints one line of JSON, times in milliseconds: of a request, to the
// first byte of its answer, to the first event of a stream, and from an event's writing (at=NANOSECONDS) to its arrival.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    long *values;
    size_t used, room;
} Times;

typedef struct {
    int fd, number;
    char *data;
    size_t used, room;
    Times requests, heads, first, delays;
    long errors;
} Client;

static int port, connections;
static char *request;
static size_t request_size;
static atomic_long left;
static long deadline;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void add(Times *times, long value) {
    if (times->used == times->room) times->values = realloc(times->values, (times->room = times->room * 2 + 64) * sizeof(long));
    times->values[times->used++] = value;
}

// Waits for a peer's next byte; returns when the kernel had it. This program may have to wait for a core until then.
static long arrival(int fd) {
    char byte;
    union {
        char room[CMSG_SPACE(sizeof(struct timespec))];
        struct cmsghdr head;
    } control;
    struct iovec place = {&byte, 1};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct timespec t, real;
    if (recvmsg(fd, &message, MSG_PEEK) <= 0) return 0;
    long here = now();
    clock_gettime(CLOCK_REALTIME, &real);
    struct cmsghdr *stamp = CMSG_FIRSTHDR(&message);
    if (!stamp || stamp->cmsg_type != SCM_TIMESTAMPNS) return here;
    memcpy(&t, CMSG_DATA(stamp), sizeof t);
    return here - (real.tv_sec - t.tv_sec) * 1000000000L - (real.tv_nsec - t.tv_nsec);
}

static int dial(void) {
    struct sockaddr_in place = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    struct timeval patience = {60, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!connect(fd, (void *)&place, sizeof place)) return fd;
    close(fd);
    return -1;
}

static void note_events(Client *c, size_t *seen, int *events) {
    char *at;
    while ((at = memmem(c->data + *seen, c->used - *seen, "at=", 3)) && memmem(at, c->data + c->used - at, "\n", 1)) {
        long delay = now() - atol(at + 3);
        add((*events)++ ? &c->delays : &c->first, delay);
        *seen = at + 3 - c->data;
    }
}

// One request and its whole answer; whether it was 200.
static int ask(Client *c) {
    size_t sent = 0, head = 0, total = 0, seen = 0;
    int chunked = 0, events = 0, is_stream = 0;
    long start = now();
    while (sent < request_size) {
        ssize_t n = send(c->fd, request + sent, request_size - sent, MSG_NOSIGNAL);
        if (n <= 0) return 0;
        sent += n;
    }
    long began = arrival(c->fd);
    if (!began) return 0;
    add(&c->heads, began - start);
    c->used = 0;
    for (;;) {
        if (c->room - c->used < 65536) c->data = realloc(c->data, c->room = c->room * 2 + 65536);
        ssize_t n = read(c->fd, c->data + c->used, c->room - c->used - 1);
        if (n <= 0) return 0;
        c->data[c->used += n] = 0;
        char *end = head ? NULL : memmem(c->data, c->used, "\r\n\r\n", 4);
        if (end) {
            seen = head = end + 4 - c->data;
            *end = 0;
            is_stream = strcasestr(c->data, "\ncontent-type: text/event-stream") != NULL;
            char *length = strcasestr(c->data, "\ncontent-length:");
            chunked = strcasestr(c->data, "\ntransfer-encoding: chunked") != NULL;
            total = head + (length ? strtoul(length + 16, NULL, 10) : 0);
            if (atoi(c->data + 9) != 200) return 0;
        }
        if (!head) continue;
        if (is_stream) note_events(c, &seen, &events);
        if (chunked ? c->used >= head + 5 && !memcmp(c->data + c->used - 5, "0\r\n\r\n", 5) : c->used >= total) return 1;
    }
}

static void *run(void *argument) {
    Client *c = argument;
    // Not all at the same moment: streams in step would wait for each other.
    usleep(20000 * c->number / connections);
    c->fd = dial();
    while (c->errors < 20 && now() < deadline && atomic_fetch_sub(&left, 1) > 0) {
        long start = now();
        if (c->fd >= 0 && ask(c)) {
            add(&c->requests, now() - start);
            continue;
        }
        c->errors++;
        if (c->fd >= 0) close(c->fd);
        c->fd = dial();
    }
    if (c->fd >= 0) close(c->fd);
    return NULL;
}

static int by_size(const void *a, const void *b) {
    long x = *(long *)a, y = *(long *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, Times *all) {
    if (!all->used) return;
    qsort(all->values, all->used, sizeof(long), by_size);
    printf("\"%s_p50\": %.4f, \"%s_p99\": %.4f, ", name, all->values[all->used / 2] / 1e6, name, all->values[all->used * 99 / 100] / 1e6);
}

static void join(Times *all, Times *part) {
    for (size_t i = 0; i < part->used; i++) add(all, part->values[i]);
}

int main(int count, char **arguments) {
    if (count < 6) return 2;
    signal(SIGPIPE, SIG_IGN);
    port = atoi(arguments[1]), connections = atoi(arguments[2]), left = atol(arguments[4]);
    FILE *file = fopen(arguments[5], "rb");
    if (!file) return perror(arguments[5]), 2;
    fseek(file, 0, SEEK_END);
    size_t size = ftell(file), used;
    rewind(file);
    request = malloc(size + 65536);
    used = sprintf(request, "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                            "Accept: application/json\r\nUser-Agent: claude-cli/2.0\r\nanthropic-version: 2023-06-01\r\n", port);
    for (int i = 6; i < count; i++) used += sprintf(request + used, "%s\r\n", arguments[i]);
    used += sprintf(request + used, "Content-Length: %zu\r\n\r\n", size);
    request_size = used + fread(request + used, 1, size, file);
    Client *clients = calloc(connections, sizeof *clients);
    pthread_t *threads = calloc(connections, sizeof *threads);
    long start = now();
    deadline = start + (long)(atof(arguments[3]) * 1e9);
    for (int i = 0; i < connections; i++) clients[i].number = i, pthread_create(&threads[i], NULL, run, &clients[i]);
    Times requests = {0}, heads = {0}, first = {0}, delays = {0};
    long errors = 0;
    for (int i = 0; i < connections; i++) {
        pthread_join(threads[i], NULL);
        join(&heads, &clients[i].heads);
        join(&requests, &clients[i].requests), join(&first, &clients[i].first), join(&delays, &clients[i].delays);
        errors += clients[i].errors;
    }
    double wall = (now() - start) / 1e9;
    printf("{");
    print("request", &requests), print("head", &heads), print("first", &first), print("delay", &delays);
    printf("\"done\": %zu, \"errors\": %ld, \"per_second\": %.1f}\n", requests.used, errors, requests.used / wall);
}
