#!/usr/bin/env bash
# Builds the programs of the peers into .tools/peers, for `make bench-peers`. What only Debian has is installed in CI (CI=true);
# elsewhere nothing is installed as root, and what is missing is said.
set -euo pipefail
cd "$(dirname "$0")"

packages=()
while read -r wanted package; do
	command -v "$wanted" >/dev/null || [[ -f $wanted ]] || packages+=("$package")
done <<'WANTED'
cc gcc
/usr/include/zlib.h zlib1g-dev
work_queue_worker coop-computing-tools
/usr/include/cctools/work_queue.h coop-computing-tools-dev
pigz pigz
zstd zstd
zfp zfp
WANTED
if [[ ${#packages[@]} -gt 0 ]]; then
	if [[ ! ${CI:-} || $(id -u) -ne 0 ]]; then
		echo "error: no ${packages[*]} here; they need root" >&2
		echo "hint: run \`apt install --no-install-recommends ${packages[*]}\` (Debian 12 has Work Queue as 9.9-2), then again" >&2
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends "${packages[@]}" >/dev/null
fi

built=../../.tools/peers
mkdir -p "$built"
{
	echo 'static const char *const vocabulary[] = {'
	tr -s ' \n' '\n\n' <../../codec/src/vocabulary.txt | sed 's/.*/\t"&",/'
	echo '};'
} >"$built/vocabulary.h"
build() { # NAME SOURCE... -- LIBRARY...
	cc -std=gnu11 -O3 -Wall -Wextra -Werror -I"$built" -pthread -o "$built/$1.new" "${@:2}"
	mv "$built/$1.new" "$built/$1" # one that is running keeps its own
}
build compress_task compress_task.c payload.c -lz
build pool pool.c payload.c -lz
build work_queue_manager work_queue_manager.c payload.c -lwork_queue -ldttools -lz -lm
build libpayload.so -shared -fPIC payload.c -lz
