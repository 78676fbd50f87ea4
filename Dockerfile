# The bridge's image: one static program, the trusted certificates and the licences. No shell, no package manager, a numeric user.
# Keys, tokens and records are not in the image.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag concertpos-bridge .
#   docker run --read-only --publish 8080:8080 --volume bridge:/data \
#     --env BRIDGE_INSTANCES__MYFESTIVAL__API_KEY concertpos-bridge

# Any image of Debian or Ubuntu with rustup and the Rust version in Cargo.toml.
ARG BASE=rust:1.95-slim-bookworm

FROM ${BASE} AS tools
# Unpinned, to get security fixes of the distribution; only its certificates are copied into the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev musl-tools python3 \
    && rm -rf /var/lib/apt/lists/*
# Static, since the image has no C library. Builds for the architecture of the build machine.
RUN rustup target add "$(uname -m)-unknown-linux-musl" \
    && cargo install --locked cargo-auditable@0.7.5
WORKDIR /build

# Builds the crates with an empty program, so that only a change of Cargo.toml or Cargo.lock rebuilds them.
FROM tools AS crates
COPY Cargo.toml Cargo.lock ./
COPY simulator/Cargo.toml simulator/
COPY benches benches
RUN mkdir src simulator/src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs simulator/src/lib.rs \
    && cargo auditable build --locked --release --target "$(uname -m)-unknown-linux-musl"

FROM crates AS program
COPY build.rs LICENSE-APACHE LICENSE-MIT ./
COPY build build
COPY openapi openapi
COPY scripts/licences scripts/
COPY simulator/src simulator/src
COPY src src
# For `--version`: the repository is not here.
ARG REVISION=unknown
# touch, since the files may be older than the empty ones that they replace. The program holds the list of its crates.
RUN touch src/main.rs src/lib.rs simulator/src/lib.rs \
    && GIT_COMMIT="${REVISION}" cargo auditable build --locked --release --target "$(uname -m)-unknown-linux-musl" \
    && mkdir --parents /image/etc/ssl/certs /image/data /image/tmp /image/licences \
    && chmod 0700 /image/data \
    && chmod 1777 /image/tmp \
    && chown 65532:65532 /image/data \
    && scripts/licences "$(uname -m)-unknown-linux-musl" >/image/licences/third-party-licences.txt \
    && cp LICENSE-APACHE LICENSE-MIT /image/licences/ \
    && cp "target/$(uname -m)-unknown-linux-musl/release/concertpos-bridge" /image/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ConcertPOS bridge" \
      org.opencontainers.image.description="HTTP for ConcertPOS: a bridge from REST to the gateway's WebSocket" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.authors="The ConcertPOS bridge authors" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# One layer, which keeps owners and modes.
COPY --from=program /image/ /
# A number, so that Kubernetes can verify that it is not root.
USER 65532:65532
# Puts data/journal and data/cache, the defaults of the settings, into the volume.
WORKDIR /
# The environment overrides a configuration file: to listen elsewhere, set this variable. The bridge does not start on an
# address other than loopback without tokens.
ENV BRIDGE_SERVER__LISTEN=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/concertpos-bridge", "healthcheck"]
ENTRYPOINT ["/concertpos-bridge"]
CMD ["serve"]
