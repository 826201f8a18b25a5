# One image, one binary; the verb is the command: docker run bagpress worker --server nats://…
# nats-server is not in it: compose.yaml takes the official image.

FROM rust:1.95-slim-bookworm AS base
WORKDIR /src
# What compiles LLNL's library for the codec zfp, and reads its headers. A base that has it needs no network.
# hadolint ignore=DL3008
RUN dpkg --status cmake g++ libclang-dev make >/dev/null 2>&1 \
    || { apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ libclang-dev make \
    && rm -rf /var/lib/apt/lists/*; }

# What decides about the dependencies and nothing else: manifests, the lock, and one empty source per
# target. A change in our code gives the same files here, so that the next layer stays as it was.
FROM base AS manifests
COPY . .
RUN find . -path '*/src/*.rs' -not -name lib.rs -not -name main.rs -not -path '*/src/bin/*' -delete \
    && find . -name '*.rs' -exec truncate --size=0 {} + \
    && echo 'fn main() {}' > src/main.rs \
    && find . -type f -not -name '*.rs' -not -name Cargo.toml -not -name Cargo.lock -delete \
    && find . -type d -empty -delete

FROM base AS dependencies
# The tests of the image take a profile that builds faster.
ARG PROFILE=release
COPY --from=manifests /src .
RUN cargo build --profile "$PROFILE" --locked --features zfp --bin bagpress

FROM dependencies AS builder
ARG PROFILE=release
COPY . .
# cargo compares times, and a checkout may be older than the layer above
RUN find . -name '*.rs' -not -path './target/*' -exec touch {} + \
    && cargo build --profile "$PROFILE" --locked --features zfp --bin bagpress

FROM debian:bookworm-slim AS runtime
ARG PROFILE=release
LABEL org.opencontainers.image.title="bagpress" \
      org.opencontainers.image.description="Compress bags of tasks on many machines through NATS" \
      org.opencontainers.image.licenses="Apache-2.0"
# Run folders and keys: a named volume that is mounted here takes over owner and mode.
RUN install --directory --owner=65532 --group=65532 /runs \
    && install --directory --owner=65532 --group=65532 --mode=0700 \
        /auth /auth/server /auth/admin /auth/producer /auth/worker /auth/observer
COPY --from=builder /src/target/$PROFILE/bagpress /usr/local/bin/
USER 65532:65532
WORKDIR /
ENTRYPOINT ["bagpress"]
CMD ["--help"]
