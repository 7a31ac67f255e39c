/*
 * One agent for the tests of the C SDK: its first argument picks a scenario, and the words are those of tests/guest.
 * Where a scenario makes up a state, the byte at offset `i` is `byte_at(i)`.
 */
#define _GNU_SOURCE
#include <persist.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

typedef int scenario(int argc, char **argv);

/* Answers the error as the contract calls it, with its details. */
static int failed(void) {
    const persist_error *error = persist_last_error();
    persist_answer("%s", persist_code_name(error->code));
    switch (error->code) {
    case PERSIST_CONFLICT:
        if (error->version) persist_answer(" %" PRIu64, error->version);
        else persist_answer(" none");
        break;
    case PERSIST_UNKNOWN_OUTCOME: persist_answer(" %" PRIu64, error->version); break;
    case PERSIST_TOO_LARGE: persist_answer(" %" PRIu64, error->number); break;
    case PERSIST_QUOTA_EXCEEDED: persist_answer(" %s %" PRIu64, error->what, error->number); break;
    case PERSIST_DENIED: persist_answer(" %s", error->what); break;
    case PERSIST_NOT_FOUND:
    case PERSIST_TIMEOUT: break;
    default: persist_answer(" %s", error->what);
    }
    return 1;
}

static int usage(void) {
    persist_answer("usage: a scenario of tests/languages/c, and its arguments");
    return 1;
}

static int version(persist_code code, persist_info *info) {
    if (code) return failed();
    persist_answer("version %" PRIu64, info->version);
    persist_info_free(info);
    return 0;
}

static persist_expect expect(const char *text) {
    if (!strcmp(text, "any")) return persist_any();
    if (!strcmp(text, "absent")) return persist_absent();
    return persist_head(strtoull(text, NULL, 10));
}

static uint8_t byte_at(uint64_t i) { return (uint8_t)((i + 1) * 0x9E3779B97F4A7C15u >> 40); }

static uint8_t *made_up(uint64_t from, size_t size) {
    uint8_t *bytes = malloc(size + 1);
    if (!bytes) abort();
    for (size_t i = 0; i < size; i++) bytes[i] = byte_at(from + i);
    return bytes;
}

static void describe(const persist_info *info) {
    persist_answer("version %" PRIu64 " parent ", info->version);
    if (info->parent) persist_answer("%" PRIu64, info->parent);
    else persist_answer("none");
    persist_answer(" %s size %" PRIu64 " sha256 %s media-type %s labels ", info->deleted ? "deleted" : "saved", info->size,
                   info->sha256, info->media_type ? info->media_type : "none");
    for (size_t i = 0; i < info->label_count; i++)
        persist_answer("%s%s=%s", i ? "," : "", info->labels[i].key, info->labels[i].value);
    persist_answer("%s name %s", info->label_count ? "" : "none", info->name);
}

static int save(int argc, char **argv) {
    if (argc != 2) return usage();
    persist_info info;
    return version(persist_save(argv[0], argv[1], strlen(argv[1]), NULL, &info), &info);
}

static int save_expect(int argc, char **argv) {
    if (argc != 3) return usage();
    persist_options options = {.expect = expect(argv[1])};
    persist_info info;
    return version(persist_save(argv[0], argv[2], strlen(argv[2]), &options, &info), &info);
}

static int save_labels(int argc, char **argv) {
    if (argc < 3) return usage();
    persist_label labels[16];
    persist_options options = {.media_type = strcmp(argv[2], "-") ? argv[2] : NULL, .labels = labels};
    for (int i = 3; i < argc && i < 19; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals) return usage();
        *equals = 0;
        labels[options.label_count++] = (persist_label){argv[i], equals + 1};
    }
    persist_info info;
    return version(persist_save(argv[0], argv[1], strlen(argv[1]), &options, &info), &info);
}

static int big_save(int argc, char **argv) {
    if (argc != 2) return usage();
    size_t size = strtoul(argv[1], NULL, 10);
    uint8_t *state = made_up(0, size);
    persist_info info;
    return version(persist_save(argv[0], state, size, NULL, &info), &info);
}

/* As big-save, without the time to make the bytes up. */
static int zeros_save(int argc, char **argv) {
    if (argc != 2) return usage();
    size_t size = strtoul(argv[1], NULL, 10);
    uint8_t *state = calloc(size + 1, 1);
    if (!state) abort();
    persist_info info;
    return version(persist_save(argv[0], state, size, NULL, &info), &info);
}

