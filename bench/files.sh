#!/usr/bin/env bash
# Times bags of real files against what people type today. Runs are interleaved, and a ratio is taken inside each round.
#
# The systems do not promise the same. `gzip` under xargs, pigz and zstd only write; `xargs-verified` also decompresses each output
# and syncs the disk once, as bagpress does for each output before it counts it. `bagpress` includes the start and the end of its
# server and workers.
set -euo pipefail

if [[ $# -eq 0 || $1 == -* ]]; then
	cat >&2 <<USAGE
usage: bench/files.sh DIR...

  bench/files.sh /usr/share/doc /usr/lib/python3

Regular files are copied into a temporary folder in the current one, but for those that gzip refuses by their name (.gz and such).
ROUNDS=N (3) and WORKERS=N (the number of cores) in the environment change how it is measured, RAW=FILE receives every single time.
SYSTEMS='gzip:6 zstd:3 auto' measures these systems, of which all that are not in the table are codecs of bagpress, as staged outputs; with objects: in front, as objects. BACK=yes also times the way back, once in each round:
every output of bagpress is opened by gzip or zstd, and what is restored has the bytes, modes and times of what it was made of.
USAGE
	exit 2
fi

here=$(cd "$(dirname "$0")/.." && pwd)
rounds=${ROUNDS:-3} workers=${WORKERS:-$(nproc)}
if [[ ! -x $here/target/release/bagpress ]]; then
	(cd "$here" && cargo build --release --locked --bin bagpress)
fi
dirs=()
for dir; do dirs+=("$(cd "$dir" && pwd -P)"); done
temporary=$(mktemp -d -p "$PWD" bagpress-bench-XXXXXX)
trap 'rm -rf "$temporary"' EXIT
raw=$(realpath -m "${RAW:-$temporary/raw}")
: >"$raw"

systems=(staged wire objects xargs xargs-verified)
versions=("$("$here/target/release/bagpress" --version)" "$(gzip --version | head -n 1)")
for system in pigz zstd; do
	if command -v "$system" >/dev/null; then
		systems+=("$system")
		versions+=("$("$system" --version 2>&1)")
	else
		echo "note: no $system here, so it has no row; \`make bench-peers\` names what is missing" >&2
	fi
done

# SYSTEM: what is typed, in the folder that has the tree. Everything but bagpress writes beside the inputs, into a copy of its own.
declare -A commands=(
	[staged]='bagpress run tree --codec gzip:6 --results staged --out packed --workers $WORKERS --quiet'
	[wire]='bagpress run tree --codec gzip:6 --results staged --transfer wire --out packed --workers $WORKERS --quiet'
	[objects]='bagpress run tree --codec gzip:6 --results objects --out packed --workers $WORKERS --quiet'
	[xargs]='find tree -type f -print0 | xargs -0 -P $WORKERS -n 100 gzip -6 -k'
	[xargs-verified]='find tree -type f -print0 | xargs -0 -P $WORKERS -n 100 bash -c '\''gzip -6 -k -- "$@" && gzip -t -- "${@/%/.gz}"'\'' each && sync -f tree'
	[pigz]='pigz -6 -k -r -p $WORKERS tree'
	[zstd]='zstd -q -r -3 -T$WORKERS tree'
)

if [[ -n ${SYSTEMS:-} ]]; then
	read -ra systems <<<"$SYSTEMS"
fi
ours=(staged wire objects)
for system in "${systems[@]}"; do
	if [[ -z ${commands[$system]:-} ]]; then
		ours+=("$system")
		results=staged
		[[ $system != objects:* ]] || results=objects
		commands[$system]="bagpress run tree --codec ${system#objects:} --results $results --out packed --workers \$WORKERS --quiet"
	fi
done
for system in "${ours[@]}"; do
	commands[$system-back]='bagpress restore runs/*/* --out back --workers $WORKERS --quiet'
done
commands[xargs-back]='find tree -name "*.gz" -print0 | xargs -0 -P $WORKERS -n 100 gzip -d'
commands[xargs-verified-back]=${commands[xargs-back]}' && sync -f tree'
commands[pigz-back]='pigz -d -r -p $WORKERS tree'
commands[zstd-back]='zstd -q -d -r --rm -T$WORKERS tree'

once() { # SYSTEM; in the folder that has the tree
	PATH=$here/target/release:$PATH WORKERS=$workers bash -c "set -euo pipefail; ${commands[$1]}" \
		>../stdout 2>../stderr || {
		cat ../stderr >&2
		return 1
	}
}

tree=$temporary/tree
for dir in "${dirs[@]}"; do
	mkdir -p "$tree$dir"
	# A file with two names would be refused as well.
	(cd "$dir" && find . -regextype posix-extended \( -type f -not -regex '.*(\.|-|_)(gz|z|Z|tgz|taz|zst)' -o -type d -empty \) -print0 |
		tar --create --null --files-from=- --hard-dereference) | tar --extract --no-same-owner --directory="$tree$dir"
done
files=$(find "$tree" -type f | wc -l)
bytes=$(find "$tree" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
timed() { # SYSTEM; prints how many ms it took
	local began=$EPOCHREALTIME ended
	once "$1"
	ended=$EPOCHREALTIME
	echo $(((${ended/[.,]/} - ${began/[.,]/}) / 1000))
}

record() { # SYSTEM ROUND MS BYTES
	printf '{"verb":"files","system":"%s","round":%d,"wall_ms":%d,"output_bytes":%d,"load_1min":%s,"command":"%s"}\n' \
		"$1" "$2" "$3" "$4" "$(load)" "$(sed 's/["\\]/\\&/g' <<<"${commands[$1]//'$WORKERS'/$workers}")" >>"$raw"
}

is_ours() { [[ " ${ours[*]} " == *" $1 "* ]]; }

facts() { # FOLDER: what must come back, but for times of folders that have files
	(cd "$1" && find . -type f -printf '%p %m %s %T@\n' -o -type d -empty -printf '%p %m %T@\n' | sort)
}

open_all() { # every output below packed, by the program that others have
	find packed -type f -name '*.gz' -print0 | xargs -0 -r -P "$workers" -n 100 gzip -t
	find packed -type f -name '*.zst' -print0 | xargs -0 -r -P "$workers" -n 100 zstd -q -t
}

back() { # SYSTEM ROUND; in the folder that has the outputs
	local restored=tree
	if is_ours "$1"; then
		open_all
		restored=back/tree
	else
		# They write the outputs beside the inputs.
		find tree -type f -not -name '*.gz' -not -name '*.zst' -delete
	fi
	sync -f .
	record "$1-back" "$2" "$(timed "$1-back")" "$bytes"
	diff -r "$tree" "$restored"
	if is_ours "$1"; then
		diff <(facts "$tree") <(facts "$restored")
	fi
}

load() { cut -d' ' -f1 /proc/loadavg; }
echo "$files files, $((bytes >> 20)) MiB, $workers at a time, $rounds rounds, load $(load)"
python3 - "$files" "$bytes" "$workers" "${versions[@]}" >>"$raw" <<'PYTHON'
"""Prints what all runs have in common."""
import json
import os
import platform
import sys

with open("/proc/cpuinfo") as lines:
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
print(json.dumps({
    "verb": "files",
    "platform": {"cpu": cpu, "cores": os.cpu_count(), "memory_mib": memory, "kernel": platform.release()},
    "versions": sys.argv[4:],
    "files": int(sys.argv[1]),
    "input_bytes": int(sys.argv[2]),
    "workers": int(sys.argv[3]),
}))
PYTHON

for ((round = 0; round < rounds; round++)); do
	for ((place = 0; place < ${#systems[@]}; place++)); do
		system=${systems[(round + place) % ${#systems[@]}]} # nobody is always first
		# Outputs are kept to the end: ext4 looks for inodes that were freed a moment ago one by one.
		run=$temporary/$system.$round
		mkdir "$run"
		if is_ours "$system"; then
			ln -s "$tree" "$run/tree"
			below=packed
		else
			cp -r "$tree" "$run/tree"
			below=tree
		fi
		sync -f "$run" # what the one before has left to write is not this one's
		cd "$run"
		took=$(timed "$system")
		cd "$temporary"
		made=$(find "$run/$below" -type f \( -name '*.gz' -o -name '*.zst' \) -printf '%s\n' |
			awk '{ count++; sum += $1 } END { print count + 0, sum + 0 }')
		if [[ ${made% *} -ne $files ]]; then
			echo "error: $system made ${made% *} outputs of $files files" >&2
			exit 1
		fi
		record "$system" "$round" "$took" "${made#* }"
		if [[ -n ${BACK:-} ]]; then
			(cd "$run" && back "$system" "$round")
		fi
	done
done
if [[ -n ${BACK:-} ]]; then
	systems+=("${systems[@]/%/-back}")
fi

python3 - "$raw" "${systems[@]}" <<'PYTHON'
"""Prints medians, and ratios that were taken inside each round."""
import json
import sys
from statistics import median

with open(sys.argv[1]) as lines:
    runs = [run for run in map(json.loads, lines) if "system" in run]


def times(system):
    return [run["wall_ms"] for run in runs if run["system"] == system]


def spread(values, places):
    return f"{median(values):.{places}f} ({min(values):.{places}f}–{max(values):.{places}f})"


def ratio(system, reference):
    if system.endswith("-back"):
        reference += "-back"
    return spread([a / b for a, b in zip(times(system), times(reference))], 2)


systems = sys.argv[2:]
references = [system for system in ("xargs", "xargs-verified") if system in systems] or systems[:2]
row = ("{:<20}{:<26}" + "{:<20}" * len(references) + "{:>14}{:>6}").format
print(row("system", "ms: median (min–max)", *(f"× {system}" for system in references), "output bytes", "runs"))
for system in systems:
    size = next(run["output_bytes"] for run in runs if run["system"] == system)
    ratios = [ratio(system, reference) for reference in references]
    print(row(system, spread(times(system), 0), *ratios, size, len(times(system))))
PYTHON
