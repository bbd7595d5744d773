# Two images: `shim`, the service in front of the store, and `envoy`, an Envoy that has the plugin.

FROM rust:1.95-bookworm AS build
RUN rustup target add wasm32-wasip1
WORKDIR /lanekeeper
COPY . .
RUN cargo build --locked --release -p lanekeeper-plugin --target wasm32-wasip1 \
 && cargo build --locked --release -p lanekeeper-shim

FROM debian:12-slim AS shim
USER nobody
COPY --from=build /lanekeeper/target/release/lanekeeper-shim /usr/local/bin/lanekeeper-shim
ENTRYPOINT ["lanekeeper-shim"]

FROM envoyproxy/envoy:v1.40.0 AS envoy
WORKDIR /lanekeeper
COPY --from=build /lanekeeper/target/wasm32-wasip1/release/lanekeeper_plugin.wasm target/wasm32-wasip1/release/
