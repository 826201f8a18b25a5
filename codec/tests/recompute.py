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


def turn(word):
    return (word - (1 << 32) if word >> 31 else word) / 2147483648.0


def sine(phase):
    u = turn(phase)
    bent = (4.0 * u) * (1.0 - abs(u))
    return bent * (0.775 + (0.225 * abs(bent)))


def field(kind, scalar, shape, seed, index, size):
    count = -(-size // (int(scalar[1:]) // 8))
    words = struct.iter_unpack("<I", keystream(seed, index, 4 * (31 + count)))
    draw = lambda: next(words)[0]
    signed = lambda word: word - (1 << 32) if word >> 31 else word
    constant = 16.0 * turn(draw())
    waves = [(draw(), [signed(draw()) >> 4 for _ in range(4)]) for _ in range(6)]
    output = []
    for value in range(count):
        left, indices = value, []
        for extent in reversed(shape[1:]):
            left, at = divmod(left, extent)
            indices.insert(0, at)
        indices.insert(0, left)
        v = constant if kind == "field-constant" else 0.0
        if kind != "field-constant":
            for k, (phase, steps) in enumerate(waves):
                phi = (phase + sum(s * i for s, i in zip(steps, indices))) & MASK
                v += (16.0 / 2**k) * sine(phi)
        if kind == "field-rough":
            v += turn(draw())
        scaled = {"i32": lambda: int(v * 2.0**16), "i64": lambda: int(v * 2.0**32)}.get(scalar, lambda: v)()
        output.append(struct.pack({"i32": "<i", "i64": "<q", "f32": "<f", "f64": "<d"}[scalar], scaled))
    return b"".join(output)[:size]


def main():
    section = sys.stdin.read().split("## Generated input", 1)[1].split("\n## ", 1)[0]
    words = section.split("```text\n", 1)[1].split("```", 1)[0].encode("ascii").split()
    print(f"sha256:{hashlib.sha256(b' '.join(words)).hexdigest()} of {len(words)} words")
    row = re.compile(r"^\| (random|text|zeros|field[^ ]*) \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)
    for kind, seed, index, size in row.findall(section):
        seed, index, size = int(seed), int(index), int(size)
        if kind == "random":
            data = keystream(seed, index, size)
        elif kind == "text":
            data = text(words, seed, index, size)
        elif kind.startswith("field"):
            name, scalar, shape = re.split("[:,]", kind)
            data = field(name, scalar, [int(extent) for extent in shape.split("x")], seed, index, size)
        else:
            data = bytes(size)
        print(f"| {kind} | {seed} | {index} | {size} | `sha256:{hashlib.sha256(data).hexdigest()}` |")


main()
