# make run     the daemon, without root and without a configuration file
# make test    all tests; the end-to-end part needs root and Debian (it installs what it lacks)
# make demo    a small internet in one process, the real daemon, a table of its answers
# make check   formatting, vet, staticcheck, known vulnerabilities, race tests
# make e2e     real DNS servers, a real web server, real Postfix
# make bench   the figures of docs/figures.md
# make soak    killed 200 times, floods, faults of the machine: 20 minutes; root for all of it
# make fuzz    every parser of outside bytes, FUZZTIME each
# make other   vet for FreeBSD and for 32 bits; some minutes where nothing is cached
# make pgo     measures anew what the compiler is told of the hot path (default.pgo)
# make faults  writes what the network's faults lead to into docs/faults.md

GO       ?= go
FUZZTIME ?= 10s
# For a hang. policymap takes 6 minutes with -race on a machine that has ten
# times more to do; the usual 10 are too near to that.
TESTTIME ?= 40m
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS   = -X main.version=$(VERSION)
# The program is static, whether or not there is a C compiler. Race tests need one.
CGO_ENABLED ?= 0

.PHONY: all build run test unit demo check formatted lint other vuln race e2e bench bench-short soak fuzz faults pgo clean

all: build

build:
	CGO_ENABLED=$(CGO_ENABLED) $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tlspolicyd ./cmd/tlspolicyd

run: build
	bin/tlspolicyd serve

test: unit e2e

# Without default.pgo, for which all packages would be compiled once more.
unit:
	$(GO) test -pgo=off -timeout $(TESTTIME) ./...

demo: build
	$(GO) run ./testing/demo -daemon bin/tlspolicyd

check: lint vuln race

# A release tarball has no history that git could list files of.
formatted:
	@files=$$(git ls-files '*.go' 2>/dev/null | grep . || find . -path ./vendor -prune -o -name '*.go' -print); \
	files=$$($(GO) tool gofumpt -l $$files) || exit 1; \
	if [ -n "$$files" ]; then echo "gofumpt would change:"; echo "$$files"; exit 1; fi

lint: formatted
	$(GO) vet ./...
	$(GO) vet -tags e2e ./testing/e2e/
	$(GO) vet -tags profile ./cmd/tlspolicyd
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

other:
	GOOS=freebsd CGO_ENABLED=0 $(GO) vet ./...
	GOOS=linux GOARCH=386 CGO_ENABLED=0 $(GO) vet ./...

# The database of known vulnerabilities is on the network. Where that cannot be
# reached the check says so and does not count as failed.
vuln:
	@out=$$($(GO) tool govulncheck ./... 2>&1); status=$$?; echo "$$out"; \
	if [ $$status -eq 1 ] && echo "$$out" | grep -q 'vuln.*\(dial\|lookup\|proxyconnect\|no such host\|refused\)'; then \
	echo "govulncheck: NOT CHECKED, its database cannot be reached from here"; exit 0; fi; exit $$status

race:
	$(GO) test -race -pgo=off -timeout $(TESTTIME) ./...

e2e: build
	testing/e2e/run.sh

# Five minutes on a quiet machine of two cores: the real daemon first, then its
# parts. bench-short is some of everything, in one minute; it fails on a wrong
# answer, and on memory or a file far above what docs/figures.md says.
bench: build
	$(GO) run ./testing/bench -daemon bin/tlspolicyd
	$(GO) test -run '^$$' -bench . -benchmem ./socketmap ./policymap ./store/... ./internal/dane

bench-short: build
	$(GO) run ./testing/bench -daemon bin/tlspolicyd -short

# The tests of testing/soak and of power loss with larger numbers; their short
# form is part of "make unit".
soak:
	TLSPOLICYD_SOAK=1 $(GO) test -count=1 -timeout 3h -v ./testing/soak
	TLSPOLICYD_SOAK=1 $(GO) test -count=1 -timeout 3h -v -run PowerLoss ./store/bolt

fuzz:
	@for pkg in $$($(GO) list ./...); do \
	for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x $$pkg || exit 1; \
	done; done

faults:
	FAULTS_TABLE=write $(GO) test -count=1 -run TestNetworkFaults ./policymap

# cmd/tlspolicyd/default.pgo tells the compiler which calls are hot (Go's
# profile-guided optimization). It need not be in step with every change; make
# it anew when the hot path has taken another shape. The profiled program lies
# in a temporary directory because its path stands in the profile.
pgo:
	d=$$(mktemp -d) && \
	CGO_ENABLED=0 $(GO) build -pgo=off -trimpath -tags profile -o $$d/tlspolicyd ./cmd/tlspolicyd && \
	TLSPOLICYD_PROFILE=$(CURDIR)/cmd/tlspolicyd/default.pgo $(GO) run ./testing/bench -daemon $$d/tlspolicyd hits && \
	rm -r $$d

clean:
	rm -rf bin

# Packaging, see packaging/README.md.
#
# make install          DESTDIR=, PREFIX=/usr/local, SYSCONFDIR=/etc
# make packages         .deb, .rpm and .apk in dist/, the same bytes every time
# make dist             source tarball with all modules, builds without a network
# make packaging-check  installs, runs, upgrades, removes and purges the .deb in a
#                       folder with Debian; needs root

.PHONY: install packages dist packaging-check

# A release tarball has no history: its version stands in a file.
ifneq ($(wildcard packaging/RELEASE),)
ifeq ($(origin VERSION),file)
VERSION := $(shell packaging/version.sh)
endif
endif

install: build
	DESTDIR='$(DESTDIR)' PREFIX='$(or $(PREFIX),/usr/local)' SYSCONFDIR='$(or $(SYSCONFDIR),/etc)' \
	packaging/install.sh bin/tlspolicyd

packages:
	GO='$(GO)' packaging/build.sh

dist:
	GO='$(GO)' packaging/dist.sh

packaging-check:
	GO='$(GO)' packaging/test.sh

# Everything below contrib/ with the real tools: Postfix, promtool, podman, OpenRC.
.PHONY: contrib-check
contrib-check:
	contrib/check.sh
