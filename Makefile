# The entry points. `make help` lists them; CI calls the same.

CARGO ?= cargo
GUESTS_TARGET := target/guests
GUESTS := $(GUESTS_TARGET)/wasm32-wasip2/release
CONFIG ?= config/demo.toml
CARGO_DENY_VERSION := 0.20.2

.DEFAULT_GOAL := help
.PHONY: help setup build guests run test test-unit test-e2e test-browser lint format soak soak-memory bench clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## install what builds and tests need (may be run again at any time)
	@scripts/setup

build: ## build the server
	$(CARGO) build --locked --workspace

guests: ## build the receivers, and those that only tests use
	cd guest-receivers && CARGO_TARGET_DIR=../$(GUESTS_TARGET) $(CARGO) build --locked --release --target wasm32-wasip2

run: build guests ## start the demo: a server, an agent that reports this machine, a page that shows it live
	@scripts/run-demo $(CONFIG)

test: lint test-unit test-e2e test-browser ## run everything that CI runs

test-unit: guests ## test each crate by itself
	$(CARGO) test --locked --workspace --exclude e2e
	cd guest-receivers && CARGO_TARGET_DIR=../$(GUESTS_TARGET) $(CARGO) test --locked --release -p dashboard

test-e2e: build guests ## test the real binary from outside
	$(CARGO) test --locked --workspace --test e2e

test-browser: build guests ## test the dashboard in headless Chromium
	cd tests/browser && npm test

lint: ## formatting, clippy, licences and duplicates
	$(CARGO) fmt --all --check
	cd guest-receivers && $(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	cd guest-receivers && CARGO_TARGET_DIR=../$(GUESTS_TARGET) $(CARGO) clippy --locked --release --target wasm32-wasip2 -- -D warnings
	$(CARGO) deny --locked --all-features check bans licenses sources

format: ## format all code
	$(CARGO) fmt --all
	cd guest-receivers && $(CARGO) fmt --all

soak: build guests ## run the oracle for SOAK seconds (600 if not said): kills, full disks, failing receivers
	WHARF_ORACLE_SECONDS=$(or $(SOAK),600) $(CARGO) test --locked --workspace --test e2e -- oracle --nocapture

soak-memory: build guests ## watch the server's memory and disk under load for SOAK seconds (600 if not said)
	@BENCH_SOAK=$(or $(SOAK),600) tests/bench/memory

bench: build guests ## print what this machine takes beside its ceilings, and what handling, the sandbox, connections, hostile receivers and swaps cost
	@$(CARGO) build --locked --workspace --example echo --example plain_file --example native_against_sandboxed --example speed --example compile_component --example idle
	@tests/bench/run
	@echo
	@tests/bench/cost
	@echo
	@target/debug/examples/native_against_sandboxed
	@echo
	@tests/bench/idle
	@echo
	@target/debug/examples/speed
	@target/debug/examples/speed $(GUESTS)/guest_recorder.wasm
	@echo
	@tests/bench/isolation
	@echo
	@tests/bench/swap

clean: ## remove everything that was built, and the demo's data
	$(CARGO) clean
	rm -rf tests/browser/node_modules data
