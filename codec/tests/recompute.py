"""Recomputes the golden digests of generated input from the written rules alone.

Usage: recompute.py < docs/generator.md

The vocabulary and the rows of the table (kind, seed, index, bytes) are read from the section
"Generated input"; the rows are printed with the digests that the rules give. Standard library only.
"""

import hashlib
import re
import struct
import sys

MASK = 0xFFFFFFFF


def quarter_round(s, a, b, c, d):
    for i, j, k, left in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[i] = (s[i] + s[j]) & MASK
        x = s[k] ^ s[i]
        s[k] = (x << left | x >> (32 - left)) & MASK


def chacha8_block(key, counter, stream):
    start = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<QQ", counter, stream)))
    s = start[:]
    for _ in range(4):
        for column in range(4):
            quarter_round(s, column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            quarter_round(s, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return struct.pack("<16I", *((x + y) & MASK for x, y in zip(s, start)))


def keystream(seed, index, size):
    key = hashlib.sha256(f"bagpress/1/{seed}".encode("ascii")).digest()
    blocks = -(-size // 64)
    return b"".join(chacha8_block(key, counter, index) for counter in range(blocks))[:size]


def text(words, seed, index, size):
    # A word and what follows it are two bytes at least, so this much keystream is always enough.
    key = keystream(seed, index, size + 2)
    output, length = [], 0
    for number in range(1, len(key) // 2 + 1):
        if length >= size:
            break
        a, b = key[2 * number - 2], key[2 * number - 1]
        output.append(words[a * b // 256] + (b"\n" if number % 12 == 0 else b" "))
        length += len(output[-1])
    return b"".join(output)[:size]


def main():
    section = sys.stdin.read().split("## Generated input", 1)[1].split("\n## ", 1)[0]
    words = section.split("```text\n", 1)[1].split("```", 1)[0].encode("ascii").split()
    print(f"sha256:{hashlib.sha256(b' '.join(words)).hexdigest()} of {len(words)} words")
    row = re.compile(r"^\| (random|text|zeros) \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)
    for kind, seed, index, size in row.findall(section):
        seed, index, size = int(seed), int(index), int(size)
        if kind == "random":
            data = keystream(seed, index, size)
        elif kind == "text":
            data = text(words, seed, index, size)
        else:
            data = bytes(size)
        print(f"| {kind} | {seed} | {index} | {size} | `sha256:{hashlib.sha256(data).hexdigest()}` |")


main()
