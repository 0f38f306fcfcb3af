# The commands people and CI run. `make start` and `make test` are the only set-up there is.
SHELL := /bin/bash
TARGET := x86_64-unknown-linux-gnu
MINI := target/$(TARGET)/release/mini
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

WEB := src/addons/dashboard/web

.PHONY: start build test tour lint bench soak deb browser dashboard dashboard-check

build:
	@scripts/setup.sh build
	cargo build --release

start: build
	@scripts/setup.sh run
	$(MINI) start --wait-ready
	$(MINI) status
	$(MINI) kubectl get nodes

test: lint
	@scripts/setup.sh browser
	TEST_CONTAINERD=1 cargo test --workspace
	tests/tour/run

# What a user does in the first ten minutes, on a fresh machine of its own; the README shows it.
tour:
	@scripts/setup.sh test
	cargo build --package mini
	tests/tour/run

lint: dashboard-check
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo-deny --log-level error check licenses bans sources

# The dashboard's page, built anew from its source. Building mini itself needs no npm: the result is committed.
dashboard: $(WEB)/node_modules/.package-lock.json
	cd $(WEB) && npm run --silent build

# What is committed is what the source makes, and the source's own tests pass.
dashboard-check:
	@scripts/setup.sh test
	@$(MAKE) --silent $(WEB)/node_modules/.package-lock.json
	cd $(WEB) && npm run --silent check && npm test --silent

$(WEB)/node_modules/.package-lock.json: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --silent --ignore-scripts --no-audit --no-fund

# The dashboard in a browser, alone; `make test` does it too.
browser:
	@scripts/setup.sh test
	@scripts/setup.sh browser
	cargo test --test e2e -- the_dashboard_is_used

bench: build
	@scripts/setup.sh bench
	benches/run

soak: build
	@scripts/setup.sh test
	tests/soak/run
	tests/soak/random

deb: build
	scripts/package.sh
