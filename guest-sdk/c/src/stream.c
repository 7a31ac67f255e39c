/* States written and read in pieces. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Bytes collected before they are sent: fewer calls across the sandbox's wall. More would only cost the agent memory. */
#define COLLECTED ((size_t)1 << 20)

struct persist_writer {
    persist_snapshot_store_own_writer_t stream;
    persist_code failed;
    size_t piece, used;
    uint8_t buffer[];
};

static size_t chunk(void) {
    uint32_t max = persist_limits().max_chunk;
    return max == 0 ? 1 : max < COLLECTED ? max : COLLECTED;
}

persist_code persist_writer_open(const char *name, const persist_options *options, persist_writer **writer) {
    *writer = NULL;
    persist_snapshot_store_save_options_t raw;
    persist_code code = persist_raw_options(name, options, &raw);
    if (code) return code;
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_own_writer_t stream;
    persist_snapshot_store_error_t error;
    bool ok = persist_snapshot_store_static_writer_open(&raw_name, &raw, &stream, &error);
    free(raw.labels.ptr);
    if (!ok) return persist_failed(&error);
    size_t piece = chunk();
    persist_writer *made = malloc(sizeof *made + piece);
    if (!made) abort();
    made->stream = stream;
    made->failed = PERSIST_OK;
    made->piece = piece;
    made->used = 0;
    *writer = made;
    return persist_ended(PERSIST_OK);
}

/* A writer that failed stays failed, so that a lost piece cannot be followed by a commit. */
static persist_code send_piece(persist_writer *writer) {
    if (writer->failed || !writer->used) return writer->failed;
    agent_list_u8_t bytes = {writer->buffer, writer->used};
    persist_snapshot_store_error_t error;
    writer->used = 0;
    if (!persist_snapshot_store_method_writer_write(persist_snapshot_store_borrow_writer(writer->stream), &bytes, &error))
        writer->failed = persist_failed(&error);
    return writer->failed;
}

persist_code persist_writer_write(persist_writer *writer, const void *bytes, size_t size) {
    const uint8_t *from = bytes;
    while (size && !writer->failed) {
        size_t room = writer->piece - writer->used, now = size < room ? size : room;
        memcpy(writer->buffer + writer->used, from, now);
        writer->used += now;
        from += now;
        size -= now;
        if (writer->used == writer->piece) send_piece(writer);
    }
    return persist_ended(writer->failed);
}

persist_code persist_writer_finish(persist_writer *writer, persist_info *info) {
    persist_code code = send_piece(writer);
    if (code) {
        persist_writer_abort(writer);
        return persist_ended(code);
    }
    persist_snapshot_store_info_t made;
    persist_snapshot_store_error_t error;
    bool ok = persist_snapshot_store_static_writer_finish(writer->stream, &made, &error);
    free(writer);
    if (!ok) return persist_failed(&error);
    persist_keep_info(&made, info);
    return persist_ended(PERSIST_OK);
}

void persist_writer_abort(persist_writer *writer) {
    if (!writer) return;
    persist_snapshot_store_writer_drop_own(writer->stream);
    free(writer);
}

struct persist_reader {
    persist_snapshot_store_own_reader_t stream;
    persist_info info;
    size_t chunk;
};

persist_code persist_reader_open(const char *name, persist_version at, persist_reader **reader) {
    *reader = NULL;
    persist_snapshot_store_save_options_t unused;
    persist_code code = persist_raw_options(name, NULL, &unused);
    if (code) return code;
    agent_string_t raw_name = persist_borrow(name);
    persist_snapshot_store_option_own_reader_t opened;
    persist_snapshot_store_error_t error;
    if (!persist_snapshot_store_static_reader_open(&raw_name, at ? &at : NULL, &opened, &error)) return persist_failed(&error);
    if (!opened.is_some) return persist_ended(PERSIST_OK);
    persist_reader *made = malloc(sizeof *made);
    if (!made) abort();
    made->stream = opened.val;
    made->chunk = chunk();
    persist_snapshot_store_info_t info;
    persist_snapshot_store_method_reader_info(persist_snapshot_store_borrow_reader(made->stream), &info);
    persist_keep_info(&info, &made->info);
    *reader = made;
    return persist_ended(PERSIST_OK);
}

const persist_info *persist_reader_info(const persist_reader *reader) { return &reader->info; }

persist_code persist_reader_read(persist_reader *reader, uint64_t offset, void *bytes, size_t size, size_t *read) {
    *read = 0;
    while (*read < size) {
        size_t left = size - *read, now = left < reader->chunk ? left : reader->chunk;
        agent_list_u8_t piece;
        persist_snapshot_store_error_t error;
        persist_snapshot_store_borrow_reader_t stream = persist_snapshot_store_borrow_reader(reader->stream);
        if (!persist_snapshot_store_method_reader_read(stream, offset + *read, (uint32_t)now, &piece, &error))
            return persist_failed(&error);
        if (!piece.len) break;
        memcpy((uint8_t *)bytes + *read, piece.ptr, piece.len);
        *read += piece.len;
        agent_list_u8_free(&piece);
    }
    return persist_ended(PERSIST_OK);
}

void persist_reader_close(persist_reader *reader) {
    if (!reader) return;
    persist_snapshot_store_reader_drop_own(reader->stream);
    persist_info_free(&reader->info);
    free(reader);
}
