/* What the agent remembers: one state named `memory`, JSON, a version for each turn. */
#ifndef MEMORY_H
#define MEMORY_H

#include <persist.h>

typedef struct turn {
    char *speaker; /* NULL where none is named */
    char *text;
} turn;

/* The conversation so far, and the version it was loaded from or saved as last. */
typedef struct memory {
    turn *turns;
    size_t count;
    persist_version head;
} memory;

/* These three return 0, or answer the reason and return 1. */
int memory_load(memory *memory);
/* Adds one turn and saves. The save is refused if another run saved since: its turns are not ours to overwrite. After any error
   this memory is ahead of what is saved: load it again. */
int memory_add(memory *memory, const char *line);
/* Refuses a conversation that does not begin with exactly what is remembered. */
int memory_check_beginning(const memory *memory, size_t count, char **lines);

/* The longest word that the last turn with such a word shares with `text`, or NULL. Short words say little. */
char *memory_last_about(const memory *memory, const char *text, size_t *turn);
/* A copy in lower case. */
char *memory_lower(const char *text);
/* A turn as a line. */
char *memory_shown(const turn *turn);

/* The memory as JSON, and back. 0, or 1 where it is something else. */
char *memory_to_json(const memory *memory);
int memory_from_json(const char *json, size_t size, memory *memory);

#endif
