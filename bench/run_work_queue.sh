#!/usr/bin/env bash
# See docs/benchmark.md. Usage: bench/run_work_queue.sh TASKS BYTES WORKERS NAME
set -euo pipefail
exec "$(dirname "$0")/run_peer.sh" work_queue "$@"
