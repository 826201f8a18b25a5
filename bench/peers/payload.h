// What every peer's task does: generate the input of a task of docs/generator.md, and compress it with zlib.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum payload_kind { PAYLOAD_RANDOM, PAYLOAD_TEXT, PAYLOAD_ZEROS };

struct payload_key {
	uint8_t bytes[32];
};

// Writes the first `size` bytes of a task's input. Total: no failure is possible.
void payload_generate(enum payload_kind kind, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size);

// Compresses to the zlib format at a level from 0 to 9. The caller frees the result; NULL without memory.
uint8_t *payload_compress(const uint8_t *input, size_t size, int level, size_t *output_size);

// Both return 0, or -1 for what is neither random, text nor zeros, and for what is not 64 hexadecimal digits.
int payload_parse_kind(const char *text, enum payload_kind *kind);
int payload_parse_key(const char *text, struct payload_key *key);

// Milliseconds of the monotonic clock.
double payload_now_ms(void);

// A number from `min` to `max` in decimal; prints what is wrong with `name` and ends the program otherwise.
uint64_t payload_number(const char *name, const char *text, uint64_t min, uint64_t max);

// What a task was and took, as stats_N.json has it.
struct payload_stats {
	uint32_t index;
	size_t input_bytes, output_bytes;
	double generate_ms, compress_ms, total_ms;
};

// Writes all of a buffer, or one line of stats, to a new or emptied file. Return 0, or -1 with errno.
int payload_write(const char *path, const uint8_t *bytes, size_t size);
int payload_write_stats(const char *path, const struct payload_stats *stats);
