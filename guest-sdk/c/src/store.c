/* One call to the store each: only conversions between the contract's types and ours. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static const char NAME_RULE[] = "a name, label or media type is UTF-8, of at most 64 KiB";
static const size_t LONGEST_TEXT = 64 << 10;

static const size_t MOST_LABELS = 1024;

persist_expect persist_any(void) { return (persist_expect){.kind = PERSIST_EXPECT_ANY}; }
persist_expect persist_absent(void) { return (persist_expect){.kind = PERSIST_EXPECT_ABSENT}; }
persist_expect persist_head(persist_version version) {
    return version ? (persist_expect){PERSIST_EXPECT_VERSION, version} : persist_absent();
}

agent_string_t persist_borrow(const char *text) { return (agent_string_t){(uint8_t *)text, strlen(text)}; }

/* The host ends an agent that passes more than a call carries. It takes far less for a text, and says so. */
static bool is_text(const char *text) {
    size_t size = strlen(text);
    return size <= LONGEST_TEXT && persist_utf8((const uint8_t *)text, size) == size;
}

persist_code persist_raw_expect(persist_expect expect, persist_snapshot_store_expect_t *raw) {
    *raw = (persist_snapshot_store_expect_t){.tag = (uint8_t)expect.kind};
    raw->val.version = expect.version;
    switch (expect.kind) {
    case PERSIST_EXPECT_ANY:
    case PERSIST_EXPECT_ABSENT:
    case PERSIST_EXPECT_VERSION: return PERSIST_OK;
    }
    return persist_invalid("an expectation is made by persist_any, persist_absent or persist_head");
}

persist_code persist_raw_options(const char *name, const persist_options *options, persist_snapshot_store_save_options_t *raw) {
    *raw = (persist_snapshot_store_save_options_t){0};
    persist_code code = persist_raw_expect(options ? options->expect : persist_any(), &raw->expect);
    if (code) return code;
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    if (!options) return PERSIST_OK;
    if (options->media_type) {
        if (!is_text(options->media_type)) return persist_invalid(NAME_RULE);
        raw->media_type.is_some = true;
        raw->media_type.val = persist_borrow(options->media_type);
    }
    if (!options->label_count) return PERSIST_OK;
    if (options->label_count > MOST_LABELS) return persist_invalid("there are at most 1024 labels");
    persist_snapshot_types_label_t *labels = calloc(options->label_count, sizeof *labels);
    if (!labels) abort();
    for (size_t i = 0; i < options->label_count; i++) {
        const persist_label *label = &options->labels[i];
        if (!is_text(label->key) || !is_text(label->value)) {
            free(labels);
            return persist_invalid(NAME_RULE);
        }
        labels[i] = (persist_snapshot_types_label_t){persist_borrow(label->key), persist_borrow(label->value)};
    }
    raw->labels = (persist_snapshot_types_list_label_t){labels, options->label_count};
    return PERSIST_OK;
}

/* Copies a text to `*at` and moves on behind it. */
static const char *place(char **at, const agent_string_t *text) {
    char *copy = *at;
    memcpy(copy, text->ptr, text->len);
    copy[text->len] = 0;
    *at += text->len + 1;
    return copy;
}

void persist_keep_info(persist_snapshot_store_info_t *raw, persist_info *info) {
    if (!info) {
        persist_snapshot_store_info_free(raw);
        return;
    }
    size_t count = raw->labels.len, size = count * sizeof(persist_label);
    size += raw->name.len + 1 + raw->sha256.len + 1 + (raw->media_type.is_some ? raw->media_type.val.len + 1 : 0);
    for (size_t i = 0; i < count; i++) size += raw->labels.ptr[i].f0.len + 1 + raw->labels.ptr[i].f1.len + 1;
    persist_label *labels = malloc(size);
    if (!labels) abort();
    char *texts = (char *)(labels + count);
    *info = (persist_info){
        .name = place(&texts, &raw->name),
        .version = raw->version,
        .parent = raw->parent.is_some ? raw->parent.val : 0,
        .deleted = raw->deleted,
        .size = raw->size,
        .stored_size = raw->stored_size,
        .sha256 = place(&texts, &raw->sha256),
        .created_at = raw->created_at,
        .media_type = raw->media_type.is_some ? place(&texts, &raw->media_type.val) : NULL,
        .labels = labels,
        .label_count = count,
        .owned = labels,
    };
    for (size_t i = 0; i < count; i++) {
        labels[i].key = place(&texts, &raw->labels.ptr[i].f0);
        labels[i].value = place(&texts, &raw->labels.ptr[i].f1);
    }
    persist_snapshot_store_info_free(raw);
}

