#include "keystream.h"

#include <string.h>

// ChaCha with 8 rounds (D. J. Bernstein, "ChaCha, a variant of Salsa20", 2008), as docs/generator.md lays it out.
enum { ROUNDS = 8, WORD_BYTES = 4 };

static uint32_t rotate(uint32_t word, int by) {
	return word << by | word >> (32 - by);
}

static void quarter(uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
	*a += *b, *d = rotate(*d ^ *a, 16);
	*c += *d, *b = rotate(*b ^ *c, 12);
	*a += *b, *d = rotate(*d ^ *a, 8);
	*c += *d, *b = rotate(*b ^ *c, 7);
}

void keystream_block(const struct payload_key *key, uint32_t index, uint64_t counter, uint8_t block[KEYSTREAM_BLOCK_BYTES]) {
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

uint32_t keystream_word(struct keystream_words *stream) {
	size_t at = stream->words * WORD_BYTES % KEYSTREAM_BLOCK_BYTES;
	if (at == 0) keystream_block(stream->key, stream->index, stream->words * WORD_BYTES / KEYSTREAM_BLOCK_BYTES, stream->block);
	const uint8_t *from = stream->block + at;
	stream->words++;
	return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}
