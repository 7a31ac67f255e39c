/*
 * Tests of an agent without WebAssembly, against a store in memory with the rules of a host. What it lacks is a disk,
 * compression and pruning. Compile the agent, its tests, the sources in src and
 * testing/persist_testing.c with the compiler of this machine:
 *
 *     int main(void) {
 *         persist_test_run(1, (char *[]){"buy milk"}, NULL);
 *         char *answer;
 *         assert(persist_test_run(0, NULL, &answer) == 0);
 *         assert(!strcmp(answer, "buy milk"));
 *     }
 */
#ifndef PERSIST_TESTING_H
#define PERSIST_TESTING_H

#include <persist.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Runs the agent once, and returns what persist_agent returned. `answer` is freed by the caller, and may be NULL. */
int persist_test_run(int argc, char **argv, char **answer);
/* Forgets all that was saved, and takes back the two below. */
void persist_test_reset(void);
/* Has the host answer and enforce these limits. */
void persist_test_set_limits(persist_guest_limits limits);
/* Makes the next call fail with a code, and change nothing. Calls of a reader or a writer count. */
void persist_test_fail_next(persist_code code);

#ifdef __cplusplus
}
#endif

#endif
