#!/usr/bin/env bash
# The in-process limit of the peers: their payload in a thread pool.
. "$(dirname "$0")/common.sh"
pool=$built/pool
need "$pool"

case ${1:-} in
	version) library_version ;;
	run) exec "$pool" "$TASKS" "$BYTES" "$WORKERS" "$CODEC" "$DATA" "$KEY" "$BAGS" "$FOLDER" ;;
	*) usage ;;
esac
