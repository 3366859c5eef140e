# ictus in a container, for CPUs:   docker build --tag ictus .
# The same for an NVIDIA GPU:       docker build --tag ictus:cuda --target cuda .
# The shipped models and the page are in the binary. There is no Postgres in it: DATABASE_URL says where one is, see docker-compose.yml.

FROM node:22-bookworm-slim AS web
WORKDIR /ictus/web
COPY web/package.json web/package-lock.json ./
RUN npm ci --no-fund --no-audit
COPY web ./
RUN npm run build

FROM rust:1.95-bookworm AS rust

FROM rust AS build
WORKDIR /ictus
COPY . .
COPY --from=web /ictus/web/dist web/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/ictus/target \
    cargo build --release --locked && install -D target/release/ictus /out/ictus

# With cuDNN, which the convolutions use.
FROM nvidia/cuda:12.6.3-cudnn-devel-ubuntu24.04 AS build-cuda
# Ampere and later; the kernels are compiled for one capability and run on all above it.
ENV CUDA_COMPUTE_CAP=80 \
    CARGO_HOME=/usr/local/cargo \
    RUSTUP_HOME=/usr/local/rustup \
    PATH=/usr/local/cargo/bin:$PATH
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
WORKDIR /ictus
COPY . .
COPY --from=web /ictus/web/dist web/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/ictus/target,id=ictus-target-cuda \
    cargo build --release --locked --features cuda && install -D target/release/ictus /out/ictus

FROM nvidia/cuda:12.6.3-cudnn-runtime-ubuntu24.04 AS cuda
RUN install --directory --owner=10001 --group=10001 /data
COPY --from=build /out/ictus /usr/local/bin/ictus-cpu
COPY --from=build-cuda /out/ictus /usr/local/bin/ictus-cuda
# Takes the first one if its libraries are there: the driver's are when the container was given a GPU.
COPY --chmod=755 .ci/start-cuda /usr/local/bin/ictus
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# bash can ask over TCP itself, so that the image needs no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health/ready HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -u 3 line && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["ictus"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data", "--key-file", "/run/secrets/ictus_keys", "--device", "auto"]

FROM debian:bookworm-slim AS cpu
RUN install --directory --owner=10001 --group=10001 /data
COPY --from=build /out/ictus /usr/local/bin/ictus
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# bash can ask over TCP itself, so that the image needs no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /health/ready HTTP/1.0\\r\\n\\r\\n' >&3 && read -r -u 3 line && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["ictus"]
CMD ["serve", "--listen", "0.0.0.0:8080", "--data", "/data", "--key-file", "/run/secrets/ictus_keys", "--device", "cpu"]
