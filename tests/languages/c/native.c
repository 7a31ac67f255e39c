/* Runs scenarios natively, against the double: one a line, its arguments separated by U+001F. */
#ifndef __wasm__
#define _GNU_SOURCE
#include <persist_testing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0) {
        line[strcspn(line, "\n")] = 0;
        char *args[64], *rest = line, *answer;
        int count = 0;
        while (rest && count < 64) args[count++] = strsep(&rest, "\x1f");
        printf("%s ", persist_test_run(count, args, &answer) ? "error" : "ok");
        for (const char *at = answer; *at; at++) putchar(*at == '\n' ? '\x1e' : *at);
        putchar('\n');
        free(answer);
    }
    free(line);
    return 0;
}
#endif
