// The libraries of the payload. zlib is always there; install.sh says by WITH_ZSTD and WITH_ZFP which of the others are.
#include "payload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#ifdef WITH_ZSTD
#include <zstd.h>
#endif
#ifdef WITH_ZFP
#include <zfp.h>
#endif

static uint8_t *deflate_all(const uint8_t *input, size_t size, int level, size_t *output_size) {
	uLongf bytes = compressBound(size);
	uint8_t *output = malloc(bytes);
	if (output && compress2(output, &bytes, input, size, level) != Z_OK) {
		free(output);
		return NULL;
	}
	*output_size = bytes;
	return output;
}

#ifdef WITH_ZSTD
static uint8_t *zstd_all(const uint8_t *input, size_t size, int level, size_t *output_size) {
	size_t bytes = ZSTD_compressBound(size);
	uint8_t *output = malloc(bytes);
	ZSTD_CCtx *context = ZSTD_createCCtx();
	if (output && context) {
		// The checksum that the zstd command and bagpress write.
		ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level);
		ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
		bytes = ZSTD_compress2(context, output, bytes, input, size);
	}
	if (!output || !context || ZSTD_isError(bytes)) {
		free(output);
		output = NULL;
	}
	ZSTD_freeCCtx(context);
	*output_size = bytes;
	return output;
}
#endif

#ifdef WITH_ZFP
static zfp_field *new_field(const uint8_t *input, const struct payload_grid *grid) {
	static const zfp_type types[] = {zfp_type_int32, zfp_type_int64, zfp_type_float, zfp_type_double};
	zfp_type type = types[grid->scalar];
	size_t extents[4]; // zfp wants the fastest dimension first
	for (int d = 0; d < grid->dimensions; d++) extents[d] = grid->extents[grid->dimensions - 1 - d];
	void *values = (void *)(uintptr_t)input; // it reads them only
	switch (grid->dimensions) {
	case 1: return zfp_field_1d(values, type, extents[0]);
	case 2: return zfp_field_2d(values, type, extents[0], extents[1]);
	case 3: return zfp_field_3d(values, type, extents[0], extents[1], extents[2]);
	default: return zfp_field_4d(values, type, extents[0], extents[1], extents[2], extents[3]);
	}
}

static void set_mode(zfp_stream *stream, const zfp_field *field, const struct payload_codec *codec) {
	switch (codec->mode) {
	case PAYLOAD_REVERSIBLE: zfp_stream_set_reversible(stream); break;
	case PAYLOAD_ACCURACY: zfp_stream_set_accuracy(stream, codec->bound); break;
	case PAYLOAD_PRECISION: zfp_stream_set_precision(stream, (uint)codec->bound); break;
	case PAYLOAD_RATE:
		zfp_stream_set_rate(stream, codec->bound, zfp_field_type(field), zfp_field_dimensionality(field), zfp_false);
		break;
	}
}

static uint8_t *zfp_all(const uint8_t *input, size_t size, const struct payload_codec *codec, size_t *output_size) {
	zfp_field *field = new_field(input, &codec->grid);
	zfp_stream *stream = zfp_stream_open(NULL);
	uint8_t *output = NULL;
	*output_size = 0;
	if (field && stream && zfp_field_size_bytes(field) == size) {
		set_mode(stream, field, codec);
		size_t bytes = zfp_stream_maximum_size(stream, field);
		output = malloc(bytes);
		bitstream *bits = output ? stream_open(output, bytes) : NULL;
		if (bits) {
			zfp_stream_set_bit_stream(stream, bits);
			zfp_stream_rewind(stream);
			if (zfp_write_header(stream, field, ZFP_HEADER_FULL)) *output_size = zfp_compress(stream, field);
			stream_close(bits);
		}
	}
	zfp_stream_close(stream);
	zfp_field_free(field);
	if (*output_size) return output;
	free(output);
	return NULL;
}
#endif

uint8_t *payload_compress(const uint8_t *input, size_t size, const struct payload_codec *codec, size_t *output_size) {
	switch (codec->format) {
	case PAYLOAD_ZLIB: return deflate_all(input, size, codec->level, output_size);
#ifdef WITH_ZSTD
	case PAYLOAD_ZSTD: return zstd_all(input, size, codec->level, output_size);
#endif
#ifdef WITH_ZFP
	case PAYLOAD_ZFP: return zfp_all(input, size, codec, output_size);
#endif
	default: return NULL;
	}
}

int payload_print_version(const struct payload_codec *codec) {
	switch (codec->format) {
	case PAYLOAD_ZLIB: printf("zlib %s\n", zlibVersion()); return 0;
#ifdef WITH_ZSTD
	case PAYLOAD_ZSTD: printf("libzstd %s\n", ZSTD_versionString()); return 0;
#endif
#ifdef WITH_ZFP
	case PAYLOAD_ZFP: printf("lib%.*s\n", (int)strcspn(zfp_version_string, "("), zfp_version_string); return 0;
#endif
	default: return -1;
	}
}

static int parse_level(const char *text, int min, int max, int *level) {
	char *end;
	long number = strtol(text, &end, 10);
	*level = (int)number;
	return end == text || *end || number < min || number > max ? -1 : 0;
}

// What follows `zfp:`: a mode, a comma, type and shape.
static int parse_mode(const char *text, struct payload_codec *codec) {
	static const char *const modes[] = {"reversible", "accuracy=", "precision=", "rate="};
	for (int mode = 0; mode < 4; mode++) {
		size_t length = strlen(modes[mode]);
		if (strncmp(text, modes[mode], length) != 0) continue;
		codec->mode = (enum payload_mode)mode;
		char *end = (char *)(uintptr_t)text + length;
		if (mode != PAYLOAD_REVERSIBLE) codec->bound = strtod(text + length, &end);
		return *end == ',' ? payload_parse_grid(end + 1, &codec->grid) : -1;
	}
	return -1;
}

int payload_parse_codec(const char *text, struct payload_codec *codec) {
	*codec = (struct payload_codec){0};
	if (strncmp(text, "zlib:", 5) == 0) return codec->format = PAYLOAD_ZLIB, parse_level(text + 5, 0, 9, &codec->level);
	if (strncmp(text, "zstd:", 5) == 0) return codec->format = PAYLOAD_ZSTD, parse_level(text + 5, 1, 19, &codec->level);
	if (strncmp(text, "zfp:", 4) == 0) return codec->format = PAYLOAD_ZFP, parse_mode(text + 4, codec);
	return -1;
}
