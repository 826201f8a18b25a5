#!/usr/bin/env bash
# One run of a generated bag by a peer (docs/benchmark.md); run_work_queue.sh and run_ray.sh name it.
set -euo pipefail

if [[ $# -ne 5 ]]; then
	cat >&2 <<USAGE
usage: bench/run_$1.sh TASKS BYTES WORKERS NAME

  bench/run_$1.sh 24 2097152 4 test1    24 tasks of 2 MiB on 4 local workers

Compresses a generated bag with zlib:6. Everything about the run is in runs/NAME/$1/ after it. \`make bench-peers\` installs
what it needs.
USAGE
	exit 2
fi

system=$1 tasks=$2 bytes=$3 workers=$4 name=$5
cd "$(dirname "$0")/.."
if [[ ! -x target/release/bagpress-bench ]]; then
	cargo build --release --locked --package bagpress-bench --bin bagpress-bench
fi
exec target/release/bagpress-bench peer "$system" --tasks "$tasks" --bytes "$bytes" --codec zlib:6 --data random \
	--workers "$workers" --runs runs --name "$name"
