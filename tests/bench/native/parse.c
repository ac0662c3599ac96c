/* WebSocket frames and server-sent events, as far as a viewer that only counts needs them. */
#define _GNU_SOURCE
#include "viewer.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_SIZE, CHUNK_SIZE_END, CHUNK_DATA, CHUNK_END, CHUNK_NEXT, CHUNK_LAST };

static void keep(struct viewer *viewer, const char *rest, size_t length) {
    if (length == 0) {
        free(viewer->carry);
        viewer->carry = NULL;
    } else {
        char *fresh = malloc(length);
        memcpy(fresh, rest, length);
        free(viewer->carry);
        viewer->carry = fresh;
    }
    viewer->carry_length = (uint32_t)length;
}

/* RFC 6455, 5.2; a server's frames are not masked. Returns the bytes consumed. */
static size_t frames(struct viewer *viewer, const char *data, size_t length, enum outcome *out) {
    size_t at = 0;
    while (length - at >= 2) {
        const unsigned char *head = (const unsigned char *)data + at;
        size_t size = head[1] & 0x7f, skip = 2;
        if (size == 126) {
            if (length - at < 4) break;
            size = (size_t)head[2] << 8 | head[3];
            skip = 4;
        } else if (size == 127) {
            if (length - at < 10) break;
            size = 0;
            for (int i = 2; i < 10; i++) size = size << 8 | head[i];
            skip = 10;
        }
        if (length - at - skip < size) break;
        const char *payload = data + at + skip;
        switch (head[0] & 0x0f) {
        case 1: viewer_told(viewer, payload, size); break;
        case 8: *out = CLOSED; return length;
        case 9: viewer_pinged(viewer, payload, size); break;
        }
        at += skip + size;
    }
    return at;
}

/* Lines that begin with "data:"; here every event has one. Returns the bytes consumed. */
static size_t events(struct viewer *viewer, const char *data, size_t length) {
    size_t at = 0;
    const char *end;
    while ((end = memchr(data + at, '\n', length - at)) != NULL) {
        const char *line = data + at;
        size_t size = (size_t)(end - line);
        if (size > 6 && memcmp(line, "data: ", 6) == 0) viewer_told(viewer, line + 6, size - 6);
        at += size + 1;
    }
    return at;
}

/* Takes the framing of HTTP chunks out, in place; returns what is left. RFC 9112, 7.1. */
static size_t unchunk(struct viewer *viewer, char *data, size_t length, enum outcome *out) {
    size_t kept = 0;
    for (size_t at = 0; at < length;) {
        char c = data[at];
        switch (viewer->chunk_state) {
        case CHUNK_SIZE:
            if (c == '\r') {
                viewer->chunk_state = CHUNK_SIZE_END;
            } else {
                uint32_t digit = (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
                viewer->chunk_left = viewer->chunk_left << 4 | digit;
            }
            at++;
            break;
        case CHUNK_SIZE_END:
            viewer->chunk_state = viewer->chunk_left ? CHUNK_DATA : CHUNK_LAST;
            at++;
            break;
        case CHUNK_DATA: {
            size_t size = length - at < viewer->chunk_left ? length - at : viewer->chunk_left;
            memmove(data + kept, data + at, size);
            kept += size;
            at += size;
            viewer->chunk_left -= (uint32_t)size;
            if (viewer->chunk_left == 0) viewer->chunk_state = CHUNK_END;
            break;
        }
        case CHUNK_END:
        case CHUNK_NEXT:
            viewer->chunk_state = viewer->chunk_state == CHUNK_END ? CHUNK_NEXT : CHUNK_SIZE;
            at++;
            break;
        default: *out = CLOSED; return kept;
        }
    }
    return kept;
}

static size_t answer(struct viewer *viewer, int is_websocket, char *data, size_t length,
                     enum outcome *out) {
    char *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head = (size_t)(end - data) + 4;
    if (length < 12 || memcmp(data + 9, is_websocket ? "101" : "200", 3) != 0) {
        *out = REFUSED;
        return length;
    }
    for (char *c = data; c < end; c++) *c |= 32; /* names of headers in either case */
    viewer->is_chunked = memmem(data, head, "chunked", 7) != NULL;
    viewer->state = OPEN;
    return head;
}

enum outcome parse(struct viewer *viewer, int is_websocket, char *buffer, size_t length) {
    enum outcome out = GOES_ON;
    size_t carried = viewer->carry_length, used = 0;
    length += carried;
    if (viewer->state == SHAKING) {
        used = answer(viewer, is_websocket, buffer, length, &out);
        carried = used;
    }
    if (out == GOES_ON && viewer->state == OPEN) {
        if (viewer->is_chunked)
            length = carried + unchunk(viewer, buffer + carried, length - carried, &out);
        char *rest = buffer + used;
        used += is_websocket ? frames(viewer, rest, length - used, &out)
                             : events(viewer, rest, length - used);
    }
    keep(viewer, buffer + used, length - used);
    return out;
}
