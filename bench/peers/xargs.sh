#!/usr/bin/env bash
# xargs as a peer: a process for each task, with nobody to manage them.
. "$(dirname "$0")/common.sh"
task=$built/compress_task
need xargs "$task"

case ${1:-} in
	version)
		xargs --version | head -n 1
		library_version
		;;
	run)
		cd "$FOLDER/results"
		began=$EPOCHREALTIME
		seq 0 $((TASKS - 1)) | xargs -P "$WORKERS" -I {} \
			"$task" {} "$BYTES" "$CODEC" "$DATA" "$KEY" out_{}.bin stats_{}.json
		report "$began" "$EPOCHREALTIME"
		;;
	*) usage ;;
esac
