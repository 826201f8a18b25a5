#!/usr/bin/env bash
# Times bags of real files against what people type today. Runs are interleaved, and a ratio is taken
# inside each round.
#
# The systems do not promise the same. `gzip` under xargs, and pigz, only write; `xargs-verified` also
# decompresses each output and syncs the disk once, as bagpress does for each output before it counts
# it. `bagpress` includes the start and the end of its server and workers.
set -euo pipefail

if [[ $# -eq 0 || $1 == -* ]]; then
	cat >&2 <<USAGE
usage: bench/files.sh DIR...

  bench/files.sh /usr/share/doc /usr/lib/python3

ROUNDS=N (3) and WORKERS=N (the number of cores) in the environment change how it is measured, RAW=FILE
receives every single time. A temporary folder is made in the current one.
USAGE
	exit 2
fi

here=$(cd "$(dirname "$0")/.." && pwd)
rounds=${ROUNDS:-3} workers=${WORKERS:-$(nproc)}
if [[ ! -x $here/target/release/bagpress ]]; then
	(cd "$here" && cargo build --release --locked --bin bagpress)
fi
temporary=$(mktemp -d -p "$PWD" bagpress-bench-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
raw=${RAW:-$temporary/raw}
: >"$raw"

systems=(staged objects xargs xargs-verified)
if command -v pigz >/dev/null; then systems+=(pigz); fi

bagpress() { # RESULTS OUT DIR...
	local results=$1 out=$2
	shift 2
	"$here/target/release/bagpress" run "$@" --codec gzip:6 --results "$results" --out "$out" \
		--workers "$workers" --runs "$temporary/runs" --name files --quiet \
		>"$temporary/stdout" 2>"$temporary/stderr" || {
		cat "$temporary/stderr" >&2
		return 1
	}
	rm -rf "$temporary/runs"
}

each() { # PROGRAM OUT DIR...: the program gets names, and OUT in the environment
	local program=$1 out=$2 dir
	shift 2
	for dir; do
		(
			cd "$dir/.."
			base=$(basename "$dir")
			find "$base" -type d -printf "$out/%p\0" | xargs -0 mkdir -p
			find "$base" -type f -print0 | OUT=$out xargs -0 -P "$workers" -n 32 bash -c "$program" each
		)
	done
}

once() { # SYSTEM OUT DIR...
	local system=$1 out=$2
	shift 2
	case $system in
		staged | objects) bagpress "$system" "$out" "$@" ;;
		xargs) each 'for f; do gzip -6 -c -- "$f" >"$OUT/$f.gz"; done' "$out" "$@" ;;
		xargs-verified)
			each 'for f; do gzip -6 -c -- "$f" >"$OUT/$f.gz" && gzip -t "$OUT/$f.gz" || exit 255; done' \
				"$out" "$@"
			sync -f "$out"
			;;
		# It has threads for the parts of a large file, and here one process for each core too; it refuses
		# names that end with .gz, so it reads from stdin.
		pigz) each 'for f; do pigz -6 <"$f" >"$OUT/$f.gz"; done' "$out" "$@" ;;
	esac
}

dirs=()
for dir; do dirs+=("$(cd "$dir" && pwd -P)"); done
files=$(find "${dirs[@]}" -type f | wc -l)
bytes=$(find "${dirs[@]}" -type f -exec cat {} + | wc -c) # which also brings them into memory
echo "$files files, $((bytes >> 20)) MiB, $workers at a time, $rounds rounds, load $(cut -d' ' -f1 /proc/loadavg)"

for ((round = 0; round < rounds; round++)); do
	for ((place = 0; place < ${#systems[@]}; place++)); do
		system=${systems[(round + place) % ${#systems[@]}]} # nobody is always first
		# Outputs are kept to the end: ext4 looks for inodes that were freed a moment ago one by one.
		out=$temporary/$system.$round
		mkdir "$out"
		sync -f "$out" # what the one before has left to write is not this one's
		began=$EPOCHREALTIME
		once "$system" "$out" "${dirs[@]}"
		ended=$EPOCHREALTIME
		made=$(find "$out" -type f | wc -l)
		size=$(find "$out" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
		if [[ $made -ne $files ]]; then
			echo "error: $system made $made outputs of $files files" >&2
			exit 1
		fi
		printf '{"verb":"files","system":"%s","round":%d,"wall_ms":%d,"output_bytes":%d,"load_1min":%s}\n' \
			"$system" "$round" $(((${ended/./} - ${began/./}) / 1000)) "$size" \
			"$(cut -d' ' -f1 /proc/loadavg)" >>"$raw"
	done
done

python3 - "$raw" "${systems[@]}" <<'PYTHON'
"""Prints medians, and ratios that were taken inside each round."""
import json
import sys
from statistics import median

with open(sys.argv[1]) as lines:
    runs = [json.loads(line) for line in lines]


def times(system):
    return [run["wall_ms"] for run in runs if run["system"] == system]


def spread(values, places):
    return f"{median(values):.{places}f} ({min(values):.{places}f}–{max(values):.{places}f})"


def ratio(system, reference):
    return spread([a / b for a, b in zip(times(system), times(reference))], 2)


row = "{:<16}{:<24}{:<20}{:<20}{:>14}{:>6}".format
print(row("system", "ms: median (min–max)", "× xargs", "× xargs-verified", "output bytes", "runs"))
for system in sys.argv[2:]:
    size = next(run["output_bytes"] for run in runs if run["system"] == system)
    print(row(system, spread(times(system), 0), ratio(system, "xargs"),
              ratio(system, "xargs-verified"), size, len(times(system))))
PYTHON
