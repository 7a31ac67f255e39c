/* As much of JSON as a memory is: {"turns":[{"speaker":"…","text":"…"}, …]}, where the speaker may be missing. Anything else is
   of another program, or of a later agent that knows more, and is refused. */
#define _GNU_SOURCE
#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_string(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') fprintf(out, "\\%c", byte);
        else if (byte < 0x20) fprintf(out, "\\u%04x", byte);
        else fputc(byte, out);
    }
    fputc('"', out);
}

char *memory_to_json(const memory *memory) {
    char *json;
    size_t size;
    FILE *out = open_memstream(&json, &size);
    if (!out) abort();
    fputs("{\"turns\":[", out);
    for (size_t i = 0; i < memory->count; i++) {
        fputs(i ? ",{" : "{", out);
        if (memory->turns[i].speaker) {
            fputs("\"speaker\":", out);
            put_string(out, memory->turns[i].speaker);
            fputc(',', out);
        }
        fputs("\"text\":", out);
        put_string(out, memory->turns[i].text);
        fputc('}', out);
    }
    fputs("]}", out);
    fclose(out);
    return json;
}

/* What is left to read. A zero byte is after the last one. */
typedef struct input {
    const char *at, *end;
} input;

static int next_is(input *in, char wanted) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at) && *in->at) in->at++;
    if (in->at == in->end || *in->at != wanted) return 0;
    in->at++;
    return 1;
}

/* The number of four hexadecimal digits, or -1. */
static long hex4(input *in) {
    long value = 0;
    if (in->end - in->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdefABCDEF", *digit = strchr(digits, *in->at);
        if (!digit || !*in->at) return -1;
        long number = digit - digits;
        value = 16 * value + (number < 16 ? number : number - 6);
        in->at++;
    }
    return value;
}

static char *put_utf8(char *to, long code) {
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    return to;
}

/* The character of an escape, after its backslash, or -1. A text of C's holds no zero byte. */
static long escaped(input *in) {
    if (in->at == in->end) return -1;
    const char *plain = "\"\"\\\\//b\bf\fn\nr\rt\t", *found;
    char kind = *in->at++;
    for (found = plain; *found; found += 2)
        if (*found == kind) return found[1];
    if (kind != 'u') return -1;
    long code = hex4(in);
    if (code < 0xd800 || code > 0xdfff) return code ? code : -1;
    if (code > 0xdbff || in->end - in->at < 2 || in->at[0] != '\\' || in->at[1] != 'u') return -1;
    in->at += 2;
    long low = hex4(in);
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

static char *string(input *in) {
    if (!next_is(in, '"')) return NULL;
    /* An escape is longer than what it stands for. */
    char *text = malloc((size_t)(in->end - in->at) + 1), *to = text;
    if (!text) abort();
    while (in->at < in->end && *in->at != '"') {
        unsigned char byte = (unsigned char)*in->at++;
        long code = byte == '\\' ? escaped(in) : byte;
        if (code < 0 || (byte != '\\' && byte < 0x20)) {
            free(text);
            return NULL;
        }
        if (byte == '\\') to = put_utf8(to, code);
        else *to++ = (char)byte;
    }
    *to = 0;
    if (in->at < in->end) {
        in->at++;
        return text;
    }
    free(text);
    return NULL;
}

static int read_turn(input *in, turn *turn) {
    *turn = (struct turn){0};
    if (!next_is(in, '{')) return 1;
    do {
        char *key = string(in);
        char **field = !key ? NULL : !strcmp(key, "speaker") ? &turn->speaker : !strcmp(key, "text") ? &turn->text : NULL;
        free(key);
        if (!field || *field || !next_is(in, ':') || !(*field = string(in))) return 1;
    } while (next_is(in, ','));
    return !turn->text || !next_is(in, '}');
}

int memory_from_json(const char *json, size_t size, memory *memory) {
    input in = {json, json + size};
    char *key = next_is(&in, '{') ? string(&in) : NULL;
    int wrong = !key || strcmp(key, "turns") || !next_is(&in, ':') || !next_is(&in, '[');
    free(key);
    if (wrong) return 1;
    if (!next_is(&in, ']')) {
        do {
            memory->turns = realloc(memory->turns, (memory->count + 1) * sizeof *memory->turns);
            if (!memory->turns) abort();
            if (read_turn(&in, &memory->turns[memory->count++])) return 1;
        } while (next_is(&in, ','));
        if (!next_is(&in, ']')) return 1;
    }
    if (!next_is(&in, '}')) return 1;
    next_is(&in, 0);
    return in.at != in.end;
}
