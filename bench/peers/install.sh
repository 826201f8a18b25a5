#!/usr/bin/env bash
# Builds the programs of the peers into .tools/peers, for `make bench-peers`. What only Debian has is installed in CI (CI=true);
# elsewhere nothing is installed as root, and what is missing is said. Without the headers of zstd or zfp the payload of C does without
# that codec: its peers have no row then, and say why.
set -euo pipefail
cd "$(dirname "$0")"

packages=()
optional=()
while read -r wanted package is_optional; do
	if command -v "$wanted" >/dev/null || [[ -f $wanted ]]; then continue; fi
	if [[ $is_optional ]]; then optional+=("$package"); else packages+=("$package"); fi
done <<'WANTED'
cc gcc
/usr/include/zlib.h zlib1g-dev
/usr/include/zstd.h libzstd-dev optional
/usr/include/zfp.h libzfp-dev optional
work_queue_worker coop-computing-tools
/usr/include/cctools/work_queue.h coop-computing-tools-dev
pigz pigz
zstd zstd
zfp zfp
WANTED
install=("${packages[@]}" "${optional[@]}")
if [[ ${#install[@]} -gt 0 && ${CI:-} && $(id -u) -eq 0 ]]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -qq
	apt-get install -qq --yes --no-install-recommends "${install[@]}" >/dev/null
elif [[ ${#packages[@]} -gt 0 ]]; then
	echo "error: no ${packages[*]} here; they need root" >&2
	echo "hint: run \`apt install --no-install-recommends ${install[*]}\` (Debian 12 has Work Queue as 9.9-2), then again" >&2
	exit 1
elif [[ ${#optional[@]} -gt 0 ]]; then
	echo "note: no ${optional[*]} here, which need root: pool, xargs and work_queue have no row with that codec" >&2
	echo "hint: run \`apt install --no-install-recommends ${optional[*]}\`, then again" >&2
fi

built=../../.tools/peers
mkdir -p "$built"
{
	echo 'static const char *const vocabulary[] = {'
	tr -s ' \n' '\n\n' <../../codec/src/vocabulary.txt | sed 's/.*/\t"&",/'
	echo '};'
} >"$built/vocabulary.h"
flags=(-lz)
if [[ -f /usr/include/zstd.h ]]; then flags+=(-DWITH_ZSTD -lzstd); fi
if [[ -f /usr/include/zfp.h ]]; then flags+=(-DWITH_ZFP -lzfp); fi
payload=(payload.c keystream.c field.c codecs.c)
build() { # NAME SOURCE... LIBRARY...
	# A product and a sum are two roundings: docs/generator.md.
	cc -std=gnu11 -O3 -ffp-contract=off -Wall -Wextra -Werror -I"$built" -pthread -o "$built/$1.new" "${@:2}" "${payload[@]}" "${flags[@]}" -lm
	mv "$built/$1.new" "$built/$1" # one that is running keeps its own
}
build compress_task compress_task.c
build pool pool.c
build work_queue_manager work_queue_manager.c -lwork_queue -ldttools
build libpayload.so -shared -fPIC
