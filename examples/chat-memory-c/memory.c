#define _GNU_SOURCE
#include "memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "memory"

int memory_load(memory *memory) {
    *memory = (struct memory){0};
    persist_snapshot loaded;
    if (persist_load(NAME, 0, &loaded)) return 1;
    if (!loaded.found) return 0;
    memory->head = loaded.info.version;
    int unreadable = memory_from_json((const char *)loaded.state, loaded.size, memory);
    persist_snapshot_free(&loaded);
    if (unreadable) {
        persist_answer("unreadable: version %llu of " NAME " is not what this agent reads; it is left as it is, and an earlier "
                       "version may be readable",
                       (unsigned long long)memory->head);
    }
    return unreadable;
}

/* A line of a conversation: `Speaker: text`, or only the text. */
static turn turn_of(const char *line) {
    const char *colon = strstr(line, ": ");
    if (!colon) return (turn){NULL, strdup(line)};
    return (turn){strndup(line, (size_t)(colon - line)), strdup(colon + 2)};
}

int memory_add(memory *memory, const char *line) {
    memory->turns = realloc(memory->turns, (memory->count + 1) * sizeof *memory->turns);
    if (!memory->turns) abort();
    memory->turns[memory->count++] = turn_of(line);
    size_t turn = memory->count;
    char number[24];
    snprintf(number, sizeof number, "%zu", turn);
    persist_label label = {"turn", number};
    persist_options options = {
        .expect = persist_head(memory->head), .media_type = "application/json", .labels = &label, .label_count = 1};
    char *json = memory_to_json(memory);
    persist_info info;
    persist_code code = persist_save(NAME, json, strlen(json), &options, &info);
    free(json);
    switch (code) {
    case PERSIST_OK:
        memory->head = info.version;
        persist_info_free(&info);
        return 0;
    case PERSIST_CONFLICT:
        persist_answer("turn %zu was not saved: another run saved a turn meanwhile; run me again", turn);
        return 1;
    case PERSIST_UNKNOWN_OUTCOME:
        persist_answer("turn %zu may or may not have been saved; run me again, I look first", turn);
        return 1;
    default:
        persist_answer("turn %zu was not saved: %s", turn, persist_last_error()->message);
        return 1;
    }
}

char *memory_shown(const turn *turn) {
    char *line;
    if (!turn->speaker) return strdup(turn->text);
    if (asprintf(&line, "%s: %s", turn->speaker, turn->text) < 0) abort();
    return line;
}

int memory_check_beginning(const memory *memory, size_t count, char **lines) {
    for (size_t i = 0; i < memory->count; i++) {
        char *known = memory_shown(&memory->turns[i]);
        if (i >= count) {
            persist_answer("this is another conversation: in turn %zu I remember \"%s\", it ends before", i + 1, known);
            return 1;
        }
        if (strcmp(known, lines[i])) {
            persist_answer("this is another conversation: in turn %zu I remember \"%s\", it says \"%s\"", i + 1, known, lines[i]);
            return 1;
        }
        free(known);
    }
    return 0;
}

/* A byte of a word: a letter or digit of ASCII, or of any character beyond. */
static int in_word(char byte) { return !isascii(byte) || isalnum(byte); }

/* Whether `text` has the word, of any case. */
static int has_word(const char *text, const char *word, size_t length) {
    while (*text) {
        size_t here = 0;
        while (text[here] && in_word(text[here])) here++;
        if (here == length && !strncasecmp(text, word, length)) return 1;
        text += here ? here : 1;
    }
    return 0;
}

char *memory_last_about(const memory *memory, const char *text, size_t *turn) {
    for (size_t i = memory->count; i-- > 0;) {
        const char *at = memory->turns[i].text, *longest = NULL;
        size_t most = 5;
        while (*at) {
            size_t here = 0;
            while (at[here] && in_word(at[here])) here++;
            if (here >= most && has_word(text, at, here)) {
                longest = at;
                most = here;
            }
            at += here ? here : 1;
        }
        if (!longest) continue;
        *turn = i + 1;
        char *word = strndup(longest, most);
        for (char *byte = word; *byte; byte++)
            if (isascii(*byte)) *byte = (char)tolower(*byte);
        return word;
    }
    return NULL;
}
