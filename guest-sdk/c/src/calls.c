/* Agents that ask their driver to make calls, such as requests to a model. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes in memory of malloc, with a zero byte after them. */
typedef struct bytes {
    char *at;
    size_t size;
} bytes;

/* A message of the user: the arguments of a run. */
typedef struct message {
    int argc;
    char **argv;
} message;

/* Contents of the snapshot. A text that is NULL is not there. */
typedef struct saved {
    bytes pending_id, pending_call;
    message pending;
    bytes last_id, last_answer;
    size_t waiting_count;
    message *waiting; /* came while a call was pending */
    bytes state;
} saved;

static const char MAGIC[] = "persist-calls-1";

static void *must(void *memory) {
    if (!memory) abort();
    return memory;
}

static bytes bytes_of(const void *from, size_t size) {
    return (bytes){persist_copy(from, size), size};
}

static bytes text_of(const char *text) { return bytes_of(text, strlen(text)); }

static void forget(bytes *old) {
    free(old->at);
    *old = (bytes){0};
}

static message message_of(int argc, char **argv) {
    message copy = {argc, must(calloc((size_t)argc + 1, sizeof *argv))};
    for (int i = 0; i < argc; i++) copy.argv[i] = persist_copy(argv[i], strlen(argv[i]));
    return copy;
}

static void forget_message(message *old) {
    for (int i = 0; i < old->argc; i++) free(old->argv[i]);
    free(old->argv);
    *old = (message){0};
}

static bool is_same(const message *one, int argc, char **argv) {
    if (one->argc != argc) return false;
    for (int i = 0; i < argc; i++)
        if (strcmp(one->argv[i], argv[i])) return false;
    return true;
}

static void forget_saved(saved *old) {
    bytes *all[] = {&old->pending_id, &old->pending_call, &old->last_id, &old->last_answer,
                    &old->state};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) forget(all[i]);
    forget_message(&old->pending);
    for (size_t i = 0; i < old->waiting_count; i++) forget_message(&old->waiting[i]);
    free(old->waiting);
}

/* Appends a field: its size in digits, a colon, its bytes and a comma. */
static void put(bytes *to, const void *field, size_t size) {
    char *head;
    int digits = asprintf(&head, "%zu:", size);
    if (digits < 0) abort();
    to->at = must(realloc(to->at, to->size + (size_t)digits + size + 1));
    memcpy(to->at + to->size, head, (size_t)digits);
    if (size) memcpy(to->at + to->size + digits, field, size);
    to->size += (size_t)digits + size + 1;
    to->at[to->size - 1] = ',';
    free(head);
}

static void put_bytes(bytes *to, const bytes *field) { put(to, field->at, field->size); }

static void put_number(bytes *to, size_t number) {
    char digits[24];
    put(to, digits, (size_t)snprintf(digits, sizeof digits, "%zu", number));
}

static void put_message(bytes *to, const message *message) {
    put_number(to, (size_t)message->argc);
    for (int i = 0; i < message->argc; i++) put(to, message->argv[i], strlen(message->argv[i]));
}

static bytes encode(const saved *saved) {
    bytes all = {0};
    put(&all, MAGIC, strlen(MAGIC));
    put_bytes(&all, &saved->pending_id);
    put_bytes(&all, &saved->pending_call);
    put_message(&all, &saved->pending);
    put_bytes(&all, &saved->last_id);
    put_bytes(&all, &saved->last_answer);
    put_number(&all, saved->waiting_count);
    for (size_t i = 0; i < saved->waiting_count; i++) put_message(&all, &saved->waiting[i]);
    put_bytes(&all, &saved->state);
    return all;
}

/* Takes a field from the beginning of what is left. */
static bool take(bytes *from, bytes *field) {
    size_t size = 0, at = 0;
    for (; at < from->size && from->at[at] >= '0' && from->at[at] <= '9'; at++) {
        size = 10 * size + (size_t)(from->at[at] - '0');
        if (size > from->size) return false;
    }
    if (!at || from->size - at < size + 2 || from->at[at] != ':') return false;
    if (from->at[at + 1 + size] != ',') return false;
    *field = bytes_of(from->at + at + 1, size);
    from->at += at + size + 2;
    from->size -= at + size + 2;
    return true;
}

/* A number of fields that follow, of which each has three bytes or more. */
static bool take_count(bytes *from, size_t *count) {
    bytes digits = {0};
    if (!take(from, &digits)) return false;
    *count = strtoul(digits.at, NULL, 10);
    forget(&digits);
    return *count <= from->size / 3;
}

