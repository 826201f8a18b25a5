#!/usr/bin/env bash
# The zstd command, a process for each file, as a peer: the generated inputs are files before it starts.
. "$(dirname "$0")/common.sh"
need xargs zstd

case ${1:-} in
	version)
		xargs --version | head -n 1
		zstd --version
		;;
	run)
		cd "$INPUTS"
		began=$EPOCHREALTIME
		find . -name 'in_*' -print0 | xargs -0 -n 1 -P "$WORKERS" zstd -q -"$LEVEL" -T1
		ended=$EPOCHREALTIME
		for ((task = 0; task < TASKS; task++)); do mv "in_$task.zst" "$FOLDER/results/out_$task.zst"; done
		report "$began" "$ended"
		;;
	*) usage ;;
esac
