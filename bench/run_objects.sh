#!/usr/bin/env bash
# See docs/benchmark.md. Usage: bench/run_objects.sh TASKS BYTES WORKERS NAME
set -euo pipefail
exec "$(dirname "$0")/run_bag.sh" objects "$@"