static int head(int argc, char **argv) {
    if (argc != 1) return usage();
    persist_expect expect;
    if (persist_head_of(argv[0], &expect)) return failed();
    if (expect.kind == PERSIST_EXPECT_ABSENT) persist_answer("absent");
    else persist_answer("%" PRIu64, expect.version);
    return 0;
}

static int save_at_head(int argc, char **argv) {
    if (argc != 2) return usage();
    persist_options options = {0};
    if (persist_head_of(argv[0], &options.expect)) return failed();
    persist_info info;
    return version(persist_save(argv[0], argv[1], strlen(argv[1]), &options, &info), &info);
}

/* How to change a list of words with spaces between: the item to add, and one that another run adds meanwhile. */
typedef struct addition {
    const char *name, *item, *beside;
} addition;

static char *joined(const persist_snapshot *words, const char *word) {
    char *text;
    const char *known = words->state ? (const char *)words->state : "";
    if (asprintf(&text, "%.*s%s%s", (int)words->size, known, words->size ? " " : "", word) < 0) abort();
    return text;
}

static persist_change add(persist_snapshot *words, void *context) {
    addition *addition = context;
    if (addition->beside) {
        char *beside = joined(words, addition->beside);
        if (persist_save(addition->name, beside, strlen(beside), NULL, NULL)) return PERSIST_CHANGE_CANCEL;
        free(beside);
        if (!strcmp(addition->beside, "once")) addition->beside = NULL;
    }
    if (!strcmp(addition->item, "throw")) {
        persist_answer("no luck");
        return PERSIST_CHANGE_CANCEL;
    }
    if (!strcmp(addition->item, "none")) return PERSIST_CHANGE_NONE;
    char *text = joined(words, addition->item);
    free(words->state);
    words->state = (uint8_t *)text;
    words->size = strlen(text);
    return PERSIST_CHANGE_SAVE;
}

static int update(int argc, char **argv) {
    if (argc < 2) return usage();
    addition addition = {argv[0], argv[1], argc > 2 ? argv[2] : NULL};
    persist_code code = persist_update(argv[0], add, &addition, NULL, NULL);
    if (code == PERSIST_OTHER) return 1;
    if (code) return failed();
    persist_snapshot loaded;
    if (persist_load(argv[0], 0, &loaded)) return failed();
    if (loaded.found) persist_answer_bytes(loaded.state, loaded.size);
    return 0;
}

/* The arguments of a conversation, and whether another run speaks meanwhile. */
typedef struct talk {
    char **argv;
    bool races;
} talk;

static int calls(int argc, char **argv);

/* Adds a text to the state, which has one a line. */
static void hear(persist_turn *turn, const char *text) {
    size_t size = strlen(text);
    turn->state = realloc(turn->state, turn->size + size + 2);
    if (!turn->state) abort();
    memcpy(turn->state + turn->size, text, size);
    turn->size += size;
    turn->state[turn->size++] = '\n';
    turn->state[turn->size] = 0;
}

/* A conversation whose words are `quick`, `throw` and `race`, and replies `again` and `throw`. */
static int talk_step(persist_turn *turn, void *context) {
    talk *talk = context;
    if (talk->races) {
        talk->races = false;
        char *other[] = {talk->argv[0], "other"};
        if (calls(2, other)) return 1;
    }
    char text[256] = "";
    if (turn->reply) strcpy(text, turn->reply);
    for (int i = 0; i < turn->argc; i++) strcat(strcat(text, i ? " " : ""), turn->argv[i]);
    if (!strcmp(text, "throw")) {
        persist_answer("no luck");
        return 1;
    }
    hear(turn, text);
    if (turn->reply ? !strcmp(text, "again") : strcmp(text, "quick")) {
        turn->call = turn->reply ? "tool" : "model";
        persist_answer("\"messages\":[");
        char *rest = strdup((char *)turn->state), *all = rest, *line;
        for (const char *between = ""; (line = strsep(&rest, "\n")) && rest; between = ",") {
            persist_answer("%s", between);
            persist_answer_json(line);
        }
        free(all);
        persist_answer("]");
    } else if (*text == '{') {
        persist_answer("%s", text);
    } else {
        int count = 0;
        for (size_t i = 0; i < turn->size; i++) count += turn->state[i] == '\n';
        persist_answer("%d %s", count, text);
    }
    return 0;
}

