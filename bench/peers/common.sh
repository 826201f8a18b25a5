# What the programs of bench/peers share; they source it. docs/benchmark.md describes how a peer is called.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
built=$here/../../.tools/peers

missing() { # WHAT
	echo "error: no $1 here" >&2
	echo "hint: \`make bench-peers\` installs what is missing, or says what needs root" >&2
	exit 1
}

need() { # PROGRAM...
	local program
	for program; do command -v "$program" >/dev/null || missing "${program##*/}"; done
}

library_version() { # of the C payload, for $CODEC
	"$built/compress_task" version "${CODEC:=zlib:6}" || missing "lib${CODEC%%:*} for the payload of C"
}

# Milliseconds of makespan and of what is not part of a first bag, as bagpress-bench reads them.
report() { # BEGAN ENDED, as EPOCHREALTIME gives them
	local us=$((${2/[.,]/} - ${1/[.,]/}))
	printf '{"makespan_ms":%d.%03d,"extra_ms":0}\n' $((us / 1000)) $((us % 1000))
}

usage() {
	echo "usage: bench/peers/${0##*/} version|run; docs/benchmark.md has the variables of run" >&2
	exit 2
}
