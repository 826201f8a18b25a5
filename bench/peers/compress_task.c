// One task as a program: what Work Queue and xargs start for each task.
//
//   compress_task INDEX BYTES LEVEL DATA KEY OUTPUT STATS
#include "payload.h"

#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
	perror(what);
	return 1;
}

int main(int count, char **arguments) {
	if (count != 8) {
		fprintf(stderr, "usage: compress_task INDEX BYTES LEVEL DATA KEY OUTPUT STATS\n");
		return 2;
	}
	double began = payload_now_ms();
	struct payload_stats stats = {.index = (uint32_t)payload_number("INDEX", arguments[1], 0, UINT32_MAX)};
	size_t size = payload_number("BYTES", arguments[2], 0, (uint64_t)1 << 32);
	int level = (int)payload_number("LEVEL", arguments[3], 0, 9);
	enum payload_kind kind;
	struct payload_key key;
	if (payload_parse_kind(arguments[4], &kind) || payload_parse_key(arguments[5], &key)) {
		fprintf(stderr, "error: DATA is random, text or zeros, and KEY is 64 hexadecimal digits\n");
		return 2;
	}
	uint8_t *input = malloc(size + 1); // malloc(0) may be NULL
	if (!input) return failed("input");
	payload_generate(kind, &key, stats.index, input, size);
	double generated = payload_now_ms();
	uint8_t *output = payload_compress(input, size, level, &stats.output_bytes);
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
