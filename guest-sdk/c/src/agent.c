/* The agent's own end of the contract: its arguments, and its answer. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *answer;
static size_t answered, room;

void persist_answer_bytes(const void *bytes, size_t size) {
    if (room - answered < size) {
        room = 2 * room + size;
        answer = realloc(answer, room);
        if (!answer) abort();
    }
    if (size) memcpy(answer + answered, bytes, size);
    answered += size;
}

void persist_answer(const char *format, ...) {
    char *text;
    va_list args;
    va_start(args, format);
    int size = vasprintf(&text, format, args);
    va_end(args);
    if (size < 0) abort();
    persist_answer_bytes(text, (size_t)size);
    free(text);
}

size_t persist_answered(void) { return answered; }

char *persist_take_back(size_t from, size_t *size) {
    *size = answered - from;
    char *taken = persist_copy(answer ? answer + from : NULL, *size);
    answered = from;
    return taken;
}

void persist_forget_run(void) {
    free(answer);
    answer = NULL;
    answered = room = 0;
    persist_forget_limits();
    persist_ended(PERSIST_OK);
}

/* Bytes of the character that begins at `bytes`, 0 where none does: the table 3-7 of the Unicode Standard. */
static size_t character(const uint8_t *bytes, size_t size) {
    uint8_t first = bytes[0], low = 0x80, high = 0xbf;
    if (first < 0x80) return 1;
    size_t length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
    if (!length || length > size) return 0;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    if (bytes[1] < low || bytes[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if (bytes[i] < 0x80 || bytes[i] > 0xbf) return 0;
    return length;
}

size_t persist_utf8(const uint8_t *bytes, size_t size) {
    size_t at = 0, length;
    while (at < size && (length = character(bytes + at, size - at))) at += length;
    return at;
}

/* What was answered, with U+FFFD for what is no text. */
static agent_string_t take_answer(void) {
    uint8_t *text = malloc(answered ? 3 * answered : 1);
    if (!text) abort();
    size_t from = 0, to = 0;
    while (from < answered) {
        size_t good = persist_utf8(answer + from, answered - from);
        memcpy(text + to, answer + from, good);
        from += good;
        to += good;
        if (from < answered) {
            memcpy(text + to, "\xef\xbf\xbd", 3);
            to += 3;
            from++;
        }
    }
    return (agent_string_t){text, to};
}

bool exports_agent_run(agent_list_string_t *args, agent_string_t *ret, agent_string_t *err) {
    char **argv = calloc(args->len + 1, sizeof *argv);
    if (!argv) abort();
    for (size_t i = 0; i < args->len; i++) argv[i] = persist_copy(args->ptr[i].ptr, args->ptr[i].len);
    bool ok = persist_agent((int)args->len, argv) == 0;
    /* What was printed is read only after this call. */
    fflush(NULL);
    if (!ok && !answered) persist_answer("%s", persist_reason());
    *(ok ? ret : err) = take_answer();
    return ok;
}
