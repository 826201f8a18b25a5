// One task as a program: what Work Queue and xargs start for each task.
//
//   compress_task INDEX BYTES CODEC DATA KEY OUTPUT STATS
//   compress_task version CODEC
#include "payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what) {
	perror(what);
	return 1;
}

// The library that a codec needs; 1 if it was not there when this was built.
static int version(const char *text) {
	struct payload_codec codec;
	return payload_parse_codec(text, &codec) || payload_print_version(&codec) ? 1 : 0;
}

int main(int count, char **arguments) {
	if (count == 3 && strcmp(arguments[1], "version") == 0) return version(arguments[2]);
	if (count != 8) {
		fprintf(stderr, "usage: compress_task INDEX BYTES CODEC DATA KEY OUTPUT STATS\n");
		return 2;
	}
	double began = payload_now_ms();
	struct payload_stats stats = {.index = (uint32_t)payload_number("INDEX", arguments[1], 0, UINT32_MAX)};
	size_t size = payload_number("BYTES", arguments[2], 0, (uint64_t)1 << 32);
	struct payload_arguments of;
	payload_arguments(arguments[4], arguments[5], arguments[3], &of);
	uint8_t *input = malloc(size + 1); // malloc(0) may be NULL
	if (!input) return failed("input");
	payload_generate(&of.data, &of.key, stats.index, input, size);
	double generated = payload_now_ms();
	uint8_t *output = payload_compress(input, size, &of.codec, &stats.output_bytes);
	if (!output) return failed("compress");
	double compressed = payload_now_ms();
	if (payload_write(arguments[6], output, stats.output_bytes)) return failed(arguments[6]);
	stats.input_bytes = size;
	stats.generate_ms = generated - began, stats.compress_ms = compressed - generated;
	stats.total_ms = payload_now_ms() - began;
	if (payload_write_stats(arguments[7], &stats)) return failed(arguments[7]);
	free(output);
	free(input);
	return 0;
}
