/* The details of what failed, and the words for people. */
#define _GNU_SOURCE
#include "internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static persist_error last = {.what = "", .message = ""};
static char *owned_what, *owned_message;
/* An agent goes on after some errors, and they are not why it fails in the end. */
static bool is_recent;

const persist_error *persist_last_error(void) { return &last; }

persist_code persist_ended(persist_code code) {
    is_recent = code != PERSIST_OK;
    return code;
}

const char *persist_reason(void) { return is_recent ? last.message : "the agent gave no reason"; }

const char *persist_code_name(persist_code code) {
    static const char *const names[] = {
        "ok",      "conflict",  "not-found",   "denied",  "too-large",       "quota-exceeded", "invalid",
        "corrupt", "throttled", "unavailable", "timeout", "unknown-outcome", "other",
    };
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unheard-of";
}

char *persist_copy(const void *bytes, size_t size) {
    char *copy = malloc(size + 1);
    /* An agent without memory cannot even say so: it ends here, and nothing half-written is visible. */
    if (!copy) abort();
    if (size) memcpy(copy, bytes, size);
    copy[size] = 0;
    return copy;
}

static persist_code fail(persist_error error, char *what, const char *format, ...) {
    char *message;
    va_list args;
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0) abort();
    va_end(args);
    free(owned_what);
    free(owned_message);
    owned_what = what;
    owned_message = message;
    last = error;
    last.what = what ? what : "";
    last.message = message;
    return persist_ended(error.code);
}

persist_code persist_invalid(const char *rule) {
    return fail((persist_error){.code = PERSIST_INVALID}, persist_copy(rule, strlen(rule)), "invalid argument: %s", rule);
}

persist_code persist_too_large(uint64_t size) {
    persist_snapshot_store_error_t error = {.tag = PERSIST_TOO_LARGE - 1};
    error.val.too_large = size;
    return persist_failed(&error);
}

persist_code persist_cancelled(void) {
    static const char CODE[] = "cancelled";
    return fail((persist_error){.code = PERSIST_OTHER}, persist_copy(CODE, strlen(CODE)), "the update was cancelled");
}

static char *text(const agent_string_t *string) { return persist_copy(string->ptr, string->len); }

#define TEXT(string) (int)(string).len, (const char *)(string).ptr

persist_code persist_failed(persist_snapshot_store_error_t *from) {
    /* The contract's cases are in this order, after PERSIST_OK. */
    persist_error error = {.code = (persist_code)(from->tag + 1)};
    switch (error.code) {
    case PERSIST_CONFLICT:
        if (from->val.conflict.is_some) {
            error.version = from->val.conflict.val;
            fail(error, NULL, "conflict: the newest version is %" PRIu64 ", not what this change expects; load it and decide again",
                 error.version);
        } else {
            fail(error, NULL, "conflict: this change expects a version, and nothing is saved under the name");
        }
        break;
    case PERSIST_NOT_FOUND:
        fail(error, NULL, "not found: never saved, or pruned; the history lists what there is");
        break;
    case PERSIST_DENIED:
        fail(error, text(&from->val.denied), "denied: this agent has no right to %.*s; the operator can grant it",
             TEXT(from->val.denied));
        break;
    case PERSIST_TOO_LARGE:
        error.number = from->val.too_large;
        fail(error, NULL, "too large: the state has %" PRIu64 " bytes, more than one call carries; use a writer or a reader",
             error.number);
        break;
    case PERSIST_QUOTA_EXCEEDED:
        error.number = from->val.quota_exceeded.max;
        fail(error, text(&from->val.quota_exceeded.limit),
             "quota exceeded: %.*s is limited to %" PRIu64 "; use less, or ask the operator for more",
             TEXT(from->val.quota_exceeded.limit), error.number);
        break;
    case PERSIST_INVALID:
        fail(error, text(&from->val.invalid), "invalid argument: %.*s", TEXT(from->val.invalid));
        break;
    case PERSIST_CORRUPT:
        fail(error, text(&from->val.corrupt),
             "corrupt: what is stored fails verification (%.*s); an earlier version may be whole", TEXT(from->val.corrupt));
        break;
    case PERSIST_THROTTLED:
        error.number = from->val.throttled.is_some ? from->val.throttled.val : 0;
        if (error.number) {
            fail(error, NULL, "throttled: try again in %" PRIu64 " ms", error.number);
        } else {
            fail(error, NULL, "throttled: try again later");
        }
        break;
    case PERSIST_UNAVAILABLE:
        fail(error, text(&from->val.unavailable), "storage is unavailable, tell the operator: %.*s",
             TEXT(from->val.unavailable));
        break;
    case PERSIST_TIMEOUT:
        fail(error, NULL, "timeout: the host's time for the call ran out and nothing was changed; try again");
        break;
    case PERSIST_UNKNOWN_OUTCOME:
        error.version = from->val.unknown_outcome;
        fail(error, NULL,
             "unknown outcome: it may have been saved as version %" PRIu64 "; stat that and compare before trying again",
             error.version);
        break;
    default:
        error.code = PERSIST_OTHER;
        fail(error, text(&from->val.other.code), "%.*s (%.*s)", TEXT(from->val.other.message), TEXT(from->val.other.code));
    }
    persist_snapshot_store_error_free(from);
    return error.code;
}
