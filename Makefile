# The commands people and CI run. `make start` and `make test` are the only set-up there is.
SHELL := /bin/bash
TARGET := x86_64-unknown-linux-gnu
MINI := target/$(TARGET)/release/mini
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.PHONY: start build test lint unit it e2e bench soak

build:
	@scripts/setup.sh build
	cargo build --release

start: build
	@scripts/setup.sh run
	$(MINI) start --wait-ready
	$(MINI) status
	$(MINI) kubectl get nodes

test: lint
	TEST_CONTAINERD=1 cargo test --workspace

lint:
	@scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo-deny --log-level error check licenses bans sources

bench: build
	@scripts/setup.sh test
	benches/run

soak: build
	@scripts/setup.sh test
	tests/soak/run
