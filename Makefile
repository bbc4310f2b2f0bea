# Parlor's commands. `make` alone lists them. Each one sets up what it needs first.
#
# The tests run under plain `cargo test`: a bare machine then needs nothing but Rust, and doc tests run with
# the rest (cargo-nextest is quicker, but skips doc tests and takes minutes to compile).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
# Cargo.lock is part of the project: a build that would change it is an error.
LOCKED := --locked

# make demo
CLIP ?= $(wildcard ../shared/media/bigbuckbunny.mp4)
SECONDS ?= 15
# make fuzz
SECS ?= 60
TARGET ?=
# make chaos
SEEDS ?= 1..200
VERBOSE ?=
# make soak
HOURS ?= 2
THIN_HOURS ?= 24
MINUTES ?= 15

export CLIP

.PHONY: help setup setup-check demo test lint check bench fuzz soak faults chaos

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing for demo and test (Debian, Ubuntu)
	@scripts/setup.sh

setup-check:
	@scripts/setup.sh check

demo: setup ## a relay and four people in one room (CLIP=file.mp4 SECONDS=15)
	$(CARGO) run $(LOCKED) -p parlor-benches --bin parlor-demo -- --seconds $(SECONDS) $(if $(CLIP),--clip "$$CLIP")

test: setup ## the whole test suite
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast

lint: setup ## formatting and clippy, every warning an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings

check: setup-check lint ## lint, every combination of features, documentation, licences and bans
	$(CARGO) clippy $(LOCKED) -p parlor-transport --no-default-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p parlor-media --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) -p parlor-client --no-default-features -- -D warnings
	$(CARGO) clippy $(LOCKED) -p parlor-media --features camera,audio-devices --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) -p parlor-client --features camera,audio-devices --all-targets -- -D warnings
	$(CARGO) clippy $(LOCKED) -p parlor-tests --features fuzz --bin fuzz -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps
	$(CARGO) deny --locked --all-features check licenses bans sources

bench: setup ## the measurements, in virtual time and over loopback, and which goals are met
	$(CARGO) run --release $(LOCKED) -p parlor-benches --bin parlor-bench -- report
	$(CARGO) run --release $(LOCKED) -p parlor-benches --bin parlor-bench -- goals

fuzz: setup ## fuzz every wire decoder and the room machines (SECS=60 each, TARGET=one of tests/corpus)
	scripts/fuzz.sh $(SECS) $(TARGET)

soak: setup ## hours of people coming and going: what stays behind? (HOURS=2 THIN_HOURS=24 MINUTES=15)
	$(CARGO) build --release $(LOCKED) -p parlor-tests -p parlor-relay --bin soak --bin parlor-relay
	target/release/soak virtual --hours $(HOURS)
	target/release/soak virtual --hours $(THIN_HOURS) --thin
	target/release/soak loopback --minutes $(MINUTES)

faults: setup ## plant the faults of tests/faults, and expect their tests to turn red
	scripts/faults.sh

chaos: setup ## calls of ten to whom everything happens, in virtual time (SEEDS=1..200 or 17, VERBOSE=1)
	$(CARGO) run $(LOCKED) -p parlor-tests --bin chaos -- $(SEEDS) $(if $(VERBOSE),--verbose)
