#!/usr/bin/env bash
# Measures the most private memory that `bagpress run`, any of its workers and its nats-server take for N small files, by every
# way, and what the server's store has on disk at the end. Ways are interleaved.
set -euo pipefail

if [[ $# -eq 0 || $1 == -* ]]; then
	cat >&2 <<USAGE
usage: bench/memory.sh FILES...

  bench/memory.sh 500 5000 25000 100000

Each file has 280 bytes. ROUNDS=N (3) in the environment changes how often each is measured, BAGPRESS=PATH which program,
BYTES=N the size of the files, WAYS=objects,offered which ways; GOMEMLIMIT is the server's, which has one of 256 MiB
otherwise. RAW=FILE receives every single measurement. A temporary folder is made in the current one.
USAGE
	exit 2
fi

here=$(cd "$(dirname "$0")/.." && pwd)
program=${BAGPRESS:-$here/target/release/bagpress}
if [[ ! -x $program ]]; then
	(cd "$here" && cargo build --release --locked --bin bagpress)
fi
exec python3 - "$program" "$@" <<'PYTHON'
"""Runs, samples private memory (RssAnon) of the process and of its workers, prints medians."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from statistics import median

BYTES = int(os.environ.get("BYTES", "280"))
WAYS = {
    "by path": ["--results", "staged", "--transfer", "auto"],
    "by wire": ["--results", "staged", "--transfer", "wire"],
    "offered": ["--results", "staged", "--delivery", "queue-group"],
    "objects": ["--results", "objects"],
}


def status(pid):
    """Private memory in kB, threads and name of a process; nothing if it is gone."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            fields = dict(line.rstrip("\n").split(":", 1) for line in lines if ":" in line)
        return int(fields["RssAnon"].split()[0]), int(fields["Threads"]), fields["Name"].strip()
    except (OSError, KeyError):
        return 0, 0, ""


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as text:
            return text.read().split()
    except OSError:
        return []


def on_disk(folder):
    """What a folder holds on its disk, in kB, if it is there."""
    used = subprocess.run(["du", "-sk", folder], capture_output=True, text=True)
    return int(used.stdout.split()[0]) if used.returncode == 0 else 0


def measure(program, files, way, folder):
    command = [program, "run", os.path.join(folder, str(files)), "--out", os.path.join(folder, "out"),
               "--runs", os.path.join(folder, "runs"), "--quiet", *WAYS[way]]
    own = threads = worker = server = 0
    began = time.monotonic()
    with open(os.path.join(folder, "log"), "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            memory, count, _ = status(process.pid)
            own, threads = max(own, memory), max(threads, count)
            for child in children(process.pid):
                memory, _, name = status(child)
                if name.startswith("nats"):
                    server = max(server, memory)
                else:
                    worker = max(worker, memory)
            time.sleep(0.01)
    seconds = time.monotonic() - began
    if process.returncode:
        with open(log.name) as text:
            sys.exit(f"error: {' '.join(command)}: exit code {process.returncode}\n{text.read()}")
    [run] = os.listdir(os.path.join(folder, "runs"))
    store = on_disk(os.path.join(folder, "runs", run, "objects", ".broker"))
    for made in ("out", "runs"):
        shutil.rmtree(os.path.join(folder, made), ignore_errors=True)
    return {"files": files, "bytes": BYTES, "way": way, "limit": os.environ.get("GOMEMLIMIT", "128MiB"), "kB": own,
            "threads": threads, "worker_kB": worker, "server_kB": server, "store_kB": store, "seconds": round(seconds, 2)}


def make(folder, files):
    for index in range(files):
        below = os.path.join(folder, str(files), str(index // 1000))
        os.makedirs(below, exist_ok=True)
        with open(os.path.join(below, str(index)), "w") as file:
            line = f"line {index} of an ordinary file\n"
            file.write((line * (BYTES // len(line) + 1))[:BYTES])


program, counts = sys.argv[1], [int(count) for count in sys.argv[2:]]
rounds = int(os.environ.get("ROUNDS", "3"))
if wanted := os.environ.get("WAYS"):
    WAYS = {way: WAYS[way] for way in wanted.split(",")}
measured = []
with tempfile.TemporaryDirectory(prefix="bagpress-bench-", dir=".") as folder:
    for count in counts:
        make(folder, count)
    for _ in range(rounds):
        for count in counts:
            for way in WAYS:
                measured.append(measure(program, count, way, folder))
                if "RAW" in os.environ:
                    with open(os.environ["RAW"], "a") as raw:
                        raw.write(json.dumps({"verb": "memory", **measured[-1]}) + "\n")

row = "{:>8}  {:<9}{:>12}{:>9}{:>14}{:>14}{:>12}{:>10}".format
print(row("files", "way", "MiB private", "threads", "worker's MiB", "server's MiB", "store's MiB", "seconds"))
for count in counts:
    for way in WAYS:
        of = [m for m in measured if m["files"] == count and m["way"] == way]
        middle = lambda key: median(m[key] for m in of)
        print(row(count, way, f"{middle('kB') / 1024:.1f}", f"{middle('threads'):.0f}",
                  f"{middle('worker_kB') / 1024:.1f}", f"{middle('server_kB') / 1024:.1f}", f"{middle('store_kB') / 1024:.1f}",
                  f"{middle('seconds'):.1f}"))
PYTHON
