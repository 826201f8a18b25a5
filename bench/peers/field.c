#include "field.h"

#include "keystream.h"

#include <math.h>
#include <string.h>

// Compiled with -ffp-contract=off: every operation is rounded once.

enum { WAVES = 6, DIMENSIONS_MAX = 4 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are copied as they are");

struct wave {
	uint32_t phase, steps[DIMENSIONS_MAX];
	uint32_t at; // the phase of the next value
};

static double turn(uint32_t word) {
	return (double)(int32_t)word / 2147483648.0;
}

static double nearly_sine(uint32_t phase) {
	double u = turn(phase);
	double parabola = 4.0 * u * (1.0 - fabs(u));
	return parabola * (0.775 + 0.225 * fabs(parabola));
}

// Writes a value, and returns its length.
static size_t convert(enum payload_scalar scalar, double value, uint8_t bytes[8]) {
	int32_t i32;
	int64_t i64;
	float f32;
	switch (scalar) {
	case PAYLOAD_I32: i32 = (int32_t)(value * 65536.0); return memcpy(bytes, &i32, sizeof i32), sizeof i32;
	case PAYLOAD_I64: i64 = (int64_t)(value * 4294967296.0); return memcpy(bytes, &i64, sizeof i64), sizeof i64;
	case PAYLOAD_F32: f32 = (float)value; return memcpy(bytes, &f32, sizeof f32), sizeof f32;
	case PAYLOAD_F64: break;
	}
	return memcpy(bytes, &value, sizeof value), sizeof value;
}

// Goes to the next value in raster order; the slowest dimension has no end.
static void step(const struct payload_grid *grid, uint64_t place[DIMENSIONS_MAX], struct wave waves[WAVES]) {
	int last = grid->dimensions - 1, moved = last;
	for (place[moved]++; moved > 0 && place[moved] == grid->extents[moved]; place[moved]++) place[moved--] = 0;
	for (int k = 0; k < WAVES; k++) {
		if (moved == last) {
			waves[k].at += waves[k].steps[last];
			continue;
		}
		waves[k].at = waves[k].phase;
		for (int d = 0; d <= moved; d++) waves[k].at += waves[k].steps[d] * (uint32_t)place[d];
	}
}

void field_generate(const struct payload_data *data, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size) {
	struct keystream_words stream = {.key = key, .index = index};
	uint64_t place[DIMENSIONS_MAX] = {0};
	struct wave waves[WAVES];
	double constant = 16.0 * turn(keystream_word(&stream));
	for (int k = 0; k < WAVES; k++) {
		waves[k].at = waves[k].phase = keystream_word(&stream);
		// Its sign stays.
		for (int d = 0; d < DIMENSIONS_MAX; d++) waves[k].steps[d] = (uint32_t)((int32_t)keystream_word(&stream) >> 4);
	}
	for (size_t at = 0; at < size;) {
		double value = constant;
		if (data->kind != PAYLOAD_FIELD_CONSTANT) {
			double amplitude = 16.0;
			value = 0.0;
			for (int k = 0; k < WAVES; k++, amplitude *= 0.5) value += amplitude * nearly_sine(waves[k].at);
		}
		if (data->kind == PAYLOAD_FIELD_ROUGH) value += turn(keystream_word(&stream));
		uint8_t bytes[8];
		size_t length = convert(data->grid.scalar, value, bytes), part = size - at < length ? size - at : length;
		memcpy(buffer + at, bytes, part);
		at += part;
		step(&data->grid, place, waves);
	}
}
