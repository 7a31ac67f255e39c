/*
 * Saves and loads the state of a sandboxed WebAssembly agent through a Persist host.
 *
 * An agent is one function. This one counts its runs:
 *
 *     #include <persist.h>
 *     #include <string.h>
 *
 *     int persist_agent(int argc, char **argv) {
 *         (void)argc, (void)argv;
 *         persist_snapshot runs;
 *         if (persist_load("runs", 0, &runs)) return 1;
 *         uint32_t count = 0;
 *         if (runs.found) memcpy(&count, runs.state, sizeof count);
 *         count++;
 *         if (persist_save("runs", &count, sizeof count, NULL, NULL)) return 1;
 *         persist_answer("run %u", count);
 *         return 0;
 *     }
 *
 * A save never overwrites: it adds a version. The newest version of a name is its head. Calls return PERSIST_OK, which is 0,
 * or say why not; persist_last_error() has the details. What a call gives is freed with the function of its type, and all of it
 * when the run ends: each run is a fresh instance.
 *
 * Texts are UTF-8 and end with a zero byte. States are bytes of any value.
 */
#ifndef PERSIST_H
#define PERSIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 1 for the first save of a name, then one more for each save, delete, restore or fork into it. 0: none. */
typedef uint64_t persist_version;

/* Why a call failed. After any but PERSIST_UNKNOWN_OUTCOME, the call has changed nothing. */
typedef enum persist_code {
    PERSIST_OK = 0,
    PERSIST_CONFLICT,        /* the expectation does not hold */
    PERSIST_NOT_FOUND,       /* the name or version that the call needs was never saved, or was pruned */
    PERSIST_DENIED,          /* this agent lacks a right */
    PERSIST_TOO_LARGE,       /* more than one call carries: use a writer or a reader */
    PERSIST_QUOTA_EXCEEDED,  /* a limit of this agent was met */
    PERSIST_INVALID,         /* an argument breaks a rule */
    PERSIST_CORRUPT,         /* what is stored fails verification, and nothing of it is returned */
    PERSIST_THROTTLED,       /* later */
    PERSIST_UNAVAILABLE,     /* storage cannot be reached or refuses the host */
    PERSIST_TIMEOUT,         /* the host's time for the call ran out */
    PERSIST_UNKNOWN_OUTCOME, /* the change may have been made: persist_stat it and compare before trying again */
    PERSIST_OTHER            /* anything else */
} persist_code;

/* The details of the last call that failed. */
typedef struct persist_error {
    persist_code code;
    persist_version version; /* conflict: the head, 0 where nothing was saved; unknown outcome: the version it may have become */
    uint64_t number;         /* too large: bytes of the state; quota exceeded: the limit; throttled: milliseconds, 0 if unknown */
    const char *what;        /* denied: the right; quota exceeded: the name of the limit; other: its code; else words, or empty */
    const char *message;     /* for people: what happened and what helps */
} persist_error;

/* Never NULL, and valid until another call fails. */
const persist_error *persist_last_error(void);

/* `conflict`, `not-found` and so on, as the contract calls them. */
const char *persist_code_name(persist_code code);

/* What must be true of a name for a change to be made, else it is PERSIST_CONFLICT. All zero bytes are "anything". */
typedef enum persist_expect_kind { PERSIST_EXPECT_ANY, PERSIST_EXPECT_ABSENT, PERSIST_EXPECT_VERSION } persist_expect_kind;
typedef struct persist_expect {
    persist_expect_kind kind;
    persist_version version;
} persist_expect;

/* Anything. A writer takes the head when it is opened as what it expects. */
persist_expect persist_any(void);
/* Nothing was saved, or the head is a tombstone. */
persist_expect persist_absent(void);
/* This version is still the head, or there still is none where it is 0. */
persist_expect persist_head(persist_version version);
/* The head that `name` has now is still the head. A tombstone is a head. */
persist_code persist_head_of(const char *name, persist_expect *expect);

typedef struct persist_label {
    const char *key; /* each key once; keys under `persist.` are the host's */
    const char *value;
} persist_label;

/* How to save. All zero bytes, or NULL in its place: whatever the head is, no media type, no labels. */
typedef struct persist_options {
    persist_expect expect;
    const char *media_type; /* kept, never interpreted; may be NULL */
    const persist_label *labels;
    size_t label_count;
} persist_options;

