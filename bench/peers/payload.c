#include "payload.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "vocabulary.h" // made from codec/src/vocabulary.txt: const char *const vocabulary[]

// ChaCha with 8 rounds (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), as docs/generator.md lays it out.
enum { BLOCK_BYTES = 64, ROUNDS = 8, WORDS = sizeof vocabulary / sizeof *vocabulary, WORDS_A_LINE = 12 };

static uint32_t rotate(uint32_t word, int by) {
	return word << by | word >> (32 - by);
}

static void quarter(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
	*a += *b, *d = rotate(*d ^ *a, 16);
	*c += *d, *b = rotate(*b ^ *c, 12);
	*a += *b, *d = rotate(*d ^ *a, 8);
	*c += *d, *b = rotate(*b ^ *c, 7);
}

static void keystream_block(const struct payload_key *key, uint32_t index, uint64_t counter, uint8_t block[BLOCK_BYTES]) {
	uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];
	for (int i = 0; i < 8; i++) {
		const uint8_t *from = key->bytes + 4 * i;
		start[4 + i] = (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
	}
	start[12] = (uint32_t)counter, start[13] = (uint32_t)(counter >> 32), start[14] = index;
	memcpy(x, start, sizeof x);
	for (int round = 0; round < ROUNDS; round += 2) {
		for (int i = 0; i < 4; i++) quarter(x + i, x + 4 + i, x + 8 + i, x + 12 + i);
		for (int i = 0; i < 4; i++) quarter(x + i, x + 4 + (i + 1) % 4, x + 8 + (i + 2) % 4, x + 12 + (i + 3) % 4);
	}
	for (int i = 0; i < 16; i++) {
		uint32_t word = x[i] + start[i];
		for (int byte = 0; byte < 4; byte++) block[4 * i + byte] = (uint8_t)(word >> 8 * byte);
	}
}

static void generate_random(const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	uint8_t block[BLOCK_BYTES];
	for (size_t at = 0; at < size; at += BLOCK_BYTES) {
		size_t part = size - at < BLOCK_BYTES ? size - at : BLOCK_BYTES;
		keystream_block(key, index, at / BLOCK_BYTES, block);
		memcpy(buffer + at, block, part);
	}
}

static void generate_text(const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	uint8_t block[BLOCK_BYTES];
	uint64_t words = 0;
	for (size_t at = 0; at < size; words++) {
		size_t used = words * 2 % BLOCK_BYTES;
		if (used == 0) keystream_block(key, index, words * 2 / BLOCK_BYTES, block);
		const char *word = vocabulary[(block[used] * block[used + 1]) / 256];
		while (*word && at < size) buffer[at++] = (uint8_t)*word++;
		if (at < size) buffer[at++] = (words + 1) % WORDS_A_LINE == 0 ? '\n' : ' ';
	}
}

_Static_assert(WORDS == 255, "the vocabulary of docs/generator.md");

void payload_generate(enum payload_kind kind, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	switch (kind) {
	case PAYLOAD_RANDOM: generate_random(key, index, buffer, size); break;
	case PAYLOAD_TEXT: generate_text(key, index, buffer, size); break;
	case PAYLOAD_ZEROS: memset(buffer, 0, size); break;
	}
}

uint8_t *payload_compress(const uint8_t *input, size_t size, int level, size_t *output_size) {
	uLongf bytes = compressBound(size);
	uint8_t *output = malloc(bytes);
	if (output && compress2(output, &bytes, input, size, level) != Z_OK) {
		free(output);
		return NULL;
	}
	*output_size = bytes;
	return output;
}

int payload_parse_kind(const char *text, enum payload_kind *kind) {
	static const char *const names[] = {"random", "text", "zeros"};
	for (int i = 0; i < 3; i++) {
		if (strcmp(text, names[i]) == 0) {
			*kind = (enum payload_kind)i;
			return 0;
		}
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
