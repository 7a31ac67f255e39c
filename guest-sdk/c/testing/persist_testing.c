/* A host in memory, for tests without WebAssembly. It has the functions of the generated bindings, and the rules of a host. */
#define _GNU_SOURCE
#include "../src/internal.h"

#include <persist_testing.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef persist_snapshot_store_info_t raw_info;
typedef persist_snapshot_store_error_t raw_error;
typedef persist_snapshot_store_expect_t raw_expect;
typedef persist_snapshot_store_save_options_t raw_options;

/* Bytes of labels and media type together, as a host has it. */
#define MAX_LABEL_BYTES 8192

typedef struct saved {
    raw_info info;
    agent_list_u8_t state;
} saved;

/* Version n of a name is item n - 1: nothing is pruned. */
typedef struct history {
    agent_string_t name;
    saved *versions;
    size_t count;
} history;

typedef struct stream {
    agent_string_t name;
    raw_options options;
    agent_list_u8_t state;
    saved from;
    bool failed;
} stream;

static const persist_guest_limits DEFAULT_LIMITS = {16 << 20, 1 << 20, 1 << 30, 200, 100};

static struct {
    history *names;
    size_t count;
    stream *streams;
    size_t streams_count;
    persist_guest_limits limits;
    bool has_limits;
    persist_code failure;
} host;

static void *allocated(void *memory) {
    if (!memory) abort();
    return memory;
}

static void *copy_bytes(const void *bytes, size_t size) {
    void *copy = allocated(malloc(size + 1));
    if (size) memcpy(copy, bytes, size);
    return copy;
}

static agent_string_t copy_text(agent_string_t text) { return (agent_string_t){copy_bytes(text.ptr, text.len), text.len}; }

static agent_string_t text_of(const char *text) {
    return copy_text((agent_string_t){(uint8_t *)text, strlen(text)});
}

static bool is_same(agent_string_t a, agent_string_t b) { return a.len == b.len && !memcmp(a.ptr, b.ptr, a.len); }

static bool begins_with(agent_string_t text, agent_string_t prefix) {
    return text.len >= prefix.len && !memcmp(text.ptr, prefix.ptr, prefix.len);
}

static int order(agent_string_t a, agent_string_t b) {
    int by_bytes = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return by_bytes ? by_bytes : (a.len > b.len) - (a.len < b.len);
}

static persist_guest_limits limits(void) { return host.has_limits ? host.limits : DEFAULT_LIMITS; }

static bool refuse(raw_error *error, persist_code code) {
    *error = (raw_error){.tag = (uint8_t)(code - 1)};
    return false;
}

static bool invalid(raw_error *error, const char *format, ...) {
    char *rule;
    va_list args;
    va_start(args, format);
    if (vasprintf(&rule, format, args) < 0) abort();
    va_end(args);
    refuse(error, PERSIST_INVALID);
    error->val.invalid = (agent_string_t){(uint8_t *)rule, strlen(rule)};
    return false;
}

static bool over_quota(raw_error *error, const char *limit, uint64_t max) {
    refuse(error, PERSIST_QUOTA_EXCEEDED);
    error->val.quota_exceeded = (persist_snapshot_types_quota_t){text_of(limit), max};
    return false;
}

/* Every call begins here, so that none escapes persist_test_fail_next. */
static bool begin(raw_error *error) {
    persist_code code = host.failure;
    host.failure = PERSIST_OK;
    if (!code) return true;
    refuse(error, code);
    agent_string_t words = text_of("a test asked for it");
    switch (code) {
    case PERSIST_CONFLICT: error->val.conflict = (persist_snapshot_types_option_version_t){true, 1}; break;
    case PERSIST_TOO_LARGE: error->val.too_large = 1; break;
    case PERSIST_UNKNOWN_OUTCOME: error->val.unknown_outcome = 1; break;
    case PERSIST_QUOTA_EXCEEDED: error->val.quota_exceeded = (persist_snapshot_types_quota_t){words, 1}; break;
    case PERSIST_OTHER: error->val.other = (persist_snapshot_types_failure_t){text_of("test"), words}; break;
    case PERSIST_DENIED:
    case PERSIST_INVALID:
    case PERSIST_CORRUPT:
    case PERSIST_UNAVAILABLE: error->val.invalid = words; break;
    default: break;
    }
    return false;
}

