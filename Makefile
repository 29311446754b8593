# Everything a developer does. "make" lists it. It needs Go, git and make;
# "make test" says what else, and on Debian as root installs it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
TOOLS := $(CURDIR)/.tools
export GOTOOLCHAIN ?= local

GOLANGCI_LINT_VERSION := v2.15.0
GOTESTSUM_VERSION     := v1.13.0
WORKFLOWCHECK_VERSION := v0.6.0
TEMPORAL_CLI_VERSION  := v1.5.1
GOVULNCHECK_VERSION   := v1.9.0
CYCLONEDX_VERSION     := v1.10.0
GREMLINS_VERSION      := v0.6.0

GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)
GOTESTSUM     := $(TOOLS)/gotestsum-$(GOTESTSUM_VERSION)
WORKFLOWCHECK := $(TOOLS)/workflowcheck-$(WORKFLOWCHECK_VERSION)
GOVULNCHECK   := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)
CYCLONEDX     := $(TOOLS)/cyclonedx-gomod-$(CYCLONEDX_VERSION)
GREMLINS      := $(TOOLS)/gremlins-$(GREMLINS_VERSION)
TEMPORAL_CLI  := $(TOOLS)/temporal

##@ Use

.PHONY: demo
demo: ## Start everything in one process and feed it a recorded LAN (see the variables below)
	@printf 'Building the stack. The Temporal Server is in it: the first build takes minutes, later ones seconds.\n'
	@mkdir -p bin
	@cd cmd/devstack && $(GO) build -o ../../bin/devstack .
	@exec ./bin/devstack demo $(strip \
		$(if $(CAPTURE),--capture '$(CAPTURE)') \
		$(if $(SPEED),--speed '$(SPEED)') \
		$(if $(DATA_DIR),--data-dir '$(DATA_DIR)') \
		$(if $(filter-out 0 no false,$(ONCE)),--once) \
		$(if $(REPORT),--report '$(REPORT)') \
		$(ARGS))

.PHONY: build
build: ## Build bin/rollcall and bin/rollcall-edge, static
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/rollcall ./cmd/rollcall-edge

.PHONY: temporal-cli
temporal-cli: $(TEMPORAL_CLI) ## Build the Temporal CLI into .tools/temporal
	@printf 'Built %s. Try:\n    .tools/temporal workflow list\n' '$(TEMPORAL_CLI)'

.PHONY: compose-up compose-down
compose-up: ## Start the production-like stack in containers (needs Docker with Compose)
	deploy/secrets.sh
	docker compose up --build --detach --wait

compose-down: ## Stop it; its data stays in the named volumes
	docker compose down

##@ Develop

.PHONY: test
test: ## Lint, workflowcheck, go vet and the tests of both modules; installs what they need
	@scripts/install.sh
	@$(MAKE) --no-print-directory lint
	@GOTESTSUM='$(GOTESTSUM)' $(MAKE) --no-print-directory unit

.PHONY: unit
unit: $(GOTESTSUM) $(CYCLONEDX) $(TEMPORAL_CLI) ## Only the tests of both modules. PACKAGES=./edge/... RACE=0 narrow it
	@GOTESTSUM='$(GOTESTSUM)' scripts/test.sh $(PACKAGES)

.PHONY: lint
lint: $(GOLANGCI_LINT) $(WORKFLOWCHECK) $(GOVULNCHECK) ## Only the linters of both modules
	@printf '== golangci-lint\n'
	@$(GOLANGCI_LINT) run ./...
	@cd cmd/devstack && $(GOLANGCI_LINT) run --config ../../.golangci.yml ./...
	@printf '== workflowcheck\n'
	@$(WORKFLOWCHECK) -config workflows/workflowcheck.yaml ./workflows/...
	@printf '== go vet\n'
	@$(GO) vet ./...
	@cd cmd/devstack && $(GO) vet ./...
	@printf '== govulncheck\n'
	@GOVULNCHECK='$(GOVULNCHECK)' scripts/vulncheck.sh

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code
	@$(GOLANGCI_LINT) fmt ./...
	@cd cmd/devstack && $(GOLANGCI_LINT) fmt --config ../../.golangci.yml ./...

.PHONY: mutants
mutants: $(GOLANGCI_LINT) ## Plant each bug of testdata/mutants in a copy, and see whether the tests catch it
	@GOLANGCI_LINT='$(GOLANGCI_LINT)' $(GO) run ./scripts/mutants $(strip \
		$(if $(ONLY),--only '$(ONLY)') \
		$(if $(JOBS),--jobs '$(JOBS)') \
		$(if $(TIMEOUT),--timeout '$(TIMEOUT)'))

