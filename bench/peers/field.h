// The fields of docs/generator.md.
#pragma once

#include "payload.h"

// As payload_generate, for a kind that is a field.
void field_generate(const struct payload_data *data, const struct payload_key *key, uint32_t index, uint8_t *buffer, size_t size);
