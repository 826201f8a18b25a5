#!/usr/bin/env bash
# Times one large file: cut into blocks by bagpress, by pigz, and by gzip on one core; or by bagpress, and by zstd on all cores and on one. Runs are interleaved, and a ratio is taken inside
# each round. Every output is decompressed and compared with its input, outside of what is timed.
#
# The systems do not promise the same: gzip and pigz only write, bagpress also decompresses and compares each block and syncs what it
# wrote. `bagpress` includes the start and the end of its server and workers.
set -euo pipefail

if [[ $# -gt 2 || ${1:-} == -* || $# -eq 0 ]]; then
	cat >&2 <<USAGE
usage: bench/blocks.sh BYTES [FOLDER]

  bench/blocks.sh 134217728
  bench/blocks.sh 2147483648 /var/tmp

The file has BYTES bytes of text, the same on every machine; it and the outputs are in a temporary folder in FOLDER (the current one).
ROUNDS=N (3), WORKERS=N (the number of cores), BLOCK=SIZE (auto) and CODEC=gzip:LEVEL|zstd:LEVEL (gzip:6) in the environment change how it
is measured, RAW=FILE receives every single time, and BAGPRESS=FILE is measured instead of the program in target/release. By itself bagpress cuts files above 64 MiB.
OPENED=yes then makes the file once more, watches how much memory that takes, has all of it read by gzip, pigz, Python and Go (of zstd: zstd
and Python), restores 64 KiB of its middle, and compares everything with the file; ROUNDS=0 does only that.
USAGE
	exit 2
fi
if [[ ! $1 =~ ^[1-9][0-9]{0,12}$ ]]; then
	echo "error: $1 is no number of bytes" >&2
	exit 2
fi

here=$(cd "$(dirname "$0")/.." && pwd)
codec=${CODEC:-gzip:6}
format=${codec%:*} level=${codec#*:}
if [[ ! $codec =~ ^(gzip|zstd):[1-9][0-9]?$ ]]; then
	echo "error: CODEC is gzip:1 to gzip:9 or zstd:1 to zstd:19, and not $codec" >&2
	exit 2
fi
bytes=$1 rounds=${ROUNDS:-3} workers=${WORKERS:-$(nproc)} block=${BLOCK:-auto}
bagpress=${BAGPRESS:-$here/target/release/bagpress}
if [[ ! -x $bagpress ]]; then
	(cd "$here" && cargo build --release --locked --bin bagpress)
fi
temporary=$(mktemp -d -p "$(cd "${2:-$PWD}" && pwd -P)" bagpress-bench-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
raw=$(realpath -m "${RAW:-$temporary/raw}")
: >"$raw"

systems=(blocks "$format")
versions=("$("$bagpress" --version)" "$("$format" --version | head -n 1)")
if [[ $format == zstd ]]; then
	systems=(blocks zstd-threads zstd)
elif command -v pigz >/dev/null; then
	systems=(blocks pigz gzip)
	versions+=("$(pigz --version 2>&1)")
else
	echo "note: no pigz here, so it has no row; \`make bench-peers\` names what is missing" >&2
fi

# SYSTEM: what is typed, in the folder that has the file.
declare -A commands=(
	[blocks]='"$BAGPRESS" run file --codec $CODEC --out packed --block $BLOCK --workers $WORKERS --quiet'
	[pigz]='pigz -$LEVEL -p $WORKERS -c file >packed/file.gz'
	[gzip]='gzip -$LEVEL -c file >packed/file.gz'
	[zstd-threads]='zstd -q -$LEVEL -T$WORKERS -c file >packed/file.zst'
	[zstd]='zstd -q -$LEVEL -T1 -c file >packed/file.zst'
)

once() { # SYSTEM; in the folder that has the file
	BAGPRESS=$bagpress WORKERS=$workers BLOCK=$block CODEC=$codec LEVEL=$level bash -c "set -euo pipefail; ${commands[$1]}" \
		>../stdout 2>../stderr || {
		cat ../stderr >&2
		return 1
	}
}

load() { cut -d' ' -f1 /proc/loadavg; }
python3 - "$temporary/file" "$bytes" "$workers" "$block" "$codec" "${versions[@]}" >>"$raw" <<'PYTHON'
"""Writes the file: words with a skewed frequency, numbers among them. Prints what all runs have in common."""
import json
import os
import platform
import random
import sys

path, size = sys.argv[1], int(sys.argv[2])
rng = random.Random(64)
letters = "etaoinshrdlcumwfgypbvk"
known = ["".join(rng.choice(letters) for _ in range(rng.randrange(2, 11))) for _ in range(5_000)]
frequency = [1 / (place + 3) for place in range(len(known))]
with open(path, "wb") as file:
    left = size
    while left > 0:
        words = rng.choices(known, frequency, k=20_000)
        for at in range(0, len(words), 23):
            words[at] = f"{rng.randrange(10**6)}.\n"
        text = " ".join(words).encode()[:left]
        file.write(text)
        left -= len(text)
with open("/proc/cpuinfo") as lines:
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
print(json.dumps({
    "verb": "blocks",
    "platform": {"cpu": cpu, "cores": os.cpu_count(), "memory_mib": memory, "kernel": platform.release()},
    "versions": sys.argv[6:],
    "input_bytes": size,
    "workers": int(sys.argv[3]),
    "block": sys.argv[4],
    "codec": sys.argv[5],
}))
PYTHON
echo "$((bytes >> 20)) MiB, $workers at a time, blocks $block, $rounds rounds, $codec, load $(load)"

for ((round = 0; round < rounds; round++)); do
	for ((place = 0; place < ${#systems[@]}; place++)); do
		system=${systems[(round + place) % ${#systems[@]}]} # nobody is always first
		run=$temporary/$system.$round
		mkdir "$run" "$run/packed"
		ln "$temporary/file" "$run/file"
		sync -f "$run" # what the one before has left to write is not this one's
		cd "$run"
		began=$EPOCHREALTIME
		once "$system"
		ended=$EPOCHREALTIME
		cd "$temporary"
		made=$(find "$run/packed" -type f -name '*.gz' -o -name '*.zst')
		if ! "$format" -dc "$made" | cmp - file; then
			echo "error: $system made another file" >&2
			exit 1
		fi
		printf '{"verb":"blocks","system":"%s","round":%d,"wall_ms":%d,"output_bytes":%d,"load_1min":%s,"command":"%s"}\n' \
			"$system" "$round" $(((${ended/[.,]/} - ${began/[.,]/}) / 1000)) "$(stat -c %s "$made")" "$(load)" \
			"$(sed -e "s/\\\$CODEC/$codec/; s/\\\$LEVEL/$level/; s/\\\$WORKERS/$workers/; s/\\\$BLOCK/$block/; s/\"\\\$BAGPRESS\"/bagpress/" <<<"${commands[$system]}")" >>"$raw"
		rm -r "$run"
	done
done

opened() { # once more, and read by others
	mkdir "$temporary/opened"
	(cd "$temporary/opened" && "$here/bench/opened.py" "$bagpress" "$temporary/file" "$codec" "$block" "$workers" "$raw")
}
if ((rounds == 0)); then
	opened
	exit
fi

python3 - "$raw" "${systems[@]}" <<'PYTHON'
"""Prints medians, and ratios that were taken inside each round."""
import json
import sys
from statistics import median

with open(sys.argv[1]) as lines:
    runs = [run for run in map(json.loads, lines) if "system" in run]
systems = sys.argv[2:]


def times(system):
    return [run["wall_ms"] for _, run in sorted((run["round"], run) for run in runs if run["system"] == system)]


def spread(values, places):
    return f"{median(values):.{places}f} ({min(values):.{places}f}–{max(values):.{places}f})"


def ratio(system, reference):
    if reference not in systems:
        return "–"
    return spread([a / b for a, b in zip(times(system), times(reference))], 2)


references = ("zstd-threads", "zstd") if "zstd" in systems else ("pigz", "gzip")
row = "{:<14}{:<26}{:<20}{:<20}{:>14}{:>6}".format
print(row("system", "ms: median (min–max)", *(f"× {system}" for system in references), "output bytes", "runs"))
for system in systems:
    size = next(run["output_bytes"] for run in runs if run["system"] == system)
    ratios = [ratio(system, reference) for reference in references]
    print(row(system, spread(times(system), 0), *ratios, size, len(times(system))))
PYTHON

if [[ -n ${OPENED:-} ]]; then opened; fi
