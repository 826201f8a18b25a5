#!/usr/bin/env bash
# The zfp command, a process for each file, as a peer: the generated inputs are files before it starts.
. "$(dirname "$0")/common.sh"
need xargs zfp

# CODEC, such as zfp:accuracy=1e-3,f32,8x256x256, as the command wants it: -a 1e-3 -f -3 256 256 8.
flags() {
	local mode scalar shape extent reversed=()
	IFS=, read -r mode scalar shape <<<"${CODEC#zfp:}"
	case $mode in
		reversible) echo -R ;;
		accuracy=*) echo -a "${mode#*=}" ;;
		precision=*) echo -p "${mode#*=}" ;;
		rate=*) echo -r "${mode#*=}" ;;
	esac
	for extent in ${shape//x/ }; do reversed=("$extent" "${reversed[@]}"); done # it wants the fastest dimension first
	case $scalar in
		i32 | i64) echo -t "$scalar" ;;
		f32) echo -f ;;
		f64) echo -d ;;
	esac
	echo "-${#reversed[@]}" "${reversed[@]}"
}

case ${1:-} in
	version)
		xargs --version | head -n 1
		{ zfp 2>&1 || true; } | sed -n 's/^\(zfp version [0-9.]*\).*/\1/p' # it says so only where it is told nothing
		;;
	run)
		read -ra flags <<<"$(flags | tr '\n' ' ')"
		cd "$INPUTS"
		began=$EPOCHREALTIME
		seq 0 $((TASKS - 1)) | xargs -P "$WORKERS" -I {} zfp -q "${flags[@]}" -h -i in_{} -z "$FOLDER/results/out_{}.zfp"
		report "$began" "$EPOCHREALTIME"
		;;
	*) usage ;;
esac
