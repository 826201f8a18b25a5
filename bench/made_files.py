"""Writes the files that no folder of a machine has enough of: between text and noise.

Usage: made_files.py DIR

About 100 MB in DIR, the same bytes on every machine: text in base64, CSV, noise that repeats within and beyond
deflate's window, noise with runs of zeros, with a skewed distribution or with text between, samples of a sound, small files.
`bagpress-bench incompressible DIR` reads them. Standard library only.
"""

import base64
import math
import pathlib
import random
import struct
import sys

KIB = 1024
MIB = 1024 * KIB


def csv(rng, size):
    rows, length = ["id,time,name,value,share\n"], 0
    while length < size:
        name = rng.choice(["north", "south", "east", "west"])
        row = f"{len(rows)},{1_700_000_000 + 13 * len(rows)},{name},{rng.gauss(20, 5):.3f},{rng.random():.6f}\n"
        rows.append(row)
        length += len(row)
    return "".join(rows).encode()[:size]


def repeating(rng, period, size, changed_every=0):
    """Noise that comes again after `period` bytes, a byte of it new now and then."""
    noise = bytearray((rng.randbytes(period) * (size // period + 1))[:size])
    if changed_every:
        for at in range(0, size, changed_every):
            noise[at] = rng.randrange(256)
    return bytes(noise)


def zero_runs(rng, noise_bytes, zero_bytes, size):
    out = bytearray()
    while len(out) < size:
        out += rng.randbytes(rng.randrange(1, 2 * noise_bytes))
        out += bytes(rng.randrange(1, 2 * zero_bytes))
    return bytes(out[:size])


def copies(rng, every, length, size):
    """Noise in which a copy of something at most 30,000 bytes before comes about every `every` bytes."""
    out = bytearray(rng.randbytes(30_000))
    while len(out) < size:
        out += rng.randbytes(rng.randrange(1, 2 * every))
        start = len(out) - rng.randrange(length, 30_000)
        out += out[start : start + length]
    return bytes(out[:size])


def words(rng, count, width, size):
    """Noise made of `count` different words of `width` bytes."""
    known = [rng.randbytes(width) for _ in range(count)]
    return b"".join(rng.choice(known) for _ in range(size // width))


def skewed(rng, bits, size):
    """Bytes of which one bit in eight is set less often, so that a byte holds about `bits` bits."""
    low = int(256 * (bits - 7))
    return bytes(b if c < low else b & 0x7F for b, c in zip(rng.randbytes(size), rng.randbytes(size)))


def sound(rng, loud, size):
    samples = (
        int(loud * (math.sin(at / 40) + math.sin(at / 173) / 2) + rng.gauss(0, loud / 8)) for at in range(size // 2)
    )
    return b"".join(struct.pack("<h", max(-32_768, min(32_767, sample))) for sample in samples)


def islands(rng, island, every, size):
    """Noise with `island` bytes of text in every `every` bytes."""
    text = (b"the quick brown fox jumps over the lazy dog and finds %d of them; " * 200)[:island]
    out = bytearray()
    while len(out) < size:
        out += rng.randbytes(every - island) + text.replace(b"%d", str(rng.random()).encode())[:island]
    return bytes(out[:size])


def files(rng):
    yield "noise.base64", base64.encodebytes(rng.randbytes(6 * MIB))
    yield "noise-one-line.base64", base64.b64encode(rng.randbytes(3 * MIB))
    yield "noise.hex", rng.randbytes(2 * MIB).hex().encode()
    yield "noise", rng.randbytes(8 * MIB)
    yield "table.csv", csv(rng, 8 * MIB)
    for period in (500, 4_000, 20_000, 32_000, 32_768, 40_000, 300_000):
        yield f"repeats-{period}", repeating(rng, period, 2 * MIB)
    for changed in (7, 12, 24, 100):
        yield f"repeats-20000-changed-{changed}", repeating(rng, 20_000, MIB, changed)
    for noise, zeros in ((50, 5), (500, 20), (2_000, 100), (20_000, 400), (100_000, 4_000)):
        yield f"zeros-{noise}-{zeros}", zero_runs(rng, noise, zeros, 2 * MIB)
    for every, length in ((100, 5), (200, 8), (1_000, 30), (4_000, 100), (10_000, 1_000), (60_000, 5_000)):
        yield f"copies-{every}-{length}", copies(rng, every, length, 2 * MIB)
    for count, width in ((1_000, 4), (4_000, 4), (8_000, 4), (4_000, 8), (30_000, 16)):
        yield f"words-{count}-{width}", words(rng, count, width, 2 * MIB)
    for bits in (7.5, 7.8, 7.95):
        yield f"skewed-{bits}", skewed(rng, bits, 2 * MIB)
    for loud in (300, 3_000, 20_000):
        yield f"sound-{loud}", sound(rng, loud, 2 * MIB)
    for island, every in ((100, 4_000), (1_000, 20_000), (3_000, 100_000), (8_000, 262_144)):
        yield f"islands-{island}-{every}", islands(rng, island, every, 2 * MIB)
    for index in range(200):
        size = rng.randrange(1, 12 * KIB)
        yield f"small-{index}", [rng.randbytes(size), csv(rng, size), repeating(rng, 900, size)][index % 3]


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files(random.Random(36)):
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
