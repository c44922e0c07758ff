# Every target does its own set-up: Rust 1.95 and a C compiler are all a fresh machine needs.
CARGO ?= cargo
# Suites of `make integration`; CI narrows this to those whose servers are at hand.
SUITES ?= $(shell integration/run --list)
export INVAR_SERVERS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/invar-servers

.DEFAULT_GOAL := help
.PHONY: help demo run build test lint integration bench fuzz clean

help: ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Push, break, undo: the whole story on this machine (AUTO=1 plays it by itself)
	$(CARGO) build --profile demo --bin invar --example demo
	target/demo/examples/demo --invar target/demo/invar $(if $(AUTO),--auto)

run: ## Run the agent: make run ARGS="config.alloy"
	$(CARGO) run --profile demo --bin invar -- run $(ARGS)

build: ## Build the release binary
	$(CARGO) build --release --bin invar

test: ## Unit, property, conformance and end-to-end tests; needs nothing but what it installs
	$(CARGO) test --workspace --all-targets --features testing
	$(CARGO) test --workspace --doc --features testing

lint: ## Formatting, clippy with warnings denied, licences, bans and sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features testing -- -D warnings
	$(CARGO) clippy --bin invar -- -D warnings
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --quiet cargo-deny
	$(CARGO) deny check bans licenses sources

integration: ## The guarantees against real servers, which are built on first use (SUITES="prometheus2 …" narrows)
	integration/run $(SUITES)

bench: ## Micro-benchmarks, then whole-process ratios beside a real peer
	$(CARGO) bench --workspace
	benches/run

fuzz: ## Run every fuzz target for FUZZ_SECONDS (default 60) each
	integration/fuzz/run $(or $(FUZZ_SECONDS),60)

clean: ## Remove build output (the cache of servers stays)
	$(CARGO) clean