/* What is known of one version without reading its state. */
typedef struct persist_info {
    const char *name;
    persist_version version;
    persist_version parent; /* the head when this one was made; 0 for the first */
    bool deleted;           /* a tombstone: the name was deleted here, and `size` is 0 */
    uint64_t size;          /* bytes of state */
    uint64_t stored_size;   /* bytes at rest, compressed */
    const char *sha256;     /* of the state, 64 lower-case hexadecimal digits */
    uint64_t created_at;    /* the host's clock, milliseconds since 1970 UTC; for people: `version` is the order */
    const char *media_type; /* NULL where none was given */
    const persist_label *labels;
    size_t label_count;
    void *owned;
} persist_info;

void persist_info_free(persist_info *info);
/* The value of a label, or NULL. */
const char *persist_info_label(const persist_info *info, const char *key);

/* One version with its state. */
typedef struct persist_snapshot {
    bool found; /* false: nothing was saved, or it is a tombstone; then nothing else is set */
    persist_info info;
    uint8_t *state; /* bit for bit as saved, and a zero byte after it that is not part of it */
    size_t size;
} persist_snapshot;

void persist_snapshot_free(persist_snapshot *snapshot);

/* A page of a history or of names. An empty one is the end; a short one is not. */
typedef struct persist_history_page {
    persist_info *items;
    size_t count;
} persist_history_page;

void persist_history_free(persist_history_page *page);

typedef struct persist_names_page {
    char **items;
    size_t count;
} persist_names_page;

void persist_names_free(persist_names_page *page);

/* What this host allows this agent. Other limits are met as PERSIST_QUOTA_EXCEEDED. */
typedef struct persist_guest_limits {
    uint64_t max_inline; /* bytes of state in one save or load */
    uint32_t max_chunk;  /* bytes that one call of a stream carries; writers and readers see to it */
    uint64_t max_state;  /* bytes of one state */
    uint32_t max_name;   /* bytes of a name, where one other than a-z 0-9 . _ - and a leading dot count as three */
    uint32_t max_page;   /* items in one page */
} persist_guest_limits;

persist_guest_limits persist_limits(void);

/* Saves `size` bytes as the next version of `name`. No bytes are a state. `info` may be NULL, here and below. */
persist_code persist_save(const char *name, const void *state, size_t size, const persist_options *options, persist_info *info);

/* What persist_update does with the state that a function has changed. */
typedef enum persist_change {
    PERSIST_CHANGE_SAVE,  /* save it */
    PERSIST_CHANGE_NONE,  /* save nothing, and return PERSIST_OK */
    PERSIST_CHANGE_CANCEL /* save nothing, and return PERSIST_OTHER: for an error of the agent's own */
} persist_change;

/* Changes `loaded->state` and `loaded->size` in place. `state` is memory of malloc, or NULL where nothing was saved: reallocate
   it as you need. It is freed after the call. */
typedef persist_change persist_update_function(persist_snapshot *loaded, void *context);

/*
 * Loads the head of `name`, calls `change`, and saves what it made of the state, if the head is still what was loaded. Where
 * another run saved meanwhile, this begins again, and `change` is called again, at most ten times; then it is PERSIST_CONFLICT.
 * Nothing is saved where the bytes are the same afterwards. The media type and labels are those of `options`, which may be NULL;
 * its expectation must be persist_any. `info` is of the version that was saved; its version is 0 where none was.
 */
persist_code persist_update(const char *name, persist_update_function *change, void *context, const persist_options *options,
                            persist_info *info);

/* Loads the head of `name`, or version `at` unless it is 0. */
persist_code persist_load(const char *name, persist_version at, persist_snapshot *snapshot);

/* As persist_load, without the state, and a tombstone is found. */
persist_code persist_stat(const char *name, persist_version at, bool *found, persist_info *info);

/* Versions below `before`, or all where it is 0, newest first, tombstones too; at most `limit`. */
persist_code persist_history(const char *name, persist_version before, uint32_t limit, persist_history_page *page);

/* Names that begin with `prefix`, deleted ones too. `after`: the last name of the page before, or NULL. */
persist_code persist_names(const char *prefix, const char *after, uint32_t limit, persist_names_page *page);

/* Makes a tombstone the next version: persist_restore undoes it. PERSIST_NOT_FOUND: nothing to delete. */
persist_code persist_delete(const char *name, persist_expect expect, persist_info *info);

