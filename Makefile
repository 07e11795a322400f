# make help lists the targets.

GO       ?= go
FUZZTIME ?= 10s
# For a hang. policymap takes 6 minutes with -race on a machine that has ten
# times more to do; the usual 10 are too near to that.
TESTTIME ?= 40m
VERSION  ?= $(shell git -c safe.directory='$(CURDIR)' describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -X main.version=$(VERSION)
# The program is static, whether or not there is a C compiler. Race tests need one.
CGO_ENABLED ?= 0
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
# A release tarball has no history: its version is in a file.
ifneq ($(wildcard packaging/RELEASE),)
ifeq ($(origin VERSION),file)
VERSION := $(shell packaging/version.sh)
endif
endif
# gofumpt, staticcheck and govulncheck have a module file of their own: what the
# daemon is built from, and what a packager vendors, does not include them.
TOOLS    = testing/tools/go.mod
TOOL     = $(GO) tool -modfile=$(TOOLS)
PACKAGES = cmd internal policymap share socketmap store testing

.PHONY: all
all: build

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1|\2/p; s/^##@ \(.*\)/\n\1/p' $(MAKEFILE_LIST) | \
	awk -F'|' 'NF == 2 { printf "  make %-16s %s\n", $$1, $$2; next } { print }'

##@ Every day

.PHONY: build run unit demo check test
build: ## bin/tlspolicyd; Go 1.26, no C
	CGO_ENABLED=$(CGO_ENABLED) $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tlspolicyd ./cmd/tlspolicyd

run: build ## the daemon, without root and without a configuration file
	bin/tlspolicyd serve

# Without default.pgo, for which all packages would be compiled once more.
unit: ## tests without root; those of share/valkey need redis-server or valkey-server
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	echo "NOT TESTED: share/valkey, which needs redis-server or valkey-server (apt-get install redis-server)"
	$(GO) test -pgo=off -timeout $(TESTTIME) ./...

demo: build ## the daemon beside a small internet: what it answers, and why
	$(GO) run ./testing/demo -daemon bin/tlspolicyd

check: lint vuln race ## formatting, vet, staticcheck, known vulnerabilities, race tests

test: unit browser e2e ## all tests; the last two need root on Debian and get the rest themselves

##@ Parts of check and test

.PHONY: formatted lint other vuln race browser e2e
formatted: ## lists files that gofumpt would change
	@files=$$($(TOOL) gofumpt -l $(PACKAGES)) || exit 1; \
	if [ -n "$$files" ]; then echo "gofumpt would change:"; echo "$$files"; exit 1; fi

lint: formatted ## formatting, vet, staticcheck, tidy module files
	$(GO) vet ./...
	$(GO) vet -tags e2e ./testing/e2e/
	$(GO) vet -tags browser ./testing/browser/
	$(GO) vet -tags profile ./cmd/tlspolicyd
	$(TOOL) staticcheck ./...
	$(GO) mod tidy -diff
	$(GO) -C $(dir $(TOOLS)) mod tidy -diff

other: ## vet for FreeBSD and for 32 bits; some minutes where nothing is cached
	GOOS=freebsd CGO_ENABLED=0 $(GO) vet ./...
	GOOS=linux GOARCH=386 CGO_ENABLED=0 $(GO) vet ./...

# The database of known vulnerabilities is on the network. Where that cannot be
# reached the check says so and does not count as failed.
vuln: ## known vulnerabilities in the modules and in Go
	@out=$$($(TOOL) govulncheck ./... 2>&1); status=$$?; echo "$$out"; \
	if [ $$status -eq 1 ] && echo "$$out" | grep -q 'vuln.*\(dial\|lookup\|proxyconnect\|no such host\|refused\)'; then \
	echo "govulncheck: NOT CHECKED, its database cannot be reached from here"; exit 0; fi; exit $$status

race: ## tests without root, with the race detector
	$(GO) test -race -pgo=off -timeout $(TESTTIME) ./...

browser: build ## tlspolicyd ui in Chromium, which root on Debian gets by itself
	testing/browser/run.sh $(ARGS)

e2e: build ## real Postfix, Unbound, NSD, nginx and Valkey around the daemon; root
	testing/e2e/run.sh

##@ Figures and long tests

.PHONY: bench bench-short soak simulate field fleet fuzz faults pgo
# The real daemon first, then its parts.
bench: build ## the figures of docs/figures.md; seven minutes on a quiet machine
	$(GO) run ./testing/bench -daemon bin/tlspolicyd
	$(GO) test -run '^$$' -bench . -benchmem ./socketmap ./policymap ./store/... ./internal/dane
	$(GO) test -count=1 -v -run ADayOfADomainInUse ./policymap

# It fails on a wrong answer, and on memory or a file far above what
# docs/figures.md says.
bench-short: build ## some of each figure, in one minute
	$(GO) run ./testing/bench -daemon bin/tlspolicyd -short

# The tests of testing/soak and of power loss with larger numbers; their short
# form is part of "make unit".
soak: ## SIGKILL 200 times, floods, faults of the machine, new histories; an hour, root for all of it
	TLSPOLICYD_SOAK=1 $(GO) test -count=1 -timeout 3h -v ./testing/soak
	TLSPOLICYD_SOAK=1 $(GO) test -count=1 -timeout 3h -v -run PowerLoss ./store/bolt
	$(GO) test -count=1 -timeout 3h -pgo=off -run '^TestHistories$$' ./testing/simulate -args -for 40m

# Seeds are printed; a history that fails is printed as short as it can be made,
# in the form of testing/simulate/testdata. A seed repeats exactly; SEED=0 takes new
# ones.
SEED ?= 0
RUNS ?= 100
DAYS ?= 30
simulate: ## the daemon through RUNS=100 histories of DAYS=30 days from SEED=, with an oracle
	$(GO) test -count=1 -pgo=off -timeout 3h -v -run '^TestHistories$$' ./testing/simulate -args -seed $(SEED) -runs $(RUNS) -days $(DAYS)

field: build ## the daemon behind each resolver of Debian, and the Postfix of unstable; root
	testing/e2e/run.sh field

fleet: build ## ten daemons with and without a shared cache, into docs/figures.md; half an hour, root
	testing/e2e/run.sh fleet

fuzz: ## each parser of bytes from outside, FUZZTIME=10s each
	@for pkg in $$($(GO) list ./...); do \
	for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg || exit 1; \
	done; done

faults: ## writes the table of docs/faults.md anew
	FAULTS_TABLE=write $(GO) test -count=1 -run TestNetworkFaults ./policymap

# cmd/tlspolicyd/default.pgo tells the compiler which calls are hot (Go's
# profile-guided optimization). It need not be in step with every change; make
# it anew when the hot path has taken another shape. The profiled program is in
# a temporary directory because its path is in the profile.
pgo: ## writes the compiler's profile of the hot path (default.pgo) anew
	d=$$(mktemp -d) && \
	CGO_ENABLED=0 $(GO) build -pgo=off -trimpath -tags profile -o $$d/tlspolicyd ./cmd/tlspolicyd && \
	TLSPOLICYD_PROFILE=$(CURDIR)/cmd/tlspolicyd/default.pgo $(GO) run ./testing/bench -daemon $$d/tlspolicyd hits && \
	rm -r $$d

##@ Installing and packaging (packaging/README.md)

.PHONY: install uninstall packages dist packaging-check contrib-check clean
INSTALL = DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' packaging/install.sh

# sudo often has a PATH without Go: then what "make build" left in bin/ is taken.
install: ## DESTDIR=, PREFIX=/usr/local, SYSCONFDIR=/etc
	@if command -v $(GO) >/dev/null; then $(MAKE) build; \
	elif [ -x bin/tlspolicyd ]; then echo "$(GO) is not in PATH: installing bin/tlspolicyd as it is"; \
	else echo "$(GO) is not in PATH and there is no bin/tlspolicyd: run \"make build\" as yourself first" >&2; exit 1; fi
	$(INSTALL) bin/tlspolicyd

uninstall: ## removes what make install put in place, but not the configuration and the cache
	@bin=bin/tlspolicyd; [ -x $$bin ] || bin='$(DESTDIR)$(PREFIX)/bin/tlspolicyd'; \
	$(INSTALL) "$$bin" uninstall

packages: ## .deb, .rpm and .apk in dist/, the same bytes every time
	GO='$(GO)' packaging/build.sh

dist: ## source tarball with all modules in dist/, builds without a network
	GO='$(GO)' packaging/dist.sh

packaging-check: ## the packages, and the quick start on Debian 12, 13 and testing; root
	GO='$(GO)' packaging/test.sh

contrib-check: ## everything below contrib/ with the real tools; root
	contrib/check.sh

clean: ## removes bin/ and dist/
	rm -rf bin dist