static bool take_message(bytes *from, message *message) {
    size_t count;
    if (!take_count(from, &count)) return false;
    message->argv = must(calloc(count + 1, sizeof *message->argv));
    for (size_t i = 0; i < count; i++) {
        bytes arg;
        if (!take(from, &arg)) return false;
        message->argv[i] = arg.at;
        message->argc++;
    }
    return true;
}

static bool decode(bytes from, saved *saved) {
    bytes magic = {0};
    bool good = take(&from, &magic) && !strcmp(magic.at, MAGIC);
    forget(&magic);
    size_t count;
    good = good && take(&from, &saved->pending_id) && take(&from, &saved->pending_call) &&
           take_message(&from, &saved->pending) && take(&from, &saved->last_id) &&
           take(&from, &saved->last_answer) && take_count(&from, &count);
    if (!good) return false;
    saved->waiting = must(calloc(count + 1, sizeof *saved->waiting));
    for (; saved->waiting_count < count; saved->waiting_count++)
        if (!take_message(&from, &saved->waiting[saved->waiting_count])) return false;
    return take(&from, &saved->state) && !from.size;
}

/* Loads what is saved, and the version of the head. A tombstone is a head. */
static persist_code load(const char *name, saved *saved, persist_version *head) {
    for (;;) {
        persist_snapshot loaded;
        persist_code code = persist_load(name, 0, &loaded);
        if (code) return code;
        if (loaded.found) {
            *head = loaded.info.version;
            bool good = decode((bytes){(char *)loaded.state, loaded.size}, saved);
            persist_snapshot_free(&loaded);
            if (good) return PERSIST_OK;
            return persist_invalid("the state was not saved by persist_run_calls");
        }
        bool found;
        persist_info info = {0};
        code = persist_stat(name, 0, &found, &info);
        *head = found ? info.version : 0;
        /* A run that saved in between is loaded. */
        bool empty = code || !found || info.deleted;
        if (found) persist_info_free(&info);
        if (empty) return code;
    }
}

void persist_answer_json(const char *text) {
    persist_answer("\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') persist_answer("\\%c", c);
        else if (c < 0x20) persist_answer("\\u%04x", c);
        else persist_answer_bytes(text, 1);
    }
    persist_answer("\"");
}

/* A run, in one attempt. */
typedef struct attempt {
    saved saved;
    char id[32];
    size_t answered; /* bytes that were answered before */
    persist_step *step;
    void *context;
} attempt;

/* Takes back what was answered in this attempt. */
static bytes taken_back(const attempt *attempt) {
    bytes answer = {0};
    answer.at = persist_take_back(attempt->answered, &answer.size);
    return answer;
}

/* Answers so that no driver takes it for a call: it looks for a key `call`, which may be written
   with escapes. */
static void tell(const bytes *answer) {
    const char *from = answer->at + strspn(answer->at, " \t\r\n");
    bool has_call = strstr(from, "\"call\"") || strchr(from, '\\');
    if (*from == '{' && has_call) persist_answer("answer: ");
    persist_answer_bytes(answer->at, answer->size);
}

/* Makes a step, and keeps the call that it decided on. `*called` says whether it did. */
static persist_code make_step(attempt *attempt, persist_turn *turn, const message *of,
                              bool *called) {
    saved *saved = &attempt->saved;
    turn->state = (uint8_t *)saved->state.at;
    turn->size = saved->state.size;
    int failed = attempt->step(turn, attempt->context);
    saved->state = (bytes){(char *)turn->state, turn->size};
    if (failed) return persist_cancelled();
    *called = turn->call != NULL;
    if (!*called) return PERSIST_OK;
    bytes members = taken_back(attempt);
    persist_answer("{\"call\":");
    persist_answer_json(turn->call);
    persist_answer(",\"id\":\"%s\"%s", attempt->id, members.size ? "," : "");
    persist_answer_bytes(members.at, members.size);
    persist_answer("}");
    forget(&members);
    saved->pending_call = taken_back(attempt);
    saved->pending_id = text_of(attempt->id);
    saved->pending = message_of(of->argc, of->argv);
    persist_answer_bytes(saved->pending_call.at, saved->pending_call.size);
    return PERSIST_OK;
}