void persist_info_free(persist_info *info) {
    free(info->owned);
    *info = (persist_info){0};
}

const char *persist_info_label(const persist_info *info, const char *key) {
    for (size_t i = 0; i < info->label_count; i++)
        if (!strcmp(info->labels[i].key, key)) return info->labels[i].value;
    return NULL;
}

void persist_snapshot_free(persist_snapshot *snapshot) {
    if (!snapshot->found) return;
    persist_info_free(&snapshot->info);
    free(snapshot->state);
    *snapshot = (persist_snapshot){0};
}

void persist_history_free(persist_history_page *page) {
    for (size_t i = 0; i < page->count; i++) persist_info_free(&page->items[i]);
    free(page->items);
    *page = (persist_history_page){0};
}

void persist_names_free(persist_names_page *page) {
    for (size_t i = 0; i < page->count; i++) free(page->items[i]);
    free(page->items);
    *page = (persist_names_page){0};
}

persist_guest_limits persist_limits(void) {
    persist_snapshot_store_guest_limits_t raw;
    persist_snapshot_store_limits(&raw);
    return (persist_guest_limits){raw.max_inline, raw.max_chunk, raw.max_state, raw.max_name, raw.max_page};
}

/* What one call carries. The host ends an agent that passes much more. */
static uint64_t max_inline;

void persist_forget_limits(void) { max_inline = 0; }

static bool is_too_large(size_t size) {
    if (!max_inline) max_inline = persist_limits().max_inline;
    return size > max_inline;
}

persist_code persist_save(const char *name, const void *state, size_t size, const persist_options *options, persist_info *info) {
    persist_snapshot_store_save_options_t raw;
    persist_code code = persist_raw_options(name, options, &raw);
    if (code) return code;
    if (is_too_large(size)) {
        free(raw.labels.ptr);
        return persist_too_large(size);
    }
    agent_string_t raw_name = persist_borrow(name);
    agent_list_u8_t bytes = {(uint8_t *)state, size};
    persist_snapshot_store_info_t saved;
    persist_snapshot_store_error_t error;
    bool ok = persist_snapshot_store_save(&raw_name, &bytes, &raw, &saved, &error);
    free(raw.labels.ptr);
    if (!ok) return persist_failed(&error);
    persist_keep_info(&saved, info);
    return persist_ended(PERSIST_OK);
}

persist_code persist_load(const char *name, persist_version at, persist_snapshot *snapshot) {
    *snapshot = (persist_snapshot){0};
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_option_snapshot_t loaded;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_load(&raw_name, at ? &at : NULL, &loaded, &error)) return persist_failed(&error);
    if (!loaded.is_some) return persist_ended(PERSIST_OK);
    agent_list_u8_t state = loaded.val.state;
    snapshot->found = true;
    snapshot->size = state.len;
    /* With room for a zero byte, so that a state that is a text can be used as one. */
    snapshot->state = realloc(state.len ? state.ptr : NULL, state.len + 1);
    if (!snapshot->state) abort();
    snapshot->state[state.len] = 0;
    persist_keep_info(&loaded.val.info, &snapshot->info);
    return persist_ended(PERSIST_OK);
}

persist_code persist_head_of(const char *name, persist_expect *expect) {
    bool found;
    persist_info info;
    *expect = persist_absent();
    persist_code code = persist_stat(name, 0, &found, &info);
    if (code || !found) return code;
    *expect = persist_head(info.version);
    persist_info_free(&info);
    return PERSIST_OK;
}

/* Loads, changes and saves once. */
static persist_code update_once(const char *name, persist_update_function *change, void *context, persist_options *options,
                                persist_info *info) {
    persist_snapshot loaded;
    persist_code code = persist_load(name, 0, &loaded);
    if (code) return code;
    options->expect = loaded.found ? persist_head(loaded.info.version) : persist_absent();
    size_t before_size = loaded.size;
    uint8_t *before = loaded.found ? (uint8_t *)persist_copy(loaded.state, loaded.size) : NULL;
    persist_change made = change(&loaded, context);
    bool same = before && before_size == loaded.size && !memcmp(before, loaded.state, before_size);
    if (made == PERSIST_CHANGE_CANCEL) code = persist_cancelled();
    else if (made == PERSIST_CHANGE_SAVE && !same) code = persist_save(name, loaded.state, loaded.size, options, info);
    else code = persist_ended(PERSIST_OK);
    free(before);
    free(loaded.state);
    if (loaded.found) persist_info_free(&loaded.info);
    return code;
}