.PHONY: mutation
mutation: $(GREMLINS) ## Mutation testing by a tool. PACKAGES=./internal/device, one or more, without ...
	@for package in $(PACKAGES); do $(GREMLINS) unleash --workers 1 --timeout-coefficient 20 "$$package"; done

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 30s)
	@scripts/fuzz.sh '$(FUZZTIME)'

.PHONY: bench
bench: build ## Measure the platform on this machine (docs/sizing.md). Let nothing else run meanwhile
	@printf 'Building the benchmark. The Temporal Server is in it: the first build takes minutes.\n'
	@cd cmd/devstack && $(GO) build -o ../../bin/bench ./bench
	@exec ./bin/bench $(strip \
		$(if $(filter-out 0 no false,$(QUICK)),--quick) \
		$(if $(ONLY),--only '$(ONLY)') \
		$(if $(OUT),--out '$(OUT)') \
		$(if $(BASELINE),--baseline '$(BASELINE)') \
		$(ARGS))

.PHONY: release
release: $(CYCLONEDX) ## Build archives, checksums and SBOMs of this commit into dist/ (docs/release.md)
	@CYCLONEDX='$(CYCLONEDX)' scripts/release.sh

.PHONY: clean
clean: ## Remove what was built. The demo's data (.rollcall) stays: devstack --reset removes it
	rm -rf bin dist .tools

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables of make demo\n'
	@printf '  CAPTURE=FILE    Replay this pcap or pcapng file (default: testdata/lan/lan.pcap)\n'
	@printf '  SPEED=N         Replay at N times the recorded speed; 0 as fast as it goes\n'
	@printf '  ONCE=1          Replay, wait, compare edge, workflows and tables; exit 0 or 1\n'
	@printf '  REPORT=FILE     With ONCE=1: write the verdict and every device as JSON\n'
	@printf '  DATA_DIR=DIR    Where all state lives (default: .rollcall)\n'
	@printf '  ARGS=...        More flags; ARGS=--help lists them\n'
	@printf '\nVariables of make mutants\n'
	@printf '  ONLY=NAME,...   Only these; default all of testdata/mutants\n'
	@printf '  JOBS=N          So many at a time (default: 1)\n'
	@printf '  TIMEOUT=1m30s   What the tests of a mutant have not caught by then has survived\n'
	@printf '\nVariables of make bench\n'
	@printf '  QUICK=1         Smaller numbers, in under 8 minutes\n'
	@printf '  ONLY=NAME,...   Only these scenarios and what they are measured against\n'
	@printf '  OUT=FILE        Write the figures as JSON: [{name, value, unit, goal, met}]\n'
	@printf '  BASELINE=FILE   An older rollcall binary, to be measured by turns with this one\n'
	@printf '  ARGS=...        More flags; ARGS=--help lists them, and the scenarios\n\n'

# Tools are pinned, and built by this machine's Go into .tools.

$(GOLANGCI_LINT):
	@$(call tool,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,golangci-lint,$(GOLANGCI_LINT_VERSION))

$(GOTESTSUM):
	@$(call tool,gotest.tools/gotestsum,gotestsum,$(GOTESTSUM_VERSION))

$(WORKFLOWCHECK):
	@$(call tool,go.temporal.io/sdk/contrib/tools/workflowcheck,workflowcheck,$(WORKFLOWCHECK_VERSION))

$(GOVULNCHECK):
	@$(call tool,golang.org/x/vuln/cmd/govulncheck,govulncheck,$(GOVULNCHECK_VERSION))

$(CYCLONEDX):
	@$(call tool,github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod,cyclonedx-gomod,$(CYCLONEDX_VERSION))

$(GREMLINS):
	@$(call tool,github.com/go-gremlins/gremlins/cmd/gremlins,gremlins,$(GREMLINS_VERSION))

# The CLI needs its own module: its dependencies are not ours.
$(TEMPORAL_CLI):
	@$(call tool,github.com/temporalio/cli/cmd/temporal,temporal,$(TEMPORAL_CLI_VERSION))
	@ln -sf temporal-$(TEMPORAL_CLI_VERSION) $@

# $(call tool,package,name,version)
define tool
	printf 'Building %s %s into .tools (once)\n' $(2) $(3); \
	mkdir -p $(TOOLS)/build; \
	cd $(TOOLS)/build && GOBIN=$(TOOLS)/build $(GO) install $(1)@$(3); \
	mv $(TOOLS)/build/$(2) $(TOOLS)/$(2)-$(3)
endef
