// What every peer's task does: generate the input of a task of docs/generator.md, and compress it with zlib, zstd or zfp.
#pragma once

#include <stddef.h>
#include <stdint.h>

enum payload_kind { PAYLOAD_RANDOM, PAYLOAD_TEXT, PAYLOAD_ZEROS, PAYLOAD_FIELD, PAYLOAD_FIELD_ROUGH, PAYLOAD_FIELD_CONSTANT };
enum payload_scalar { PAYLOAD_I32, PAYLOAD_I64, PAYLOAD_F32, PAYLOAD_F64 };

// Type and shape of an array, the slowest of 1 to 4 dimensions first.
struct payload_grid {
	enum payload_scalar scalar;
	int dimensions;
	uint64_t extents[4];
};

struct payload_data {
	enum payload_kind kind;
	struct payload_grid grid; // of the fields
};

struct payload_key {
	uint8_t bytes[32];
};

enum payload_format { PAYLOAD_ZLIB, PAYLOAD_ZSTD, PAYLOAD_ZFP };
enum payload_mode { PAYLOAD_REVERSIBLE, PAYLOAD_ACCURACY, PAYLOAD_PRECISION, PAYLOAD_RATE };

// A codec as bagpress writes it: zlib:6, zstd:3, zfp:accuracy=1e-3,f32,8x256x256.
struct payload_codec {
	enum payload_format format;
	int level;              // of zlib and zstd
	enum payload_mode mode; // of zfp, with its number
	double bound;
	struct payload_grid grid;
};

// Writes the first `size` bytes of a task's input. Total: no failure is possible.
void payload_generate(const struct payload_data *data, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size);

// The same for who has texts (Python). Returns 0, or -1 for what is no kind of data.
int payload_generate_named(const char *data, const uint8_t key[32], uint32_t index, uint8_t *buffer, size_t size);

// Compresses to one stream of the codec's format. The caller frees the result; NULL if the library refuses, or without memory.
uint8_t *payload_compress(const uint8_t *input, size_t size, const struct payload_codec *codec, size_t *output_size);

// Prints name and version of the library of a codec. Returns 0, or -1 if it was not there when this was built.
int payload_print_version(const struct payload_codec *codec);

// All return 0, or -1 for what they do not know.
int payload_parse_grid(const char *text, struct payload_grid *grid);
int payload_parse_data(const char *text, struct payload_data *data);
int payload_parse_key(const char *text, struct payload_key *key);
int payload_parse_codec(const char *text, struct payload_codec *codec);

// What all programs are told; prints what is wrong and ends the program otherwise.
struct payload_arguments {
	struct payload_data data;
	struct payload_key key;
	struct payload_codec codec;
};
void payload_arguments(const char *data, const char *key, const char *codec, struct payload_arguments *parsed);

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