persist_code persist_update(const char *name, persist_update_function *change, void *context, const persist_options *options,
                            persist_info *info) {
    persist_options own = options ? *options : (persist_options){0};
    if (info) *info = (persist_info){0};
    if (own.expect.kind != PERSIST_EXPECT_ANY) return persist_invalid("an update expects the head that it loaded");
    persist_code code = PERSIST_CONFLICT;
    for (int tries = 0; code == PERSIST_CONFLICT && tries < 10; tries++)
        code = update_once(name, change, context, &own, info);
    return code;
}

persist_code persist_stat(const char *name, persist_version at, bool *found, persist_info *info) {
    *found = false;
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_option_info_t known;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_stat(&raw_name, at ? &at : NULL, &known, &error)) return persist_failed(&error);
    *found = known.is_some;
    if (known.is_some) persist_keep_info(&known.val, info);
    return persist_ended(PERSIST_OK);
}

persist_code persist_history(const char *name, persist_version before, uint32_t limit, persist_history_page *page) {
    *page = (persist_history_page){0};
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_list_info_t list;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_history(&raw_name, before ? &before : NULL, limit, &list, &error)) return persist_failed(&error);
    page->items = calloc(list.len + 1, sizeof *page->items);
    if (!page->items) abort();
    page->count = list.len;
    for (size_t i = 0; i < list.len; i++) persist_keep_info(&list.ptr[i], &page->items[i]);
    if (list.len) free(list.ptr);
    return persist_ended(PERSIST_OK);
}

persist_code persist_names(const char *prefix, const char *after, uint32_t limit, persist_names_page *page) {
    *page = (persist_names_page){0};
    if (!is_text(prefix) || (after && !is_text(after))) return persist_invalid(NAME_RULE);
    agent_string_t raw_prefix = persist_borrow(prefix), raw_after = persist_borrow(after ? after : "");
    agent_list_string_t list;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_names(&raw_prefix, after ? &raw_after : NULL, limit, &list, &error)) return persist_failed(&error);
    page->items = calloc(list.len + 1, sizeof *page->items);
    if (!page->items) abort();
    page->count = list.len;
    for (size_t i = 0; i < list.len; i++) page->items[i] = persist_copy(list.ptr[i].ptr, list.ptr[i].len);
    agent_list_string_free(&list);
    return persist_ended(PERSIST_OK);
}

persist_code persist_delete(const char *name, persist_expect expect, persist_info *info) {
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_expect_t raw;
    persist_code code = persist_raw_expect(expect, &raw);
    if (code) return code;
    persist_snapshot_store_info_t made;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_delete(&raw_name, &raw, &made, &error)) return persist_failed(&error);
    persist_keep_info(&made, info);
    return persist_ended(PERSIST_OK);
}

persist_code persist_restore(const char *name, persist_version version, persist_expect expect, persist_info *info) {
    if (!is_text(name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_expect_t raw;
    persist_code code = persist_raw_expect(expect, &raw);
    if (code) return code;
    persist_snapshot_store_info_t made;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_restore(&raw_name, version, &raw, &made, &error)) return persist_failed(&error);
    persist_keep_info(&made, info);
    return persist_ended(PERSIST_OK);
}

persist_code persist_fork(const char *name, persist_version at, const char *new_name, persist_expect expect, persist_info *info) {
    if (!is_text(name) || !is_text(new_name)) return persist_invalid(NAME_RULE);
    agent_string_t raw_name = persist_borrow(name), raw_new = persist_borrow(new_name);
    persist_snapshot_store_expect_t raw;
    persist_code code = persist_raw_expect(expect, &raw);
    if (code) return code;
    persist_snapshot_store_info_t made;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_fork(&raw_name, at ? &at : NULL, &raw_new, &raw, &made, &error)) return persist_failed(&error);
    persist_keep_info(&made, info);
    return persist_ended(PERSIST_OK);
}
