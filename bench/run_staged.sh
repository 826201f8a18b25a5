#!/usr/bin/env bash
# See docs/benchmark.md. Usage: bench/run_staged.sh TASKS BYTES WORKERS NAME
set -euo pipefail
exec "$(dirname "$0")/run_bag.sh" staged "$@"