/* Goes on after a step that decided on no call: the next message that waits has its turn. */
static persist_code proceed(attempt *attempt, bool called, const char *replied) {
    saved *saved = &attempt->saved;
    while (!called && saved->waiting_count) {
        bytes lost = taken_back(attempt);
        forget(&lost);
        message next = saved->waiting[0];
        memmove(saved->waiting, saved->waiting + 1, --saved->waiting_count * sizeof next);
        persist_turn turn = {.argc = next.argc, .argv = next.argv};
        persist_code code = make_step(attempt, &turn, &next, &called);
        forget_message(&next);
        if (code) return code;
    }
    if (called) return PERSIST_OK;
    bytes answer = taken_back(attempt);
    tell(&answer);
    forget(&answer);
    if (replied) {
        forget(&saved->last_id);
        forget(&saved->last_answer);
        saved->last_id = text_of(replied);
        saved->last_answer = taken_back(attempt);
        persist_answer_bytes(saved->last_answer.at, saved->last_answer.size);
    }
    return PERSIST_OK;
}

static persist_code take_reply(attempt *attempt, const char *id, const char *text) {
    saved *saved = &attempt->saved;
    if (!saved->pending_id.size) {
        if (saved->last_id.size && !strcmp(saved->last_id.at, id)) {
            persist_answer_bytes(saved->last_answer.at, saved->last_answer.size);
            return PERSIST_OK;
        }
        char *rule;
        if (asprintf(&rule, "no call %s is pending", id) < 0) abort();
        persist_code code = persist_invalid(rule);
        free(rule);
        return code;
    }
    if (strcmp(saved->pending_id.at, id)) {
        persist_answer_bytes(saved->pending_call.at, saved->pending_call.size);
        return PERSIST_OK;
    }
    message pending = saved->pending;
    saved->pending = (message){0};
    forget(&saved->pending_id);
    forget(&saved->pending_call);
    bool called = false;
    persist_turn turn = {.reply = text};
    persist_code code = make_step(attempt, &turn, &pending, &called);
    forget_message(&pending);
    return code ? code : proceed(attempt, called, id);
}

static persist_code take_message_of_user(attempt *attempt, int argc, char **argv) {
    saved *saved = &attempt->saved;
    if (saved->pending_id.size) {
        const message *latest = &saved->pending;
        if (saved->waiting_count) latest = &saved->waiting[saved->waiting_count - 1];
        if (argc && !is_same(latest, argc, argv)) {
            size_t count = saved->waiting_count++;
            saved->waiting = must(realloc(saved->waiting, (count + 1) * sizeof *saved->waiting));
            saved->waiting[count] = message_of(argc, argv);
        }
        persist_answer_bytes(saved->pending_call.at, saved->pending_call.size);
        return PERSIST_OK;
    }
    if (!argc) return persist_invalid("no call is pending; give a message");
    bool called = false;
    message own = {argc, argv};
    persist_turn turn = {.argc = argc, .argv = argv};
    persist_code code = make_step(attempt, &turn, &own, &called);
    return code ? code : proceed(attempt, called, NULL);
}

static persist_code run_once(const char *name, int argc, char **argv, attempt *attempt) {
    persist_version head;
    persist_code code = load(name, &attempt->saved, &head);
    if (code) return code;
    snprintf(attempt->id, sizeof attempt->id, "turn-%llu", (unsigned long long)head + 1);
    bytes before = encode(&attempt->saved);
    if (argc == 3 && !strcmp(argv[0], "reply")) code = take_reply(attempt, argv[1], argv[2]);
    else code = take_message_of_user(attempt, argc, argv);
    if (!code) {
        bytes after = encode(&attempt->saved);
        persist_options options = {.expect = persist_head(head)};
        if (before.size != after.size || memcmp(before.at, after.at, after.size))
            code = persist_save(name, after.at, after.size, &options, NULL);
        /* An answer is given only for what was saved. */
        bytes lost = code ? taken_back(attempt) : (bytes){0};
        forget(&lost);
        forget(&after);
    }
    forget(&before);
    return code;
}

persist_code persist_run_calls(const char *name, int argc, char **argv, persist_step *step,
                               void *context) {
    persist_code code = PERSIST_CONFLICT;
    for (int tries = 0; code == PERSIST_CONFLICT && tries < 10; tries++) {
        attempt attempt = {.step = step, .context = context, .answered = persist_answered()};
        code = run_once(name, argc, argv, &attempt);
        forget_saved(&attempt.saved);
    }
    return code;
}
