SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# make demo SCENARIO=happy|errors|breaker|revert
SCENARIO ?= happy
# make sandbox OPERATOR=off leaves the operator out.
OPERATOR ?= on
# How many seeds make soak simulates.
SEEDS ?= 10000
# make bench N="1 300" ROWS="P1 P2"
N ?= 1 50 300
ROWS ?= P1 P2 P3 P4 P5 P8
# Where make generate writes to; make verify writes to another place and compares.
OUT ?= .

# Pinned tools are built once for each state of tools/go.sum, outside the tree, so that every clone finds them.
export PATH := $(PATH):/usr/local/go/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice
TOOLS := $(CACHE)/tools-$(shell { go env GOVERSION; cat tools/go.mod tools/go.sum; } | sha256sum | cut -c1-12)
CONTROLLER_GEN := $(TOOLS)/controller-gen
GOLANGCI_LINT := $(TOOLS)/golangci-lint
GOTESTSUM := $(TOOLS)/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg
GOVULNCHECK := $(TOOLS)/govulncheck
MODULES := . sandbox tools
SANDBOX_TEST = SLUICE_OPERATOR=$(CURDIR)/bin/race/operator $(GOTESTSUM)
# The sandbox's packages whose own tests run side by side and keep two cores busy; of the others two run at a time.
BUSY := capabilities e2e

##@ Use it

.PHONY: help
help: ## Print this list.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Roll reviews v1 -> v3 out in the sandbox and tell each step; SCENARIO=happy, errors, breaker or revert.
	bin/sandbox demo --scenario $(SCENARIO)

.PHONY: sandbox
sandbox: build ## Run the sandbox and the operator until Ctrl-C; .sandbox/env tells where; OPERATOR=off: no operator.
	bin/sandbox up --operator=$(OPERATOR)

##@ Test it