/* Saves the state of `version` again as the next version. */
persist_code persist_restore(const char *name, persist_version version, persist_expect expect, persist_info *info);

/* Saves the state of `name`, or that of version `at` unless it is 0, as the next version of `new_name`. */
persist_code persist_fork(const char *name, persist_version at, const char *new_name, persist_expect expect, persist_info *info);

/* A state saved piece by piece. Nothing of it is visible before persist_writer_finish returned PERSIST_OK. */
typedef struct persist_writer persist_writer;

persist_code persist_writer_open(const char *name, const persist_options *options, persist_writer **writer);
/* Appends any number of bytes. Small writes are collected. After an error the writer can only be aborted. */
persist_code persist_writer_write(persist_writer *writer, const void *bytes, size_t size);
/* Saves what was written, and frees the writer whatever it returns. PERSIST_CONFLICT if another run saved meanwhile, even
   with persist_any: what was written cannot be replayed. */
persist_code persist_writer_finish(persist_writer *writer, persist_info *info);
/* Frees it, and nothing was saved. NULL is fine. */
void persist_writer_abort(persist_writer *writer);

/* One version, read in any order. It stays that version whatever is saved meanwhile. */
typedef struct persist_reader persist_reader;

/* `*reader` is NULL where nothing was saved or it is a tombstone. */
persist_code persist_reader_open(const char *name, persist_version at, persist_reader **reader);
/* What is known of the version; it is the reader's, and freed with it. */
const persist_info *persist_reader_info(const persist_reader *reader);
/* Reads at most `size` bytes from `offset`. Fewer than asked for, also none, is the end. */
persist_code persist_reader_read(persist_reader *reader, uint64_t offset, void *bytes, size_t size, size_t *read);
void persist_reader_close(persist_reader *reader);

/* What the agent defines: it runs once with the caller's arguments. 0: what persist_answer was given is the answer. Anything
   else: it is the reason why there is none; where it was given nothing, what the last call says, if that failed. */
int persist_agent(int argc, char **argv);

/* Adds to the answer, as printf does. */
void persist_answer(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Adds bytes to the answer as they are. Those that are no UTF-8 become U+FFFD. */
void persist_answer_bytes(const void *bytes, size_t size);
/* Adds a text to the answer as a string of JSON, with its quotes. */
void persist_answer_json(const char *text);

/* Input of a step of persist_run_calls, and what it decides. */
typedef struct persist_turn {
    uint8_t *state; /* memory of malloc, or NULL before the first message: reallocate it as needed */
    size_t size;
    int argc; /* a message of the user; 0 if there is a reply */
    char **argv;
    const char *reply; /* the driver's reply to the pending call, or NULL */
    const char *call;  /* set it to have the driver make a call of this kind */
} persist_turn;

/*
 * Changes the state. Its answer, by persist_answer, ends the turn. If it sets `call`, what it
 * answered are the further members of the call in JSON, such as `"messages":[]`, or nothing. 0, or
 * anything else for an error whose reason was answered; then nothing is saved.
 */
typedef int persist_step(persist_turn *turn, void *context);

/*
 * Takes the arguments of a run, and answers, maybe with a call for the driver:
 *
 *     int persist_agent(int argc, char **argv) {
 *         return persist_run_calls("chat", argc, argv, step, NULL);
 *     }
 *
 * An agent has no network of its own. It answers with a call, as JSON. The program that runs it, the
 * driver, makes the call and runs the agent again with `reply`, the call's `id` and the reply.
 * `persist chat --driver PROGRAM` is such a driver.
 *
 * The state is saved under `name` with the pending call, before the call is answered. A run that is
 * killed, or a driver, loses no turn and doubles none:
 *
 * - `reply ID TEXT` is the reply to a call. A second reply to the same call gets the answer of the
 *   first. While another call is pending, that call is answered.
 * - Other arguments are a message. While a call is pending, the same message answers that call
 *   again. A different message waits until the call is replied to.
 * - No arguments answer the pending call.
 *
 * `step` may be called again if another run saved meanwhile. If it fails, this is PERSIST_OTHER. An
 * answer that a driver might take for a call gets `answer: ` before it.
 */
persist_code persist_run_calls(const char *name, int argc, char **argv, persist_step *step,
                               void *context);

#ifdef __cplusplus
}
#endif

#endif
