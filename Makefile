# Every target has its line of help behind "##". `make help` lists them.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO            ?= go
BIN           := bin
COMMANDS      := $(notdir $(wildcard cmd/*))
FUZZTIME      ?= 20s
BENCHFLAGS    ?=
TEST_TIMEOUT  ?= 9m
TESTFLAGS     ?=
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
GO_FILES       = git ls-files -- '*.go'

export CGO_ENABLED ?= 0

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-zA-Z_\/-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Fetch modules and say which backends the tests have here
	$(GO) mod download
	@for tool in java javac mvn python3 pip node npm curl psql postgres pg_config docker golangci-lint; do \
		printf '  %-14s %s\n' $$tool "$$(command -v $$tool || echo 'not on this machine')"; \
	done

.PHONY: build
build: ## Build all programs into bin/
	$(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/ ./cmd/...

.PHONY: demo
demo: ## Run the whole thing once: embedded broker and Postgres, a sample, four views
	$(GO) run ./cmd/foldstream demo

.PHONY: dev
dev: ## Run a stack that stays up (its data is kept in .foldstream)
	$(GO) run ./cmd/foldstream dev --data-dir .foldstream

.PHONY: test
test: ## All tests that this machine can run; ends with the backends that were missing
	@TEST_TIMEOUT=$(TEST_TIMEOUT) GO=$(GO) scripts/test.sh $(TESTFLAGS) $$($(GO) list ./... | grep -v -e /test/real -e /test/interop)
	@$(MAKE) --no-print-directory test/real
	$(GO) test ./test/faults/...

.PHONY: test/short
test/short: ## The tests that need neither Java nor Postgres
	$(GO) test -short ./...

.PHONY: test/race
test/race: ## All tests under the race detector (needs a C compiler)
	@CGO_ENABLED=1 TEST_TIMEOUT=30m GO=$(GO) scripts/test.sh -race $(TESTFLAGS) ./...

.PHONY: test/real
test/real: ## Kill the services 20 times each during an import on a real broker, then compare all
	@TEST_TIMEOUT=20m GO=$(GO) scripts/test.sh -count=1 -v ./test/real/...

.PHONY: test/interop
test/interop: ## Clients in Python, JavaScript and Java, the README's examples, schemathesis on the HTTP API
	@TEST_TIMEOUT=9m GO=$(GO) scripts/test.sh -count=1 ./test/interop

.PHONY: interop
interop: ## The same, also where another registry (Apicurio) is there already; shows each
	@TEST_TIMEOUT=15m GO=$(GO) scripts/test.sh -count=1 -v ./test/interop -apicurio

.PHONY: test/outside
test/outside: ## The module that imports only pkg/, as a team's own would
	cd test/outside && $(GO) test -count=1 ./...

.PHONY: test/container
test/container: ## The suites on a broker in a container (needs a container engine)
	cd test/container && GOWORK=off $(GO) test -count=1 -timeout 20m -tags container .

.PHONY: faults
faults: ## Every fault for a minute each, then every planted bug; prints a table (docs/faults.md)
	$(GO) run ./test/faults -duration 45s -parallel 2
	$(GO) run ./test/faults planted -short -seeds 3 -parallel 3

.PHONY: faults/long
faults/long: ## Every fault for hours
	$(GO) run ./test/faults -duration 2m -seeds 30 -parallel 2

.PHONY: faults/short
faults/short: ## Every fault and every planted bug for some seconds each, as CI does
	$(GO) run ./test/faults -short -parallel 3
	$(GO) run ./test/faults planted -clean=false -short -parallel 3

.PHONY: fuzz
fuzz: ## Every fuzz target for FUZZTIME (20s) each
	@GO=$(GO) FUZZTIME=$(FUZZTIME) scripts/fuzz.sh

.PHONY: bench
bench: ## The benchmarks on a real broker, medians beside their goals (docs/benchmarks.md)
	$(GO) run ./test/bench $(BENCHFLAGS)

.PHONY: fmt
fmt: ## Format the code
	$(GO_FILES) | xargs gofmt -w

.PHONY: lint
lint: lint/quick ## gofmt, vet, and golangci-lint where it is installed
	@if command -v golangci-lint >/dev/null; then golangci-lint run; \
		else echo 'golangci-lint is not installed: its checks were left out'; fi

.PHONY: lint/quick
lint/quick: ## gofmt and vet
	@unformatted="$$($(GO_FILES) | xargs gofmt -l)"; \
		if [[ -n "$$unformatted" ]]; then printf 'gofmt would change:\n%s\n' "$$unformatted"; exit 1; fi
	$(GO) vet ./...

.PHONY: lint/install
lint/install: ## Build golangci-lint by the Go toolchain (minutes)
	$(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@latest

.PHONY: ci
ci: ## What CI runs
	.ci/run

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) coverage* .missing-backends