.PHONY: test
test: servers bin/race/operator $(TOOLS)/gotestsum go-tools ## Every test: unit, property, against the real API server, end to end. What CI runs.
	@rm -rf bin/test && mkdir -p bin/test
	@echo "== the product's and the tools' own tests"
	@$(GOTESTSUM) --jsonfile bin/test/unit.json -- -race ./... || touch bin/test/failed
	@cd tools && $(GOTESTSUM) --jsonfile ../bin/test/tools.json -- ./... || touch ../bin/test/failed
	@echo "== what is rendered, against Istio's own validation"
	@cd sandbox/servers && $(GOTESTSUM) --jsonfile ../../bin/test/servers.json -- -count=1 ./... || touch ../../bin/test/failed
	@echo "== the sandbox's tests: real API server, end to end"
	@cd sandbox && $(SANDBOX_TEST) --jsonfile ../bin/test/sandbox.json -- -count=1 -p 2 -timeout 40m \
		$$(go list ./... | grep -v $(BUSY:%=-e /sandbox/%)) || touch ../bin/test/failed
	@cd sandbox && $(SANDBOX_TEST) --jsonfile ../bin/test/busy.json -- -count=1 -p 1 -timeout 40m $(BUSY:%=./%) || touch ../bin/test/failed
	@bin/tools/tally bin/test/*.json && test ! -e bin/test/failed

.PHONY: unit
unit: deps $(TOOLS)/gotestsum ## The tests that need no server.
	@$(GOTESTSUM) -- -race ./...
	@cd tools && $(GOTESTSUM) -- ./...

.PHONY: soak
soak: deps ## Simulate many more rollouts than make test does; SEEDS=10000.
	SLUICE_SEEDS=$(SEEDS) go test -count=1 -timeout 120m -run TestSeeds ./internal/simulation

.PHONY: bench
bench: servers ## Speed and cost against a real API server, as a table and .sandbox/bench.json; N="1 50 300" ROWS="P1 P2 P3 P4 P5 P8".
	go -C sandbox build -o ../bin/bench ./cmd/bench
	bin/bench -n "$(N)" -rows "$(ROWS)"

.PHONY: capabilities
capabilities: servers ## Run the examples in the sandbox and write docs/capabilities.md from what was seen.
	cd sandbox && SLUICE_CAPABILITIES=update go test -count=1 -timeout 20m ./capabilities

.PHONY: test-cluster
test-cluster: deps ## What only Envoy itself can show, in a cluster of your own: KUBECONFIG and PROMETHEUS_URL say where.
	cd sandbox && SLUICE_E2E=cluster go test -count=1 -timeout 60m -v ./clustertest

.PHONY: lint
lint: $(GOLANGCI_LINT) ## golangci-lint, which checks the format too, in every module.
	@failed=""; for module in $(MODULES); do \
		echo "== $$module"; \
		(cd $$module && $(GOLANGCI_LINT) run --config $(CURDIR)/.golangci.yml ./...) || failed="$$failed $$module"; \
	done; \
	test -z "$$failed" || { echo "lint failed in:$$failed; make fmt mends what is format" >&2; exit 1; }

.PHONY: verify
verify: $(CONTROLLER_GEN) go-tools ## Generated files are current, and files, packages and CRDs keep their size and shape.
	@out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	$(MAKE) generate OUT="$$out" >/dev/null; \
	(cd "$$out" && find . -type f) | while read -r file; do \
		diff -u "$$file" "$$out/$$file" || { echo "$$file is stale: run make generate" >&2; exit 1; }; \
	done
	@bin/tools/houserules .

.PHONY: vuln
vuln: $(GOVULNCHECK) ## Known vulnerabilities in the code that we call; asks the Go vulnerability database.
	$(GOVULNCHECK) ./...

##@ Build it

.PHONY: build
build: deps ## bin/operator, bin/kubectl-sluice and bin/sandbox.
	go build -o bin/operator ./cmd/operator
	go build -o bin/kubectl-sluice ./cmd/kubectl-sluice
	go -C sandbox build -o ../bin/sandbox ./cmd/sandbox

.PHONY: generate
generate: $(CONTROLLER_GEN) go-tools ## Deep copies, CRDs and RBAC from the Go types and markers.
	$(CONTROLLER_GEN) object paths=./api/... output:object:dir=$(OUT)/api/v1
	@go mod download istio.io/api
	bin/tools/crdgen -output $(OUT)/config/crd \
		-istio "$$(go list -m -f '{{.Dir}}' istio.io/api)/kubernetes/customresourcedefinitions.gen.yaml"
	$(CONTROLLER_GEN) rbac:roleName=sluice-operator paths=./cmd/... paths=./controllers/... paths=./gitsync/... output:rbac:dir=$(OUT)/config/rbac

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format every module.
	@for module in $(MODULES); do (cd $$module && $(GOLANGCI_LINT) fmt --config $(CURDIR)/.golangci.yml); done

.PHONY: clean
clean: ## Remove what was built here; the caches of servers and tools stay.
	rm -rf bin .sandbox

# What the targets above are made of.

# The operator of the end-to-end tests is built with the race detector.
.PHONY: bin/race/operator
bin/race/operator: deps
	go build -race -o $@ ./cmd/operator

.PHONY: servers
servers: build
	bin/sandbox build-servers

.PHONY: go-tools
go-tools: deps
	@go -C tools build -o $(CURDIR)/bin/tools/ ./...

# git serves and fetches, gcc links tests that run with the race detector.
.PHONY: deps
deps:
	@missing=""; for need in git gcc; do command -v $$need >/dev/null || missing="$$missing $$need"; done; \
	test -z "$$missing" && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
		echo "installing:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing libc6-dev >/dev/null; \
	else \
		echo "please install:$$missing (and the C library's headers)" >&2; exit 1; \
	fi

tool-package = $(shell awk '/^tool \(/ {on = 1; next} /^\)/ {on = 0} on && $$1 ~ /\/$(1)$$/ {print $$1}' tools/go.mod)
$(TOOLS)/%: | deps
	@echo "building $* (once for each version; golangci-lint takes some minutes)"
	@mkdir -p $(TOOLS)
	@nice go -C tools build -trimpath -o $(TOOLS)/$*.part $(call tool-package,$*)
	@mv $(TOOLS)/$*.part $@
