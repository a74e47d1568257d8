# Althing: everything a person or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/althing
# Compiled dependencies live outside the checkout, keyed by flags and compiler; cargo itself tells versions and features
# apart.
BUILD_KEY := $(shell { rustc --version; cat .cargo/config.toml; } 2>/dev/null | sha256sum | cut -c1-12)
export CARGO_BUILD_BUILD_DIR := $(CACHE)/cargo-$(BUILD_KEY)
# Keeps the crates of this checkout apart from those of others in there.
export RUSTC_WORKSPACE_WRAPPER := $(CURDIR)/tools/wrappers/rustc
export ALTHING_COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
BIN_CI := target/x86_64-unknown-linux-gnu/ci
BIN_RELEASE := target/x86_64-unknown-linux-gnu/release

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: preflight
preflight:
	@tools/preflight

.PHONY: preflight-tests
preflight-tests:
	@tools/preflight tests

.PHONY: demo
demo: preflight ## four validators on a local Kubernetes cluster finalise 100 transactions (CONTEXT=name REGISTRY=host/path: on your own cluster)
	@tools/demo $(if $(CONTEXT),--context "$(CONTEXT)") $(if $(REGISTRY),--registry "$(REGISTRY)")

.PHONY: demo-down
demo-down: ## remove what `make demo` made
	@tools/demo --down $(if $(CONTEXT),--context "$(CONTEXT)")

.PHONY: test
test: preflight-tests ## everything CI runs: format, tidy, clippy, unit, simulation, faults, e2e
	@tools/test

.PHONY: test-full
test-full: preflight-tests ## the same with 25 times as many generated requests to the gateway, and with a real cert-manager
	@ALTHING_E2E_FULL=1 ALTHING_SCHEMATHESIS_EXAMPLES=500 tools/test

.PHONY: preflight-fuzz
preflight-fuzz:
	@tools/preflight fuzz

.PHONY: fmt
fmt: ## format the code
	@cargo fmt --all

.PHONY: gen
gen: ## regenerate what is generated: CRDs, chart CRDs, OpenAPI document, list of metrics
	@cargo build -q --workspace --bin crdgen --profile ci && $(BIN_CI)/crdgen
	@cargo build -q --workspace --examples --profile ci
	@$(BIN_CI)/examples/openapi > target/openapi.json && mv target/openapi.json docs/openapi.json
	@$(BIN_CI)/examples/metrics > target/metrics.md && mv target/metrics.md docs/metrics.md

.PHONY: unit
unit: ## unit, golden and adapter tests
	@tools/test unit

.PHONY: fuzz
fuzz: preflight-fuzz ## cargo-fuzz over every decoder of the node; TARGET=name runs one, SECONDS_EACH=n
	@TARGET="$(TARGET)" SECONDS_EACH="$(SECONDS_EACH)" tools/fuzz

.PHONY: bench-gateway
bench-gateway: ## what the gateway adds to calls, and batches a second, into target/bench/gateway.json
	@cargo bench -q --workspace --profile $(or $(PROFILE),release) --bench gateway

.PHONY: sim
sim: ## the consensus simulator; SEEDS=n runs n worlds, without it 1,000
	@$(if $(SEEDS),ALTHING_SIM_SEEDS="$(SEEDS)") tools/test simulation

.PHONY: faults
faults: preflight ## faults between operator and API server: every stop, a sample of the rest; CASE=name runs some
	@$(if $(CASE),ALTHING_FAULTS_CASE="$(CASE)") tools/test faults

.PHONY: campaign
campaign: preflight ## every fault of the campaign, hours long; goes on where it was interrupted (target/campaign.json)
	@ALTHING_CAMPAIGN=1 tools/test faults

.PHONY: bench-operator
bench-operator: preflight ## what the operator costs at 1,000 nodes: target/bench/operator.json
	@cargo build -q --release --workspace --bins && $(BIN_RELEASE)/bench-operator

.PHONY: e2e
e2e: preflight-tests ## the cases on a local cluster; CASE=name runs one
	@ALTHING_E2E_CASE="$(CASE)" tools/test e2e

.PHONY: bench
bench: ## four validators on this machine under load: 10,000 tx/s, then the most they sustain; ARGS=
	@cargo build -q --release --workspace --bin althing-node && $(BIN_RELEASE)/althing-node bench $(ARGS)

.PHONY: bench-peers
bench-peers: ## Althing and CometBFT in turns under the same load: target/bench/peers.json; ARGS=--quick: one rate each
	@cargo build -q --release --workspace --bin althing-node && tools/bench-peers $(ARGS)

.PHONY: cluster
cluster: preflight ## the local Kubernetes cluster alone, kept running; NODES=n
	@cargo build -q --profile ci --workspace --bin cluster && $(BIN_CI)/cluster up --nodes $(or $(NODES),4)

.PHONY: cluster-down
cluster-down: ## end the local cluster
	@cargo build -q --profile ci --workspace --bin cluster && $(BIN_CI)/cluster down