static int calls(int argc, char **argv) {
    if (argc < 1) return usage();
    talk talk = {argv, argc == 2 && !strcmp(argv[1], "race")};
    persist_code code = persist_run_calls(argv[0], argc - 1, argv + 1, talk_step, &talk);
    return code == PERSIST_OK ? 0 : code == PERSIST_OTHER ? 1 : failed();
}

/* Texts that no call carries. Each is to be refused as invalid. */
static int huge_texts(int argc, char **argv) {
    (void)argc, (void)argv;
    char *huge = calloc(18 * MIB + 1, 1);
    if (!huge) abort();
    memset(huge, 'n', 18 * MIB);
    persist_label label = {"a", huge};
    persist_options options = {.labels = &label, .label_count = 1};
    persist_options many = {.labels = &label, .label_count = MIB};
    persist_snapshot loaded;
    persist_code codes[] = {
        persist_load(huge, 0, &loaded),
        persist_save("k", "", 0, &options, NULL),
        persist_save("k", "", 0, &many, NULL),
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i] != PERSIST_INVALID) return usage();
    persist_answer("all refused");
    return 0;
}

static int load(int argc, char **argv) {
    if (argc < 1) return usage();
    persist_snapshot loaded;
    if (persist_load(argv[0], argc > 1 ? strtoull(argv[1], NULL, 10) : 0, &loaded)) return failed();
    if (!loaded.found) {
        persist_answer("none");
        return 0;
    }
    persist_answer("%" PRIu64 " ", loaded.info.version);
    persist_answer_bytes(loaded.state, loaded.size);
    persist_snapshot_free(&loaded);
    return 0;
}

static int stat(int argc, char **argv) {
    if (argc < 1) return usage();
    bool found;
    persist_info info;
    if (persist_stat(argv[0], argc > 1 ? strtoull(argv[1], NULL, 10) : 0, &found, &info)) return failed();
    if (found) describe(&info);
    else persist_answer("none");
    return 0;
}

static int history(int argc, char **argv) {
    if (argc < 1) return usage();
    persist_version before = 0;
    const char *between = "";
    for (;;) {
        persist_history_page page;
        if (persist_history(argv[0], before, 100, &page)) return failed();
        if (!page.count) return 0;
        for (size_t i = 0; i < page.count; i++) {
            persist_answer("%s", between);
            describe(&page.items[i]);
            between = "\n";
            before = page.items[i].version;
        }
        persist_history_free(&page);
    }
}

static int names(int argc, char **argv) {
    if (argc < 1) return usage();
    char *after = NULL;
    for (;;) {
        persist_names_page page;
        if (persist_names(argv[0], after, 100, &page)) return failed();
        if (!page.count) return 0;
        for (size_t i = 0; i < page.count; i++) persist_answer("%s%s", after || i ? "\n" : "", page.items[i]);
        free(after);
        after = strdup(page.items[page.count - 1]);
        persist_names_free(&page);
    }
}

static int delete(int argc, char **argv) {
    if (argc < 1) return usage();
    persist_info info;
    return version(persist_delete(argv[0], argc > 1 ? expect(argv[1]) : persist_any(), &info), &info);
}

static int restore(int argc, char **argv) {
    if (argc < 2) return usage();
    persist_expect wanted = argc > 2 ? expect(argv[2]) : persist_any();
    persist_info info;
    return version(persist_restore(argv[0], strtoull(argv[1], NULL, 10), wanted, &info), &info);
}

static int fork_(int argc, char **argv) {
    if (argc < 2) return usage();
    persist_version at = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    persist_info info;
    return version(persist_fork(argv[0], at, argv[1], persist_any(), &info), &info);
}

static int limits(int argc, char **argv) {
    (void)argc, (void)argv;
    persist_guest_limits limits = persist_limits();
    persist_answer("max-inline %" PRIu64 "\nmax-chunk %" PRIu32 "\nmax-state %" PRIu64 "\nmax-name %" PRIu32 "\nmax-page %" PRIu32,
                   limits.max_inline, limits.max_chunk, limits.max_state, limits.max_name, limits.max_page);
    return 0;
}

