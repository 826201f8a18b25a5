# What a newcomer types, and the only place that knows how; .ci/run calls it. `make` lists the targets.
# It needs Rust, Python 3 with pip, a C compiler and nothing global: tools go to .tools/, by tools.lock.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-disk soak model test-extras test-compose test-peers engine lint tools tools-cli bench bench-peers drill fuzz hooks clean

NATS_CLI := v0.5.0
COMPOSE := v2.40.3
STAMP := $(shell date +%Y%m%d-%H%M%S)

# Ours, not whichever is on PATH; another one by BAGPRESS_NATS_SERVER=/path make …
export BAGPRESS_NATS_SERVER ?= $(CURDIR)/.tools/bin/nats-server

# What everything is built with, so that nothing is compiled twice. The codec zfp is made with cmake and libclang: those of
# tools.lock, unless somebody names others.
FEATURES := --features zfp
ZFP := .tools/zfp/.installed
export CMAKE ?= $(CURDIR)/.tools/zfp/cmake/data/bin/cmake
export LIBCLANG_PATH ?= $(CURDIR)/.tools/zfp/clang/native
export BINDGEN_EXTRA_CLANG_ARGS ?= -I$(shell cc -print-file-name=include)

help: ## this list
	@awk -F ' *## ' '/^[a-z-]+:.* ## / { split($$1, target, ":"); printf "make %-12s %s\n", target[1], $$2 }' Makefile

DEMO := demo-$(STAMP)
demo: .tools/bin/nats-server $(ZFP) ## a generated bag by both result paths, then a folder of real files
	cargo build --release --locked $(FEATURES) --bin bagpress
	target/release/bagpress run --tasks 24 --bytes 2MiB --codec zlib:6 --workers 4 --results staged --name $(DEMO)
	target/release/bagpress run --tasks 24 --bytes 2MiB --codec zlib:6 --workers 4 --results objects --name $(DEMO)
	.ci/same-digests runs/$(DEMO)/staged runs/$(DEMO)/objects
	target/release/bagpress run --tasks 24 --bytes 2MiB --codec zfp:accuracy=1e-3 --data field --workers 4 --name $(DEMO)-zfp
	target/release/bagpress run docs --codec gzip:6 --out target/$(DEMO) --name $(DEMO)-docs
	@find docs -type f | while read -r file; do \
		gzip -dc "target/$(DEMO)/$$file.gz" | cmp - "$$file" || exit 1; \
	done
	@echo "docs: $$(find docs -type f | wc -l) files, and gzip -d gives each of them again"

# Tests wait more than they compute: for leases, for reconnects. More than two for each of two cores, and what is promised within seconds is
# late.
export RUST_TEST_THREADS ?= 4

test test-extras: export TMPDIR := $(shell .ci/test-folder)

test: .tools/bin/nats-server $(ZFP) ## all tests that need no Go
	cargo test --workspace --locked $(FEATURES)

model: ## the explicit-state model with one crash more in every configuration; minutes and gigabytes
	cargo test --locked --package bagpress-model --test holds -- --ignored --nocapture

test-extras: .tools/bin/nats-server $(ZFP) .tools/nats-cli-$(NATS_CLI) ## tests against the `nats` command line and Go's gzip; needs Go
	PATH="$(CURDIR)/.tools/bin:$$PATH" cargo test --workspace --locked --features zfp,nats-cli,bagpress-codec/go --test cli_interop --test join_go

test-compose: engine .tools/bin/nats-server $(ZFP) .tools/compose-$(COMPOSE) ## compose.yaml on an engine of its own; needs root, and says so
	cargo test --locked --features zfp,compose --test compose --no-run
	.ci/with-engine sh -c '.ci/base-images && cargo test --locked --features zfp,compose --test compose'

test-disk: .tools/bin/nats-server $(ZFP) ## tests with a disk that hangs; they need root and a loop device, and say so
	@if .ci/has-loop-device; then cargo test --workspace --locked $(FEATURES) --test it -- --ignored slow_disk; \
	else echo "left out: the tests of a disk that hangs; run them as root where a file can be mounted (-o loop)"; \
		[ -z "$$CI" ]; fi

SOAK_RUNS ?= 20
soak: .tools/bin/nats-server ## `make test` SOAK_RUNS (20) times in a row, until one is red; an hour and more
	.ci/soak $(SOAK_RUNS)

lint: tools $(ZFP) ## what review should not have to say
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cargo check --locked --bin bagpress # without zfp, for who has no libclang
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked $(FEATURES)
	python3 .ci/modules_test.py
	.ci/check-imports
	.tools/bin/typos
	.tools/bin/hadolint Dockerfile
	PYTHONPATH=.tools/lint python3 -m check_jsonschema --builtin-schema vendor.compose-spec compose.yaml
	install -D --mode=644 broker/nats.conf target/nats/nats.conf
	cargo run --quiet --locked $(FEATURES) -- broker --auth target/nats/auth
	BAGPRESS_MAX_FILE=16GB .tools/bin/nats-server --config target/nats/nats.conf -t

