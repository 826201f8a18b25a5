#include "field.h"

#include "keystream.h"

#include <math.h>
#include <string.h>

// Compiled with -ffp-contract=off: every operation is rounded once.

enum { WAVES = 6, DIMENSIONS_MAX = 4, VALUES = 256 };

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

union row {
	int32_t i32[VALUES];
	int64_t i64[VALUES];
	float f32[VALUES];
	double f64[VALUES];
};

// Makes them values of the array's type, and returns their length.
static size_t convert(enum payload_scalar scalar, const double *values, size_t count, union row *row) {
	switch (scalar) {
	case PAYLOAD_I32: for (size_t i = 0; i < count; i++) row->i32[i] = (int32_t)(values[i] * 65536.0); return count * sizeof row->i32[0];
	case PAYLOAD_I64: for (size_t i = 0; i < count; i++) row->i64[i] = (int64_t)(values[i] * 4294967296.0); return count * sizeof row->i64[0];
	case PAYLOAD_F32: for (size_t i = 0; i < count; i++) row->f32[i] = (float)values[i]; return count * sizeof row->f32[0];
	case PAYLOAD_F64: break;
	}
	memcpy(row->f64, values, count * sizeof row->f64[0]);
	return count * sizeof row->f64[0];
}

// Adds the waves to the next values, all in one row.
static void add_waves(const struct wave waves[WAVES], int last, double *values, size_t count) {
	double amplitude = 16.0;
	for (int k = 0; k < WAVES; k++, amplitude *= 0.5) {
		uint32_t phase = waves[k].at, step = waves[k].steps[last];
		for (size_t i = 0; i < count; i++, phase += step) values[i] += amplitude * nearly_sine(phase);
	}
}

// Goes so many values on in raster order, at most to the next row; the slowest dimension has no end.
static void pass(const struct payload_grid *grid, uint64_t place[DIMENSIONS_MAX], struct wave waves[WAVES], size_t count) {
	int moved = grid->dimensions - 1;
	for (place[moved] += count; moved > 0 && place[moved] == grid->extents[moved]; place[moved]++) place[moved--] = 0;
	for (int k = 0; k < WAVES; k++) {
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
	int last = data->grid.dimensions - 1;
	for (size_t at = 0; at < size;) {
		double values[VALUES];
		size_t count = VALUES;
		if (last > 0 && data->grid.extents[last] - place[last] < count) count = data->grid.extents[last] - place[last];
		for (size_t i = 0; i < count; i++) values[i] = data->kind == PAYLOAD_FIELD_CONSTANT ? constant : 0.0;
		if (data->kind != PAYLOAD_FIELD_CONSTANT) add_waves(waves, last, values, count);
		for (size_t i = 0; i < count && data->kind == PAYLOAD_FIELD_ROUGH; i++) values[i] += turn(keystream_word(&stream));
		union row row;
		size_t bytes = convert(data->grid.scalar, values, count, &row), part = size - at < bytes ? size - at : bytes;
		memcpy(buffer + at, &row, part);
		at += part;
		pass(&data->grid, place, waves, count);
	}
}
