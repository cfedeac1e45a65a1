# Every way to run something in this repository. CI calls these targets and nothing else.

.PHONY: help setup demo guest test check bench python compat docs soak

help: ## Lists these targets.
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile

setup: ## Installs what this system lacks: QEMU, a C compiler, Python, the Linux guest of the tests.
	@scripts/setup

demo: ## Runs a real guest in a real QEMU, and shows what ratite does with it.
	@scripts/setup --demo
	@cargo run --release --quiet --locked --package ratite-cli -- demo

guest: setup ## Makes a small Linux guest to play with, below target/linux-guest, as the guide's walk-through does.
	@cargo run --quiet --locked --package ratite-tests --bin linux-guest

test: setup ## Runs every test: of files, of the protocol, of processes, of guests, of the documentation, of Python.
	@cargo build --workspace --bins --examples --tests --locked
	@cargo test --workspace --locked --no-fail-fast
	@scripts/python test

check: setup ## Looks at format, lints, floors, licences, types and documentation; starts no machine.
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@scripts/bench --check
	@cargo test --package ratite-tests --test tidy --test licences --locked
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	@scripts/python check
	@if command -v cargo-deny >/dev/null; then cargo deny check licenses bans sources; fi

soak: setup ## Runs 32 machines at once with faults for SECONDS (1200), and counts what is lost or left.
	@cargo build --release --package ratite-tests --bins --locked
	@target/release/soak --seconds $(or $(SECONDS),1200)

docs: ## Builds the API documentation into target/doc; manual pages and completions into target/doc-cli.
	@cargo doc --workspace --no-deps --locked
	@scripts/cli-docs target/doc-cli

bench: ## Measures ratite beside the floor and beside others; ROUNDS (4), ONLY (scenarios), DOCS=1 writes docs/benchmarks.md.
	@scripts/setup --bench
	@ROUNDS=$(ROUNDS) ONLY=$(ONLY) DOCS=$(DOCS) scripts/bench

python: setup ## Builds the Python package, installs it below target/python, and tests it.
	@cargo build --package ratite-tests --bins --locked
	@scripts/python

compat: setup ## Runs QEMU's own Python tests with QEMU's modules and with ratite's, side by side; OPTIONS.
	@scripts/python install
	@scripts/compat --python target/python/venv/bin/python $(OPTIONS)