tools: .tools/bin/nats-server .tools/bin/typos ## the pinned tools of `test` and `lint`, into .tools/
tools-cli: .tools/nats-cli-$(NATS_CLI) ## the `nats` command line, into .tools/bin; needs Go

.tools/bin/nats-server: tools.lock
	.ci/install-tools test

$(ZFP): tools.lock
	.ci/install-tools zfp
	@touch $@

# A reader of zfp that is not ours, for Python.
.tools/zfpy/.installed: tools.lock
	.ci/install-tools zfpy
	@touch $@

.tools/bin/typos: tools.lock
	.ci/install-tools lint

.tools/nats-cli-$(NATS_CLI):
	@command -v go >/dev/null || { echo "error: no Go here, and the \`nats\` command line is built from source" >&2; \
		echo "hint: install Go 1.24 or newer; \`make test\` does without it" >&2; exit 1; }
	GOBIN="$(CURDIR)/.tools/bin" go install github.com/nats-io/natscli/nats@$(NATS_CLI)
	@touch $@

engine:
	@.ci/install-engine

# Not a plain `go install`: its go.mod excludes versions, which only a main module may.
.tools/compose-$(COMPOSE): | engine
	@command -v go >/dev/null || { echo "error: no Go here, and Docker Compose is built from source" >&2; \
		echo "hint: install Go 1.24 or newer" >&2; exit 1; }
	cd "$$(go mod download -json github.com/docker/compose/v2@$(COMPOSE) | sed -n 's/^\t"Dir": "\(.*\)".*/\1/p')" && \
		go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$(COMPOSE)" \
			-o "$(CURDIR)/.tools/docker/cli-plugins/docker-compose" ./cmd
	@touch $@

BENCH := bench-$(STAMP)
bench: .tools/bin/nats-server $(ZFP) ## the bag of docs/benchmark.md by both paths, and the limits of this machine
	cargo build --release --locked $(FEATURES) --bin bagpress
	bench/run_staged.sh 24 2097152 4 $(BENCH)
	bench/run_objects.sh 24 2097152 4 $(BENCH)
	cargo run --release --locked --package bagpress-bench --bin bagpress-bench -- limit

bench-peers: .tools/ray/.installed .tools/zstandard/.installed ## what `bagpress-bench compare` needs: Work Queue, Ray, pigz, zstd; says what needs root
	@$(MAKE) --no-print-directory .tools/zfpy/.installed || \
		echo "note: no zfpy here, of which there are files for Python 3.11 to 3.14: ray has no row with zfp" >&2
	bench/peers/install.sh

# 260 MB, of which nothing else has a use.
.tools/ray/.installed: tools.lock
	.ci/install-tools ray
	@touch $@

# zstd in Python.
.tools/zstandard/.installed: tools.lock
	.ci/install-tools zstandard
	@touch $@

test-peers: .tools/bin/nats-server $(ZFP) .tools/zfpy/.installed bench-peers ## a short bag by every peer of the comparison, and what `zstd` and `zfp` open of ours
	@# With the features of all packages, so that nothing of `make test` is compiled again; one after the other, as Ray gives up a
	@# start that takes 30 s.
	cargo test --workspace --locked --features zfp,bagpress-bench/peers --test peers -- --test-threads=1
	cargo test --workspace --locked --features zfp,stock-zstd,bagpress-codec/stock-zstd,stock-zfp --test zstd_stock --test zfp_stock

DRILL_FAULTS ?= 1000
DRILL_SEED ?= 7
drill: .tools/bin/nats-server $(ZFP) ## a random disaster of DRILL_FAULTS (1000) faults, by DRILL_SEED (7); a quarter of an hour
	cargo build --release --locked --workspace $(FEATURES) --bins
	target/release/bagpress-bench drill --faults $(DRILL_FAULTS) --seed $(DRILL_SEED)

FUZZ_SECONDS ?= 60
FUZZ := .tools/fuzz/bin/cargo-fuzz
fuzz: $(FUZZ) ## what arrives from the wire or from disk, FUZZ_SECONDS (60) a target; needs a C++ compiler
	@# libFuzzer needs flags that a stable compiler gives to those who say that they know.
	cd fuzz && for target in $$(RUSTC_BOOTSTRAP=1 $(CURDIR)/$(FUZZ) list); do \
		mkdir -p "corpus-found/$$target" && RUSTC_BOOTSTRAP=1 $(CURDIR)/$(FUZZ) run "$$target" \
			"corpus-found/$$target" "corpus/$$target" -- -dict=words.dict -max_len=8192 \
			-max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

$(FUZZ):
	cargo install --locked --root .tools/fuzz --version 0.13.2 cargo-fuzz

hooks: ## check format and spelling before each commit
	git config core.hooksPath .githooks

clean: ## all that was built, fetched or made by `demo` and `bench`; other runs stay
	cargo clean
	rm -rf .tools runs/demo-* runs/bench-*
