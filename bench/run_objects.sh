#!/usr/bin/env bash
# As the RFC's scripts: bench/run_objects.sh TASKS BYTES WORKERS NAME
set -euo pipefail
exec "$(dirname "$0")/run_bag.sh" objects "$@"
