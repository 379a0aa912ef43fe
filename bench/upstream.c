// The upstream of the benchmark: a thread per connection, answers at once in the Messages API's shape.
//
//   upstream PORT
//
// A request must bring the gateway's key, as a bearer token or as x-api-key, or it gets 401. A body with
// "events=N,every=MS" in it gets an event stream: N events, one each MS milliseconds, each with the time
// at which it was written (at=NANOSECONDS, CLOCK_MONOTONIC). One with "bytes=N" gets a file of N bytes. Any other gets
// one JSON answer. A WebSocket, which must bring the key of RFC 6455's example, gets each short message back.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define KEY "bench-key"

typedef struct {
    int fd;
    char *data;
    size_t used, room;
} Connection;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int read_more(Connection *c) {
    if (c->room - c->used < 65536) c->data = realloc(c->data, c->room = c->room * 2 + 65536);
    ssize_t got = read(c->fd, c->data + c->used, c->room - c->used - 1);
    if (got <= 0) return 0;
    c->data[c->used += got] = 0;
    return 1;
}

static int send_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        data += sent, size -= sent;
    }
    return 1;
}

// The length of a chunked body with its frame, 0 where the connection ended.
static size_t read_chunks(Connection *c, size_t head) {
    size_t at = head;
    for (;;) {
        char *end;
        while (!(end = memmem(c->data + at, c->used - at, "\r\n", 2)))
            if (!read_more(c)) return 0;
        size_t size = strtoul(c->data + at, NULL, 16);
        at = end + 2 - c->data + size + 2;
        while (c->used < at)
            if (!read_more(c)) return 0;
        if (!size) return at - head;
    }
}

static int send_event(int fd, const char *text) {
    char chunk[1024];
    int size = snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", strlen(text), text);
    return send_all(fd, chunk, size);
}

static int answer_stream(int fd, const char *model, int events, int every) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    char text[800];
    if (!send_all(fd, head, sizeof head - 1)) return 0;
    snprintf(text, sizeof text,
             "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"at=%ld\",\"type\":"
             "\"message\",\"role\":\"assistant\",\"model\":\"%s\",\"content\":[],\"usage\":"
             "{\"input_tokens\":10,\"output_tokens\":1}}}\n\n", now(), model);
    if (!send_event(fd, text)) return 0;
    long start = now();
    for (int i = 1; i <= events; i++) {
        long due = start + i * every * 1000000L;
        struct timespec t = {due / 1000000000L, due % 1000000000L};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        snprintf(text, sizeof text,
                 "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
                 "{\"type\":\"text_delta\",\"text\":\"at=%ld some words of an answer\"}}\n\n", now());
        if (!send_event(fd, text)) return 0;
    }
    return send_event(fd, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
                          "\"end_turn\"},\"usage\":{\"output_tokens\":9}}\n\n"
                          "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") &&
           send_all(fd, "0\r\n\r\n", 5);
}

static int answer_file(int fd, long size) {
    static const char zeros[65536];
    char head[200];
    int used = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %ld\r\n\r\n", size);
    if (!send_all(fd, head, used)) return 0;
    for (; size > 0; size -= sizeof zeros)
        if (!send_all(fd, zeros, size < (long)sizeof zeros ? size : (long)sizeof zeros)) return 0;
    return 1;
}

static int answer_json(int fd, int status, const char *body) {
    char out[2048];
    int size = snprintf(out, sizeof out, "HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                        status, strlen(body), body);
    return send_all(fd, out, size);
}

static int answer_websocket(Connection *c, size_t head) {
    static const char hello[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    if (!send_all(c->fd, hello, sizeof hello - 1)) return 0;
    for (size_t at = head;;) {
        unsigned char *frame;
        while (c->used < at + 2 || c->used < at + 6 + (c->data[at + 1] & 0x7f))
            if (!read_more(c)) return 0;
        frame = (unsigned char *)c->data + at;
        int size = frame[1] & 0x7f;
        if (frame[0] != 0x81 || size > 125) return 0;
        for (int i = 0; i < size; i++) frame[6 + i] ^= frame[2 + i % 4];
        frame[4] = 0x81, frame[5] = size;
        if (!send_all(c->fd, c->data + at + 4, size + 2)) return 0;
        at += size + 6;
        if (at == c->used) at = c->used = 0;
    }
}

// The value of the body's first "model", which the benchmark's bodies have at the top.
static void find_model(const char *body, size_t size, char *model, size_t room) {
    const char *at = memmem(body, size < 4096 ? size : 4096, "\"model\":\"", 9);
    model[0] = 0;
    for (size_t i = 0; at && at[9 + i] != '"' && i + 1 < room; i++) model[i] = at[9 + i], model[i + 1] = 0;
}

static int serve_one(Connection *c) {
    char *end;
    while (!(end = c->used ? memmem(c->data, c->used, "\r\n\r\n", 4) : NULL))
        if (!read_more(c)) return 0;
    size_t head = end + 4 - c->data, size = 0;
    end[2] = 0;
    int allowed = strcasestr(c->data, "\r\nauthorization: bearer " KEY "\r\n") || strcasestr(c->data, "\r\nx-api-key: " KEY "\r\n");
    char *length = strcasestr(c->data, "\r\ncontent-length:");
    int chunked = strcasestr(c->data, "\r\ntransfer-encoding: chunked") != NULL;
    if (length) size = strtoul(length + 17, NULL, 10);
    if (chunked && !(size = read_chunks(c, head))) return 0;
    if (allowed && strcasestr(c->data, "\r\nupgrade: websocket")) return answer_websocket(c, head);
    while (c->used < head + size)
        if (!read_more(c)) return 0;
    char model[200], body[1000];
    int events = 0, every = 0, alive;
    find_model(c->data + head, size, model, sizeof model);
    char *wish = memmem(c->data + head, size < 4096 ? size : 4096, "events=", 7);
    if (wish) sscanf(wish, "events=%d,every=%d", &events, &every);
    char *file = memmem(c->data + head, size < 4096 ? size : 4096, "bytes=", 6);
    if (!allowed)
        alive = answer_json(c->fd, 401, "{\"type\":\"error\",\"error\":{\"type\":\"authentication_error\",\"message\":\"no key\"}}");
    else if (events)
        alive = answer_stream(c->fd, model, events, every);
    else if (file)
        alive = answer_file(c->fd, atol(file + 6));
    else {
        snprintf(body, sizeof body,
                 "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"%s\",\"content\":[{\"type\":\"text\","
                 "\"text\":\"got %s\"}],\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":10,\"output_tokens\":5}}",
                 model, model);
        alive = answer_json(c->fd, 200, body);
    }
    memmove(c->data, c->data + head + size, c->used -= head + size);
    return alive;
}

static void *serve(void *argument) {
    Connection *c = argument;
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while (serve_one(c)) {}
    close(c->fd);
    free(c->data);
    free(c);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in place = {AF_INET, htons(atoi(arguments[1])), {htonl(INADDR_LOOPBACK)}, {0}};
    if (bind(listener, (void *)&place, sizeof place) || listen(listener, 1024)) return perror("upstream"), 1;
    for (;;) {
        Connection *c = calloc(1, sizeof *c);
        pthread_t thread;
        c->fd = accept(listener, NULL, NULL);
        if (c->fd < 0 || pthread_create(&thread, NULL, serve, c)) continue;
        pthread_detach(thread);
    }
}
