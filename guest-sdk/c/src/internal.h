/* What the files of this library share. The agent sees none of it. */
#ifndef PERSIST_INTERNAL_H
#define PERSIST_INTERNAL_H

#include "../bindings/agent.h"
#include <persist.h>

/* Keeps the error, frees it, and says its code. */
persist_code persist_failed(persist_snapshot_store_error_t *error);
persist_code persist_invalid(const char *rule);
persist_code persist_too_large(uint64_t size);
/* The function of an update did not want its change. */
persist_code persist_cancelled(void);

/* Notes how a call ended, and says it. */
persist_code persist_ended(persist_code code);

/* Why the agent fails, where it does not say so itself: what the last call says, if that failed. */
const char *persist_reason(void);

/* Bytes that were answered, and those behind `from` taken back, with a zero byte after them. */
size_t persist_answered(void);
char *persist_take_back(size_t from, size_t *size);

/* Forget the answer of a run, and the limits of the host. Only tests run more than once in a process. */
void persist_forget_run(void);
void persist_forget_limits(void);

/* A copy with a zero byte after it. */
char *persist_copy(const void *bytes, size_t size);

/* How many of the bytes are UTF-8 from the beginning. The host ends an agent that calls something else a text. */
size_t persist_utf8(const uint8_t *bytes, size_t size);

/* A text as the contract has it. It borrows. */
agent_string_t persist_borrow(const char *text);
/* PERSIST_INVALID where the expectation is none of the contract's. */
persist_code persist_raw_expect(persist_expect expect, persist_snapshot_store_expect_t *raw);

/* Options as the contract has them; the labels are to be freed. PERSIST_INVALID where a text or an expectation is none. */
persist_code persist_raw_options(const char *name, const persist_options *options, persist_snapshot_store_save_options_t *raw);

/* Copies what is known of a version if the caller asks for it, and frees the original. */
void persist_keep_info(persist_snapshot_store_info_t *raw, persist_info *info);

#endif
