/*
 * An agent that remembers a conversation. It saves its memory after every turn, so whatever stops it, the next run goes on from
 * the last turn that was acknowledged. Its memory is that of examples/chat-memory: agents in any language go on with it.
 */
#define _GNU_SOURCE
#include "memory.h"

#include <locale.h>
#include <persist.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "usage: say TEXT…            remember each TEXT as a turn of the conversation\n"
    "       follow LINE…         a conversation, one line each (`Speaker: text` or plain text):\n"
    "                            go on from the first line that is not remembered\n"
    "       recall [WORD]        the last turns, or those that hold WORD";

static int say(int argc, char **argv) {
    memory memory;
    if (memory_load(&memory)) return 1;
    char *answer = strdup("");
    for (int i = 0; i < argc; i++) {
        size_t turn;
        char *word = memory_last_about(&memory, argv[i], &turn), *longer;
        if (memory_add(&memory, argv[i])) return 1;
        const char *between = i ? "\n" : "";
        if (word) {
            asprintf(&longer, "%s%sturn %zu: you spoke of \"%s\" before, in turn %zu", answer, between, memory.count, word, turn);
        } else {
            asprintf(&longer, "%s%sturn %zu: that is new to me", answer, between, memory.count);
        }
        free(word);
        free(answer);
        answer = longer;
    }
    /* Only now, for where a save fails, its reason is the answer. */
    persist_answer("%s", answer);
    return 0;
}

static int follow(int argc, char **argv) {
    memory memory;
    if (memory_load(&memory)) return 1;
    size_t known = memory.count;
    if (memory_check_beginning(&memory, (size_t)argc, argv)) return 1;
    for (size_t i = known; i < (size_t)argc; i++)
        if (memory_add(&memory, argv[i])) return 1;
    persist_answer("remembered %zu turns, added %zu", known, (size_t)argc - known);
    return 0;
}

static int recall(const char *word) {
    memory memory;
    if (memory_load(&memory)) return 1;
    persist_answer("I remember %zu turns.", memory.count);
    char *wanted = memory_lower(word ? word : "");
    for (size_t i = 0; i < memory.count; i++) {
        if (!word && i + 3 < memory.count) continue;
        char *shown = memory_shown(&memory.turns[i]), *line, *compared;
        asprintf(&line, "turn %zu: %s", i + 1, shown);
        compared = memory_lower(line);
        if (strstr(compared, wanted)) persist_answer("\n%s", line);
        free(shown);
        free(line);
        free(compared);
    }
    return 0;
}

int persist_agent(int argc, char **argv) {
    const char *command = argc ? argv[0] : "";
    /* Else only those of ASCII are letters. */
    setlocale(LC_CTYPE, "C.UTF-8");
    if (argc > 1 && !strcmp(command, "say")) return say(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(command, "follow")) return follow(argc - 1, argv + 1);
    if (argc <= 2 && !strcmp(command, "recall")) return recall(argc > 1 ? argv[1] : NULL);
    persist_answer("%s", USAGE);
    return 1;
}
