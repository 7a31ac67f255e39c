#define _GNU_SOURCE
#include "memory.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

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

/* The character at the beginning of a text, and its bytes. What is no UTF-8 is none, of one byte. */
static size_t character(const char *text, wchar_t *character) {
    size_t length = mbrtowc(character, text, MB_LEN_MAX, &(mbstate_t){0});
    if (length <= MB_LEN_MAX) return length;
    *character = 0xfffd;
    return 1;
}

char *memory_lower(const char *text) {
    char *copy = malloc(MB_LEN_MAX * strlen(text) + 1), *to = copy;
    if (!copy) abort();
    for (wchar_t next; *text;) {
        text += character(text, &next);
        to += wcrtomb(to, (wchar_t)towlower((wint_t)next), &(mbstate_t){0});
    }
    *to = 0;
    return copy;
}

/* Bytes of the word that a text begins with. */
static size_t word_at(const char *text) {
    size_t size = 0;
    for (wchar_t next; text[size];) {
        size_t length = character(text + size, &next);
        if (!iswalnum((wint_t)next)) break;
        size += length;
    }
    return size;
}

/* Where the word after one of `size` bytes begins, or the end. */
static const char *after_word(const char *text, size_t size) {
    wchar_t next;
    for (text += size; *text && !word_at(text);) text += character(text, &next);
    return text;
}

static int has_word(const char *text, const char *word, size_t size) {
    for (size_t here; *text; text = after_word(text, here)) {
        here = word_at(text);
        if (here == size && !memcmp(text, word, size)) return 1;
    }
    return 0;
}

/* The longest word of a turn that is in `wanted`, or NULL. Both are in lower case. */
static char *longest_shared(const char *turn, const char *wanted) {
    const char *longest = NULL;
    size_t most = 5;
    for (size_t here; *turn; turn = after_word(turn, here)) {
        here = word_at(turn);
        if (here < most || !has_word(wanted, turn, here)) continue;
        longest = turn;
        most = here;
    }
    return longest ? strndup(longest, most) : NULL;
}

char *memory_last_about(const memory *memory, const char *text, size_t *turn) {
    char *wanted = memory_lower(text), *word = NULL;
    for (*turn = memory->count; *turn > 0; --*turn) {
        char *lower = memory_lower(memory->turns[*turn - 1].text);
        word = longest_shared(lower, wanted);
        free(lower);
        if (word) break;
    }
    free(wanted);
    return word;
}
