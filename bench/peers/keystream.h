// The keystream of docs/generator.md.
#pragma once

#include "payload.h"

enum { KEYSTREAM_BLOCK_BYTES = 64 };

// Writes one block of the keystream of a task.
void keystream_block(const struct payload_key *key, uint32_t index, uint64_t counter, uint8_t block[KEYSTREAM_BLOCK_BYTES]);

// Words of it, one after another from its start. All but `key` and `index` are 0 before the first.
struct keystream_words {
	const struct payload_key *key;
	uint32_t index;
	uint64_t words;
	uint8_t block[KEYSTREAM_BLOCK_BYTES];
};

uint32_t keystream_word(struct keystream_words *stream);
