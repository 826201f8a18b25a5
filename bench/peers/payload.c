#include "field.h"
#include "keystream.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vocabulary.h" // made from codec/src/vocabulary.txt: const char *const vocabulary[]

enum { BLOCK_BYTES = KEYSTREAM_BLOCK_BYTES, WORDS = sizeof vocabulary / sizeof *vocabulary, WORDS_A_LINE = 12, SLOT_BYTES = 16 };

static void generate_random(const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	uint8_t block[BLOCK_BYTES];
	for (size_t at = 0; at < size; at += BLOCK_BYTES) {
		size_t part = size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES;
		keystream_block(key, index, at / BLOCK_BYTES, block);
		memcpy(buffer + at, block, part);
	}
}

// A word and the space after it.
struct slot {
	uint8_t bytes[SLOT_BYTES];
	size_t used;
};

static void generate_text(const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	struct slot slots[WORDS] = {0};
	for (int word = 0; word < WORDS; word++) {
		slots[word].used = strlen(vocabulary[word]) + 1;
		memcpy(slots[word].bytes, vocabulary[word], slots[word].used - 1);
		slots[word].bytes[slots[word].used - 1] = ' ';
	}
	uint8_t block[BLOCK_BYTES];
	uint64_t words = 0;
	for (size_t at = 0; at < size; words++) {
		size_t used = words * 2 % BLOCK_BYTES, left = size - at;
		if (used == 0) keystream_block(key, index, words * 2 / BLOCK_BYTES, block);
		const struct slot *slot = &slots[(block[used] * block[used + 1]) / 256];
		// A whole slot is fast to copy, and the next word overwrites what is too much.
		memcpy(buffer + at, slot->bytes, left < SLOT_BYTES ? left : SLOT_BYTES);
		at += slot->used;
		if (at <= size && (words + 1) % WORDS_A_LINE == 0) buffer[at - 1] = '\n';
	}
}

_Static_assert(WORDS == 255, "the vocabulary of docs/generator.md");

void payload_generate(const struct payload_data *data, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	switch (data->kind) {
	case PAYLOAD_RANDOM: generate_random(key, index, buffer, size); break;
	case PAYLOAD_TEXT: generate_text(key, index, buffer, size); break;
	case PAYLOAD_ZEROS: memset(buffer, 0, size); break;
	default: field_generate(data, key, index, buffer, size);
	}
}

int payload_generate_named(const char *text, const uint8_t key[32], uint32_t index, uint8_t *buffer, size_t size) {
	struct payload_data data;
	struct payload_key copied;
	if (payload_parse_data(text, &data)) return -1;
	memcpy(copied.bytes, key, sizeof copied.bytes);
	payload_generate(&data, &copied, index, buffer, size);
	return 0;
}

int payload_parse_grid(const char *text, struct payload_grid *grid) {
	static const char *const scalars[] = {"i32", "i64", "f32", "f64"};
	for (int scalar = 0; scalar < 4; scalar++) {
		if (strncmp(text, scalars[scalar], 3) != 0 || text[3] != ',') continue;
		*grid = (struct payload_grid){.scalar = (enum payload_scalar)scalar};
		for (const char *at = text + 4; grid->dimensions < 4; at++) {
			char *end;
			grid->extents[grid->dimensions++] = strtoull(at, &end, 10);
			if (end == at || grid->extents[grid->dimensions - 1] == 0) return -1;
			if (!*end) return 0;
			if (*end != 'x') return -1;
			at = end;
		}
	}
	return -1;
}

int payload_parse_data(const char *text, struct payload_data *data) {
	static const char *const names[] = {"random", "text", "zeros", "field", "field-rough", "field-constant"};
	size_t length = strcspn(text, ":");
	for (int i = 0; i < 6; i++) {
		if (strlen(names[i]) != length || strncmp(text, names[i], length) != 0) continue;
		*data = (struct payload_data){.kind = (enum payload_kind)i};
		if (i < PAYLOAD_FIELD) return text[length] ? -1 : 0;
		return text[length] ? payload_parse_grid(text + length + 1, &data->grid) : -1;
	}
	return -1;
}

int payload_parse_key(const char *text, struct payload_key *key) {
	if (strlen(text) != 2 * sizeof key->bytes || strspn(text, "0123456789abcdef") != 2 * sizeof key->bytes) return -1;
	for (size_t i = 0; i < sizeof key->bytes; i++) {
		char digits[3] = {text[2 * i], text[2 * i + 1], 0};
		key->bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return 0;
}

double payload_now_ms(void) {
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

uint64_t payload_number(const char *name, const char *text, uint64_t min, uint64_t max) {
	char *end;
	unsigned long long number = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || number < min || number > max) {
		fprintf(stderr, "error: %s is not a number from %llu to %llu: %s\n", name, (unsigned long long)min,
		        (unsigned long long)max, text);
		exit(2);
	}
	return number;
}

void payload_arguments(const char *data, const char *key, const char *codec, struct payload_arguments *parsed) {
	if (payload_parse_data(data, &parsed->data) || payload_parse_key(key, &parsed->key)) {
		fprintf(stderr, "error: DATA is random, text, zeros or a field such as field:f32,8x256x256, and KEY is 64 hexadecimal digits\n");
		exit(2);
	}
	if (payload_parse_codec(codec, &parsed->codec)) {
		fprintf(stderr, "error: CODEC is zlib:0 to zlib:9, zstd:1 to zstd:19, or such as zfp:accuracy=1e-3,f32,8x256x256, and not %s\n", codec);
		exit(2);
	}
}

int payload_write(const char *path, const uint8_t *bytes, size_t size) {
	FILE *file = fopen(path, "w");
	if (!file) return -1;
	bool written = fwrite(bytes, 1, size, file) == size;
	return fclose(file) == 0 && written ? 0 : -1;
}

int payload_write_stats(const char *path, const struct payload_stats *stats) {
	FILE *file = fopen(path, "w");
	if (!file) return -1;
	bool written = fprintf(file,
	                       "{\"index\":%u,\"input_bytes\":%zu,\"output_bytes\":%zu,"
	                       "\"generate_ms\":%.3f,\"compress_ms\":%.3f,\"total_ms\":%.3f}\n",
	                       stats->index, stats->input_bytes, stats->output_bytes, stats->generate_ms, stats->compress_ms,
	                       stats->total_ms) > 0;
	return fclose(file) == 0 && written ? 0 : -1;
}