static int stream(int argc, char **argv) {
    if (argc != 3) return usage();
    uint64_t chunks = strtoull(argv[1], NULL, 10);
    size_t size = strtoul(argv[2], NULL, 10);
    persist_writer *writer;
    if (persist_writer_open(argv[0], NULL, &writer)) return failed();
    for (uint64_t chunk = 0; chunk < chunks; chunk++) {
        uint8_t *bytes = made_up(chunk * size, size);
        persist_code code = persist_writer_write(writer, bytes, size);
        free(bytes);
        if (code) {
            persist_writer_abort(writer);
            return failed();
        }
    }
    persist_info info;
    return version(persist_writer_finish(writer, &info), &info);
}

static int stream_mib(int argc, char **argv) {
    if (argc != 2) return usage();
    int count = atoi(argv[1]);
    uint8_t *piece = malloc(MIB);
    persist_writer *writer;
    if (!piece || persist_writer_open(argv[0], NULL, &writer)) return failed();
    for (size_t i = 0; i < MIB; i++) piece[i] = byte_at(i % 4096);
    for (int i = 0; i < count; i++) {
        piece[0] = (uint8_t)i;
        if (persist_writer_write(writer, piece, MIB)) return failed();
    }
    persist_info info;
    return version(persist_writer_finish(writer, &info), &info);
}

static int stream_expect(int argc, char **argv) {
    if (argc != 3) return usage();
    persist_options options = {.expect = expect(argv[1])};
    persist_writer *writer;
    if (persist_writer_open(argv[0], &options, &writer)) return failed();
    persist_writer_write(writer, argv[2], strlen(argv[2]));
    persist_info info;
    return version(persist_writer_finish(writer, &info), &info);
}

static int stream_beside_save(int argc, char **argv) {
    if (argc != 1) return usage();
    persist_writer *writer;
    if (persist_writer_open(argv[0], NULL, &writer)) return failed();
    if (persist_writer_write(writer, "late", 4) || persist_save(argv[0], "early", 5, NULL, NULL)) return failed();
    persist_info info;
    return version(persist_writer_finish(writer, &info), &info);
}

static int copy(int argc, char **argv) {
    if (argc != 2) return usage();
    uint8_t *piece = malloc(MIB);
    persist_reader *reader;
    persist_writer *writer;
    if (!piece || persist_reader_open(argv[0], 0, &reader)) return failed();
    if (!reader) {
        persist_answer("none");
        return 0;
    }
    if (persist_writer_open(argv[1], NULL, &writer)) return failed();
    size_t read;
    for (uint64_t at = 0;; at += read) {
        if (persist_reader_read(reader, at, piece, MIB, &read) || persist_writer_write(writer, piece, read)) return failed();
        if (!read) break;
    }
    persist_reader_close(reader);
    persist_info info;
    return version(persist_writer_finish(writer, &info), &info);
}

static int read_at(int argc, char **argv) {
    if (argc != 3) return usage();
    size_t size = strtoul(argv[2], NULL, 10), read;
    persist_reader *reader;
    uint8_t *bytes = malloc(size + 1);
    if (!bytes || persist_reader_open(argv[0], 0, &reader)) return failed();
    if (!reader) {
        persist_answer("none");
        return 0;
    }
    if (persist_reader_read(reader, strtoull(argv[1], NULL, 10), bytes, size, &read)) return failed();
    persist_answer_bytes(bytes, read);
    return 0;
}

/* Opens a writer, and has the host hold something of it. */
static persist_writer *half_written(const char *name) {
    persist_writer *writer;
    if (persist_writer_open(name, NULL, &writer)) return NULL;
    uint8_t *bytes = made_up(0, 2 * MIB);
    return persist_writer_write(writer, bytes, 2 * MIB) ? NULL : writer;
}

static int unfinished(int argc, char **argv) {
    persist_writer *writer = argc == 1 ? half_written(argv[0]) : NULL;
    if (!writer) return failed();
    persist_writer_abort(writer);
    persist_answer("unfinished");
    return 0;
}

static int leaked(int argc, char **argv) {
    if (argc != 1 || !half_written(argv[0])) return failed();
    persist_answer("leaked");
    return 0;
}

static int trap_mid_write(int argc, char **argv) {
    if (argc != 1 || !half_written(argv[0])) return failed();
    __builtin_trap();
}

