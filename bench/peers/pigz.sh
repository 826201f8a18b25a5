#!/usr/bin/env bash
# pigz as a peer: it compresses the generated inputs, which are files before it starts.
. "$(dirname "$0")/common.sh"
need pigz

case ${1:-} in
	version) pigz --version ;;
	run)
		cd "$INPUTS"
		began=$EPOCHREALTIME
		find . -name 'in_*' -print0 | xargs -0 pigz -"$LEVEL" -k -p "$WORKERS"
		ended=$EPOCHREALTIME
		for ((task = 0; task < TASKS; task++)); do mv "in_$task.gz" "$FOLDER/results/out_$task.gz"; done
		report "$began" "$ended"
		;;
	*) usage ;;
esac