/* SHA-256, of FIPS 180-4. */
static uint32_t turned(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static void sha256_block(uint32_t sum[8], const uint8_t *block) {
    static const uint32_t K[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
        0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
        0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
        0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
        0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
        0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, sum, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = turned(v[4], 6) ^ turned(v[4], 11) ^ turned(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t s0 = turned(v[0], 2) ^ turned(v[0], 13) ^ turned(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) sum[i] += v[i];
}

static agent_string_t sha256(agent_list_u8_t state) {
    uint32_t sum[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t at = 0;
    for (; state.len - at >= 64; at += 64) sha256_block(sum, state.ptr + at);
    uint8_t last[128] = {0};
    size_t left = state.len - at, size = left < 56 ? 64 : 128;
    if (left) memcpy(last, state.ptr + at, left);
    last[left] = 0x80;
    for (int i = 0; i < 8; i++) last[size - 1 - i] = (uint8_t)((uint64_t)state.len * 8 >> 8 * i);
    for (at = 0; at < size; at += 64) sha256_block(sum, last + at);
    char digits[65];
    for (int i = 0; i < 8; i++) snprintf(digits + 8 * i, 9, "%08x", sum[i]);
    return text_of(digits);
}

static persist_snapshot_types_list_label_t copy_labels(persist_snapshot_types_list_label_t from) {
    persist_snapshot_types_list_label_t to = {allocated(calloc(from.len + 1, sizeof *to.ptr)), from.len};
    for (size_t i = 0; i < from.len; i++)
        to.ptr[i] = (persist_snapshot_types_label_t){copy_text(from.ptr[i].f0), copy_text(from.ptr[i].f1)};
    return to;
}

static agent_option_string_t copy_option(agent_option_string_t from) {
    if (from.is_some) from.val = copy_text(from.val);
    return from;
}

static raw_info copy_info(const raw_info *from) {
    raw_info to = *from;
    to.name = copy_text(from->name);
    to.sha256 = copy_text(from->sha256);
    to.media_type = copy_option(from->media_type);
    to.labels = copy_labels(from->labels);
    return to;
}

static history *history_of(agent_string_t name) {
    for (size_t i = 0; i < host.count; i++)
        if (is_same(host.names[i].name, name)) return &host.names[i];
    return NULL;
}

static const saved *head_of(agent_string_t name) {
    history *known = history_of(name);
    return known ? &known->versions[known->count - 1] : NULL;
}

/* A host counts the bytes of a name in its key, where all but the plainest cost three. */
static bool check_name(agent_string_t name, raw_error *error) {
    size_t cost = 0;
    if (!name.len) return invalid(error, "a name is empty; the minimum is one byte");
    for (size_t i = 0; i < name.len; i++) {
        uint8_t byte = name.ptr[i];
        /* U+0080 to U+009F are control characters, too. */
        bool is_c1 = byte == 0xc2 && i + 1 < name.len && name.ptr[i + 1] < 0xa0;
        if (byte < 32 || byte == 127 || is_c1)
            return invalid(error, "a name contains the control character U+%04X", is_c1 ? name.ptr[i + 1] : byte);
        bool is_plain = memchr("abcdefghijklmnopqrstuvwxyz0123456789_-", byte, 38) || (byte == '.' && i > 0);
        cost += is_plain ? 1 : 3;
    }
    if (cost <= limits().max_name) return true;
    return invalid(error,
                   "a name is %zu bytes long; at most %u are allowed, and every byte except a-z 0-9 . _ - counts as three", cost,
                   limits().max_name);
}

static bool check_options(const raw_options *options, raw_error *error) {
    static const agent_string_t RESERVED = {(uint8_t *)"persist.", 8};
    size_t size = options->media_type.is_some ? options->media_type.val.len : 0;
    for (size_t i = 0; i < options->labels.len; i++) size += options->labels.ptr[i].f0.len + options->labels.ptr[i].f1.len;
    if (size > MAX_LABEL_BYTES)
        return invalid(error, "labels and media type have %zu bytes; the maximum is %d", size, MAX_LABEL_BYTES);
    for (size_t i = 0; i < options->labels.len; i++) {
        agent_string_t key = options->labels.ptr[i].f0;
        const char *broken = NULL;
        if (!key.len) broken = "is empty";
        if (begins_with(key, RESERVED)) broken = "is reserved: it starts with persist.";
        for (size_t earlier = 0; earlier < i; earlier++)
            if (is_same(options->labels.ptr[earlier].f0, key)) broken = "is given twice";
        if (broken) return invalid(error, "the label key \"%.*s\" %s", (int)key.len, (const char *)key.ptr, broken);
    }
    return true;
}

static bool check_expect(agent_string_t name, const raw_expect *expect, raw_error *error) {
    const saved *head = head_of(name);
    bool holds = true;
    if (expect->tag == PERSIST_SNAPSHOT_TYPES_EXPECT_ABSENT) holds = !head || head->info.deleted;
    if (expect->tag == PERSIST_SNAPSHOT_TYPES_EXPECT_VERSION) holds = head && head->info.version == expect->val.version;
    if (holds) return true;
    refuse(error, PERSIST_CONFLICT);
    if (head) error->val.conflict = (persist_snapshot_types_option_version_t){true, head->info.version};
    return false;
}

static bool check_inline(uint64_t size, raw_error *error) {
    if (size <= limits().max_inline) return true;
    refuse(error, PERSIST_TOO_LARGE);
    error->val.too_large = size;
    return false;
}

static bool check_state(uint64_t size, raw_error *error) {
    return size <= limits().max_state || over_quota(error, "state-size", limits().max_state);
}

static bool check_limit(uint32_t limit, raw_error *error) {
    return limit || invalid(error, "a limit is 0; the minimum is 1");
}

/* The head, or version `at`; a tombstone too. NULL: nothing was saved. */
static bool find(agent_string_t name, const uint64_t *at, const saved **found, raw_error *error) {
    *found = NULL;
    if (!check_name(name, error)) return false;
    history *known = history_of(name);
    size_t count = known ? known->count : 0;
    if (at && (!*at || *at > count)) return refuse(error, PERSIST_NOT_FOUND);
    if (known) *found = &known->versions[(at ? *at : count) - 1];
    return true;
}

static bool need_state(agent_string_t name, const uint64_t *at, const saved **found, raw_error *error) {
    if (!find(name, at, found, error)) return false;
    return (*found && !(*found)->info.deleted) || refuse(error, PERSIST_NOT_FOUND);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* The one place where a version is added. */
static bool commit(agent_string_t name, const raw_options *options, agent_list_u8_t state, bool deleted, raw_info *info,
                   raw_error *error) {
    if (!check_expect(name, &options->expect, error)) return false;
    const saved *head = head_of(name);
    uint64_t parent = head ? head->info.version : 0;
    raw_info made = {
        .name = name,
        .version = parent + 1,
        .parent = {.is_some = parent != 0, .val = parent},
        .deleted = deleted,
        .size = state.len,
        .stored_size = state.len,
        .sha256 = sha256(state),
        .created_at = now(),
        .media_type = options->media_type,
        .labels = options->labels,
    };
    saved version = {copy_info(&made), {copy_bytes(state.ptr, state.len), state.len}};
    free(made.sha256.ptr);
    history *known = history_of(name);
    if (!known) {
        host.names = allocated(realloc(host.names, (host.count + 1) * sizeof *host.names));
        known = &host.names[host.count++];
        *known = (history){.name = copy_text(name)};
    }
    known->versions = allocated(realloc(known->versions, (known->count + 1) * sizeof *known->versions));
    known->versions[known->count++] = version;
    *info = copy_info(&version.info);
    return true;
}

/* Saves a state again: with what its author gave, and where it is from. */
static bool commit_again(agent_string_t name, const saved *from, const raw_expect *expect, const char *key, agent_string_t value,
                         raw_info *info, raw_error *error) {
    static const agent_string_t RESERVED = {(uint8_t *)"persist.", 8};
    raw_options options = {.expect = *expect, .media_type = from->info.media_type};
    options.labels.ptr = allocated(calloc(from->info.labels.len + 1, sizeof *options.labels.ptr));
    for (size_t i = 0; i < from->info.labels.len; i++)
        if (!begins_with(from->info.labels.ptr[i].f0, RESERVED))
            options.labels.ptr[options.labels.len++] = from->info.labels.ptr[i];
    agent_string_t own_key = {(uint8_t *)key, strlen(key)};
    options.labels.ptr[options.labels.len++] = (persist_snapshot_types_label_t){own_key, value};
    bool ok = commit(name, &options, from->state, false, info, error);
    free(options.labels.ptr);
    return ok;
}

void persist_snapshot_store_limits(persist_snapshot_store_guest_limits_t *ret) {
    persist_guest_limits own = limits();
    *ret = (persist_snapshot_store_guest_limits_t){own.max_inline, own.max_chunk, own.max_state, own.max_name, own.max_page};
}

bool persist_snapshot_store_save(agent_string_t *name, agent_list_u8_t *state, raw_options *options, raw_info *ret,
                                 raw_error *err) {
    return begin(err) && check_name(*name, err) && check_options(options, err) && check_inline(state->len, err) &&
           check_state(state->len, err) && commit(*name, options, *state, false, ret, err);
}

bool persist_snapshot_store_load(agent_string_t *name, uint64_t *at, persist_snapshot_store_option_snapshot_t *ret,
                                 raw_error *err) {
    const saved *found;
    *ret = (persist_snapshot_store_option_snapshot_t){0};
    if (!begin(err) || !find(*name, at, &found, err)) return false;
    if (!found || found->info.deleted) return true;
    if (!check_inline(found->state.len, err)) return false;
    ret->is_some = true;
    ret->val.info = copy_info(&found->info);
    ret->val.state = (agent_list_u8_t){copy_bytes(found->state.ptr, found->state.len), found->state.len};
    return true;
}

bool persist_snapshot_store_stat(agent_string_t *name, uint64_t *at, persist_snapshot_store_option_info_t *ret, raw_error *err) {
    const saved *found;
    *ret = (persist_snapshot_store_option_info_t){0};
    if (!begin(err) || !find(*name, at, &found, err)) return false;
    if (found) *ret = (persist_snapshot_store_option_info_t){true, copy_info(&found->info)};
    return true;
}

bool persist_snapshot_store_history(agent_string_t *name, uint64_t *before, uint32_t limit,
                                    persist_snapshot_store_list_info_t *ret, raw_error *err) {
    if (!begin(err) || !check_name(*name, err) || !check_limit(limit, err)) return false;
    history *known = history_of(*name);
    size_t most = limit < limits().max_page ? limit : limits().max_page, at = known ? known->count : 0;
    if (before && at >= *before) at = *before ? *before - 1 : 0;
    *ret = (persist_snapshot_store_list_info_t){allocated(calloc(most + 1, sizeof *ret->ptr)), 0};
    while (at && ret->len < most) ret->ptr[ret->len++] = copy_info(&known->versions[--at].info);
    if (!ret->len) free(ret->ptr);
    return true;
}

static int by_name(const void *a, const void *b) { return order(*(const agent_string_t *)a, *(const agent_string_t *)b); }

bool persist_snapshot_store_names(agent_string_t *prefix, agent_string_t *after, uint32_t limit, agent_list_string_t *ret,
                                  raw_error *err) {
    if (!begin(err) || !check_limit(limit, err) || (after && !check_name(*after, err))) return false;
    agent_string_t *all = allocated(calloc(host.count + 1, sizeof *all));
    size_t count = 0, most = limit < limits().max_page ? limit : limits().max_page;
    for (size_t i = 0; i < host.count; i++) {
        agent_string_t name = host.names[i].name;
        if (begins_with(name, *prefix) && (!after || order(name, *after) > 0)) all[count++] = name;
    }
    qsort(all, count, sizeof *all, by_name);
    *ret = (agent_list_string_t){all, count < most ? count : most};
    for (size_t i = 0; i < ret->len; i++) all[i] = copy_text(all[i]);
    if (!ret->len) free(all);
    return true;
}

bool persist_snapshot_store_delete(agent_string_t *name, raw_expect *expect, raw_info *ret, raw_error *err) {
    const saved *found;
    raw_options options = {.expect = *expect};
    return begin(err) && check_name(*name, err) && check_expect(*name, expect, err) && need_state(*name, NULL, &found, err) &&
           commit(*name, &options, (agent_list_u8_t){0}, true, ret, err);
}

bool persist_snapshot_store_restore(agent_string_t *name, uint64_t version, raw_expect *expect, raw_info *ret, raw_error *err) {
    const saved *found;
    char digits[24];
    int size = snprintf(digits, sizeof digits, "%llu", (unsigned long long)version);
    agent_string_t from = {(uint8_t *)digits, (size_t)size};
    return begin(err) && need_state(*name, &version, &found, err) &&
           commit_again(*name, found, expect, "persist.restored-from", from, ret, err);
}

bool persist_snapshot_store_fork(agent_string_t *name, uint64_t *at, agent_string_t *new_name, raw_expect *expect, raw_info *ret,
                                 raw_error *err) {
    const saved *found;
    return begin(err) && check_name(*new_name, err) && need_state(*name, at, &found, err) &&
           commit_again(*new_name, found, expect, "persist.forked-from", *name, ret, err);
}

static int32_t open_stream(stream opened) {
    host.streams = allocated(realloc(host.streams, (host.streams_count + 1) * sizeof *host.streams));
    host.streams[host.streams_count] = opened;
    return (int32_t)host.streams_count++;
}

bool persist_snapshot_store_static_writer_open(agent_string_t *name, raw_options *options,
                                               persist_snapshot_store_own_writer_t *ret, raw_error *err) {
    if (!begin(err) || !check_name(*name, err) || !check_options(options, err) || !check_expect(*name, &options->expect, err))
        return false;
    stream opened = {.name = copy_text(*name), .options = *options};
    opened.options.media_type = copy_option(options->media_type);
    opened.options.labels = copy_labels(options->labels);
    if (options->expect.tag == PERSIST_SNAPSHOT_TYPES_EXPECT_ANY) {
        const saved *head = head_of(*name);
        opened.options.expect.tag = head ? PERSIST_SNAPSHOT_TYPES_EXPECT_VERSION : PERSIST_SNAPSHOT_TYPES_EXPECT_ABSENT;
        if (head) opened.options.expect.val.version = head->info.version;
    }
    ret->__handle = open_stream(opened);
    return true;
}

static bool check_writer(const stream *writer, raw_error *error) {
    return !writer->failed || invalid(error, "a writer cannot continue after an error; drop it and open a new one");
}

bool persist_snapshot_store_method_writer_write(persist_snapshot_store_borrow_writer_t self, agent_list_u8_t *chunk,
                                                raw_error *err) {
    stream *writer = &host.streams[self.__handle];
    if (!check_writer(writer, err)) return false;
    writer->failed = true;
    if (!begin(err)) return false;
    if (chunk->len > limits().max_chunk) return over_quota(err, "chunk", limits().max_chunk);
    if (!check_state(writer->state.len + chunk->len, err)) return false;
    writer->state.ptr = allocated(realloc(writer->state.ptr, writer->state.len + chunk->len + 1));
    if (chunk->len) memcpy(writer->state.ptr + writer->state.len, chunk->ptr, chunk->len);
    writer->state.len += chunk->len;
    writer->failed = false;
    return true;
}

bool persist_snapshot_store_static_writer_finish(persist_snapshot_store_own_writer_t this_, raw_info *ret, raw_error *err) {
    const stream *writer = &host.streams[this_.__handle];
    bool ok = check_writer(writer, err) && begin(err) && commit(writer->name, &writer->options, writer->state, false, ret, err);
    persist_snapshot_store_writer_drop_own(this_);
    return ok;
}

bool persist_snapshot_store_static_reader_open(agent_string_t *name, uint64_t *at, persist_snapshot_store_option_own_reader_t *ret,
                                               raw_error *err) {
    const saved *found;
    *ret = (persist_snapshot_store_option_own_reader_t){0};
    if (!begin(err) || !find(*name, at, &found, err)) return false;
    if (!found || found->info.deleted) return true;
    ret->is_some = true;
    ret->val.__handle = open_stream((stream){.from = *found});
    return true;
}

void persist_snapshot_store_method_reader_info(persist_snapshot_store_borrow_reader_t self, raw_info *ret) {
    *ret = copy_info(&host.streams[self.__handle].from.info);
}

bool persist_snapshot_store_method_reader_read(persist_snapshot_store_borrow_reader_t self, uint64_t offset, uint32_t len,
                                               agent_list_u8_t *ret, raw_error *err) {
    agent_list_u8_t state = host.streams[self.__handle].from.state;
    *ret = (agent_list_u8_t){0};
    if (!begin(err)) return false;
    if (!len) return invalid(err, "a read of 0 bytes; it reads at least 1");
    uint64_t left = offset < state.len ? state.len - offset : 0, most = len < limits().max_chunk ? len : limits().max_chunk;
    size_t size = (size_t)(left < most ? left : most);
    if (size) *ret = (agent_list_u8_t){copy_bytes(state.ptr + offset, size), size};
    return true;
}

void persist_snapshot_store_writer_drop_own(persist_snapshot_store_own_writer_t handle) {
    stream *writer = &host.streams[handle.__handle];
    free(writer->name.ptr);
    free(writer->state.ptr);
    *writer = (stream){.failed = true};
}

void persist_snapshot_store_reader_drop_own(persist_snapshot_store_own_reader_t handle) { (void)handle; }

persist_snapshot_store_borrow_writer_t persist_snapshot_store_borrow_writer(persist_snapshot_store_own_writer_t handle) {
    return (persist_snapshot_store_borrow_writer_t){handle.__handle};
}

persist_snapshot_store_borrow_reader_t persist_snapshot_store_borrow_reader(persist_snapshot_store_own_reader_t handle) {
    return (persist_snapshot_store_borrow_reader_t){handle.__handle};
}

void persist_snapshot_store_info_free(raw_info *info) {
    free(info->name.ptr);
    free(info->sha256.ptr);
    if (info->media_type.is_some) free(info->media_type.val.ptr);
    for (size_t i = 0; i < info->labels.len; i++) {
        free(info->labels.ptr[i].f0.ptr);
        free(info->labels.ptr[i].f1.ptr);
    }
    free(info->labels.ptr);
}

void persist_snapshot_store_error_free(raw_error *error) {
    switch ((persist_code)(error->tag + 1)) {
    case PERSIST_DENIED:
    case PERSIST_INVALID:
    case PERSIST_CORRUPT:
    case PERSIST_UNAVAILABLE: free(error->val.invalid.ptr); break;
    case PERSIST_QUOTA_EXCEEDED: free(error->val.quota_exceeded.limit.ptr); break;
    case PERSIST_OTHER:
        free(error->val.other.code.ptr);
        free(error->val.other.message.ptr);
        break;
    default: break;
    }
}

void agent_list_u8_free(agent_list_u8_t *list) { free(list->ptr); }

void agent_list_string_free(agent_list_string_t *list) {
    if (!list->len) return;
    for (size_t i = 0; i < list->len; i++) free(list->ptr[i].ptr);
    free(list->ptr);
}

int persist_test_run(int argc, char **argv, char **answer) {
    agent_list_string_t args = {allocated(calloc((size_t)argc + 1, sizeof *args.ptr)), (size_t)argc};
    for (int i = 0; i < argc; i++) args.ptr[i] = (agent_string_t){(uint8_t *)argv[i], strlen(argv[i])};
    agent_string_t ok = {0}, error = {0};
    bool succeeded = exports_agent_run(&args, &ok, &error);
    agent_string_t told = succeeded ? ok : error;
    if (answer) *answer = persist_copy(told.ptr, told.len);
    free(told.ptr);
    free(args.ptr);
    persist_forget_run();
    return succeeded ? 0 : 1;
}

void persist_test_reset(void) {
    for (size_t i = 0; i < host.count; i++) {
        for (size_t version = 0; version < host.names[i].count; version++) {
            persist_snapshot_store_info_free(&host.names[i].versions[version].info);
            free(host.names[i].versions[version].state.ptr);
        }
        free(host.names[i].versions);
        free(host.names[i].name.ptr);
    }
    free(host.names);
    free(host.streams);
    memset(&host, 0, sizeof host);
    persist_forget_run();
}

void persist_test_set_limits(persist_guest_limits limits) {
    host.limits = limits;
    host.has_limits = true;
    persist_forget_run();
}

void persist_test_fail_next(persist_code code) { host.failure = code; }
