#!/usr/bin/env bash
# zstd as a peer, at the level of the bag if that is one of zstd, and else at its default level: it compresses the generated inputs, which are files before it starts.
. "$(dirname "$0")/common.sh"
need zstd

case ${1:-} in
	version) zstd --version ;;
	run)
		level=3
		if [[ ${CODEC:-} == zstd:* ]]; then level=$LEVEL; fi
		cd "$INPUTS"
		began=$EPOCHREALTIME
		zstd -q -r -"$level" -T"$WORKERS" .
		ended=$EPOCHREALTIME
		for ((task = 0; task < TASKS; task++)); do mv "in_$task.zst" "$FOLDER/results/out_$task.zst"; done
		report "$began" "$ended"
		;;
	*) usage ;;
esac
