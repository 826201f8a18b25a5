#!/usr/bin/env bash
# One run of a generated bag (docs/benchmark.md); run_staged.sh and run_objects.sh name the result path.
set -euo pipefail

if [[ $# -ne 5 ]]; then
	cat >&2 <<USAGE
usage: bench/run_$1.sh TASKS BYTES WORKERS NAME

  bench/run_$1.sh 24 2097152 4 test1    24 tasks of 2 MiB on 4 local workers

Compresses a generated bag with zlib:6. Everything about the run is in runs/NAME/$1/ after it.
USAGE
	exit 2
fi

results=$1 tasks=$2 bytes=$3 workers=$4 name=$5
cd "$(dirname "$0")/.."
if [[ ! -x target/release/bagpress ]]; then
	cargo build --release --locked --bin bagpress
fi
exec target/release/bagpress run --tasks "$tasks" --bytes "$bytes" --codec zlib:6 --data random \
	--workers "$workers" --results "$results" --runs runs --name "$name"