static int many_writers(int argc, char **argv) {
    if (argc != 2) return usage();
    int count = atoi(argv[1]), opened = 0;
    persist_writer *writer;
    while (opened < count && !persist_writer_open(argv[0], NULL, &writer)) opened++;
    persist_answer("opened %d", opened);
    if (opened < count) {
        persist_answer(" ");
        failed();
    }
    return 0;
}

static int trap(int argc, char **argv) {
    (void)argc, (void)argv;
    __builtin_trap();
}

static int print(int argc, char **argv) {
    if (argc != 1) return usage();
    printf("out %s\n", argv[0]);
    fprintf(stderr, "err %s\n", argv[0]);
    persist_answer("printed");
    return 0;
}

static int error(int argc, char **argv) {
    if (argc != 1) return usage();
    persist_answer("%s", argv[0]);
    return 1;
}

static int echo(int argc, char **argv) {
    for (int i = 0; i < argc; i++) persist_answer("%s%s", i ? "\n" : "", argv[i]);
    return 0;
}

/* The failure of a call, as the SDK says it to people. */
static int load_uncaught(int argc, char **argv) {
    persist_snapshot loaded;
    if (argc != 1) return usage();
    return persist_load(argv[0], 99, &loaded) ? 1 : 0;
}

static int wasi(int argc, char **argv) {
    (void)argc, (void)argv;
    uint32_t random;
    if (getentropy(&random, sizeof random)) return 1;
    persist_answer("clock %lld random %08" PRIx32, (long long)time(NULL), random);
    return 0;
}

/* Fails for a reason of its own that it does not say, after an error that it went on from. */
static int fail_later(int argc, char **argv) {
    persist_snapshot loaded;
    if (argc != 1 || !persist_load("", 0, &loaded) || persist_save(argv[0], "x", 1, NULL, NULL)) return usage();
    return 1;
}

/* What is no expectation, wherever one is given. */
static int expect_nonsense(int argc, char **argv) {
    if (argc != 1) return usage();
    persist_expect nonsense = {.kind = 7};
    persist_options options = {.expect = nonsense};
    persist_writer *writer;
    persist_code codes[] = {
        persist_save(argv[0], "x", 1, &options, NULL), persist_writer_open(argv[0], &options, &writer),
        persist_delete(argv[0], nonsense, NULL), persist_restore(argv[0], 1, nonsense, NULL),
        persist_fork(argv[0], 0, "other", nonsense, NULL),
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        persist_answer("%s%s", i ? " " : "", persist_code_name(codes[i]));
    return 0;
}

static char known[4096] = "what the agent knows";

static int descend(int levels) {
    char frame[1024];
    memset(frame, 'X', sizeof frame);
    int below = levels ? descend(levels - 1) : 0;
    return below + (frame[levels % 1024] == 'X');
}

/* Saves static data after a recursion whose frames have 1 KiB. */
static int save_deep(int argc, char **argv) {
    if (argc != 2) return usage();
    int levels = descend(atoi(argv[1]));
    persist_info info;
    return levels ? version(persist_save(argv[0], known, strlen(known), NULL, &info), &info) : usage();
}

static const struct {
    const char *name;
    scenario *run;
} scenarios[] = {
    {"save", save}, {"save-expect", save_expect}, {"save-labels", save_labels}, {"big-save", big_save}, {"load", load},
    {"stat", stat}, {"history", history}, {"names", names}, {"delete", delete}, {"restore", restore}, {"fork", fork_},
    {"limits", limits}, {"stream", stream}, {"stream-mib", stream_mib}, {"stream-expect", stream_expect},
    {"stream-beside-save", stream_beside_save}, {"copy", copy}, {"read-at", read_at}, {"unfinished", unfinished},
    {"leaked", leaked}, {"trap-mid-write", trap_mid_write}, {"many-writers", many_writers}, {"trap", trap}, {"print", print},
    {"error", error}, {"echo", echo}, {"load-uncaught", load_uncaught}, {"wasi", wasi},
    {"zeros-save", zeros_save}, {"head", head}, {"save-at-head", save_at_head}, {"update", update},
    {"huge-texts", huge_texts}, {"save-deep", save_deep}, {"fail-later", fail_later}, {"expect-nonsense", expect_nonsense},
    {"calls", calls},
};

int persist_agent(int argc, char **argv) {
    if (argc < 1) return usage();
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
        if (!strcmp(scenarios[i].name, argv[0])) return scenarios[i].run(argc - 1, argv + 1);
    return usage();
}
