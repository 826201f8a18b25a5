#!/usr/bin/env bash
# Work Queue as a peer: a manager and WORKERS `work_queue_worker` processes of one core each. Everything about the run is in FOLDER.
. "$(dirname "$0")/common.sh"
manager=$built/work_queue_manager task=$built/compress_task
need work_queue_worker "$manager" "$task"

run() {
	mkdir -p "$FOLDER/logs" "$FOLDER/workers"
	(umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$FOLDER/password")
	"$manager" "$TASKS" "$BYTES" "$WORKERS" "$CODEC" "$DATA" "$KEY" "$BAGS" "$FOLDER" "$task" 2>"$FOLDER/logs/manager.log" &
	local managing=$! worker workers=()
	trap 'kill "$managing" "${workers[@]}" 2>/dev/null || true' EXIT
	until [[ -f $FOLDER/port ]]; do
		kill -0 "$managing" 2>/dev/null || failed
		sleep 0.005
	done
	for ((worker = 0; worker < WORKERS; worker++)); do
		# A second worker on a machine would report all of its cores once more.
		work_queue_worker --cores 1 --single-shot --parent-death --timeout 60 --password "$FOLDER/password" \
			--workdir "$FOLDER/workers" 127.0.0.1 "$(<"$FOLDER/port")" >"$FOLDER/logs/worker_$worker.log" 2>&1 &
		workers+=($!)
	done
	wait "$managing" || failed
	wait "${workers[@]}" || true # one that was sent away ends with 1 in some versions
	trap - EXIT
	rm -rf "$FOLDER/workers" "$FOLDER/password" "$FOLDER/port"
}

failed() {
	cat "$FOLDER/logs/manager.log" >&2
	exit 1
}

case ${1:-} in
	version)
		work_queue_worker --version | head -n 1
		library_version
		;;
	run) run ;;
	*) usage ;;
esac
