#!/usr/bin/env python3
"""Compresses one large file by blocks, watches the memory, and has it opened by others: whole, and a range of its middle.

    bench/opened.py BAGPRESS FILE CODEC BLOCK WORKERS RAW

bench/blocks.sh calls it with OPENED=yes, in an empty folder, which it fills. It fails if anything that was read is not what the file
has, if a reader of the format is there and refuses, or if a range read most of the file. RAW receives a line of JSON for each row.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PIECE_BYTES = 1 << 20
RANGE_BYTES = 64 << 10
SAMPLES_EVERY_S = 0.01

OF_GZIP = "import gzip, shutil, sys; shutil.copyfileobj(gzip.open(sys.argv[1]), sys.stdout.buffer, 1 << 20)"
OF_ZSTD = (
    "import shutil, sys, zstandard; "
    "reader = zstandard.ZstdDecompressor().stream_reader(open(sys.argv[1], 'rb'), read_across_frames=True); "
    "shutil.copyfileobj(reader, sys.stdout.buffer, 1 << 20)"
)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as text:
            return text.read().split()
    except OSError:
        return []


def memory(pid):
    """Private memory in kB, and name of a process; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            fields = dict(line.rstrip("\n").split(":", 1) for line in lines if ":" in line)
        return int(fields["RssAnon"].split()[0]), fields["Name"].strip()
    except (OSError, KeyError):
        return 0, ""


def watched(command):
    """Runs it; the largest private memory of the producer, of a worker and of the server, in MiB."""
    most = {"producer": 0, "worker": 0, "server": 0}
    with open("log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            most["producer"] = max(most["producer"], memory(process.pid)[0])
            for child in children(process.pid):
                used, name = memory(child)
                what = "server" if name.startswith("nats") else "worker"
                most[what] = max(most[what], used)
            time.sleep(SAMPLES_EVERY_S)
    if process.returncode:
        sys.exit(f"error: {' '.join(command)}: exit code {process.returncode}\n{Path('log').read_text()}")
    return {what: round(used / 1024, 1) for what, used in most.items()}


def same(stream, file, bytes_max):
    """Whether a stream has the next bytes of a file, and no more than so many."""
    left = bytes_max
    while left:
        piece = stream.read(min(PIECE_BYTES, left))
        if not piece or piece != file.read(len(piece)):
            return False
        left -= len(piece)
    return not stream.read(1)


def readers(format):
    """Name and command of each that is here, without the file; or why it is not."""
    yield format, shutil.which(format) and [format, "-dc"]
    if format == "gzip":
        yield "pigz", shutil.which("pigz") and ["pigz", "-dc"]
        yield "Python's gzip", [sys.executable, "-c", OF_GZIP]
        if shutil.which("go"):
            source = str(ROOT / "codec/tests/gunzip.go")
            subprocess.run(["go", "build", "-o", "gunzip", source], check=True)
            yield "Go's compress/gzip", ["sh", "-c", './gunzip gzip <"$1"', "sh"]
        else:
            yield "Go's compress/gzip", None
    else:
        found = subprocess.run([sys.executable, "-c", "import zstandard"], capture_output=True, env=ENVIRONMENT)
        yield "Python's zstandard", found.returncode == 0 and [sys.executable, "-c", OF_ZSTD]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / ".tools/zstandard")}


def opened(format, made, original, size, row):
    for name, command in readers(format):
        if not command:
            print(f"note: {name} is not here, so it has no row; `make bench-peers` names what is missing", file=sys.stderr)
            continue
        began = time.monotonic()
        reader = subprocess.Popen([*command, made], stdout=subprocess.PIPE, env=ENVIRONMENT)
        with open(original, "rb") as file:
            is_same = same(reader.stdout, file, size)
        reader.stdout.close()
        if reader.wait() or not is_same:
            sys.exit(f"error: {name} does not read {made} as what it was made of: exit code {reader.returncode}")
        row(f"whole by {name}", ms=round((time.monotonic() - began) * 1000), read_bytes=os.path.getsize(made))


def bytes_read():
    """What this process and its children that have ended have read, from files and pipes."""
    with open("/proc/self/io") as lines:
        return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def middle(bagpress, what, words, original, size, compressed, row):
    begin = size // 2
    length = min(RANGE_BYTES, size - begin)
    command = [bagpress, "restore", *words, "--range", f"{begin}..+{length}", "--out", "part"]
    before, began = bytes_read(), time.monotonic()
    ran = subprocess.run(command, capture_output=True, text=True)
    ms, read = round((time.monotonic() - began) * 1000), bytes_read() - before
    if ran.returncode:
        sys.exit(f"error: {' '.join(command)}: exit code {ran.returncode}\n{ran.stderr}")
    with open(original, "rb") as file, open("part", "rb") as part:
        file.seek(begin)
        if not same(part, file, length):
            sys.exit(f"error: {what}: the range is not what the file has there")
    os.remove("part")
    # Of a file of a few blocks, one is much of it.
    if size > 64 << 20 and read > compressed // 2:
        sys.exit(f"error: {what}: {read} bytes were read for {length} of a file of {compressed}")
    row(what, ms=ms, read_bytes=read)


def main():
    bagpress, original, codec, block, workers, raw = sys.argv[1:]
    format, size = codec.split(":")[0], os.path.getsize(original)
    os.link(original, "file")

    with open(raw, "a") as lines:

        def row(what, **facts):
            lines.write(json.dumps({"verb": "opened", "what": what, "codec": codec, **facts}) + "\n")
            print(f"{what:<44}" + ", ".join(f"{value:,} {name}" for name, value in facts.items()))

        used = watched([bagpress, "run", "file", "--codec", codec, "--out", "packed", "--block", block, "--workers", workers,
                        "--name", "opened", "--quiet"])
        made = "packed/file" + {"gzip": ".gz", "zstd": ".zst"}[format]
        compressed = os.path.getsize(made)
        row("most private memory", **{f"{what}_MiB": used[what] for what in used})
        opened(format, made, original, size, row)
        middle(bagpress, "64 KiB of the middle, by the run", ["runs/opened/staged"], original, size, compressed, row)
        if format == "zstd":
            middle(bagpress, "64 KiB of the middle, by the file's table", [made], original, size, compressed, row)


if __name__ == "__main__":
    main()
