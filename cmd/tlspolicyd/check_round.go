package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
	"tlspolicyd/policymap/policy"
)

// maxHeld bounds how many audits that have ended wait for one before them that is
// undecided.
const maxHeld = 256

// round audits all domains side by side and writes the reports in the order of the
// domains. One none of whose mail hosts accepted a connection waits until that of
// another does, or all have ended: only then it is known which side fails.
func (c *checking) round(ctx context.Context, write func(check.Report) error) ([]check.Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	auditor := check.New(c.options)
	done := make([]chan *check.Facts, len(c.domains))
	for i := range done {
		done[i] = make(chan *check.Facts, 1)
	}
	ended := make(chan struct{}, len(c.domains))
	go func() {
		var audits errgroup.Group
		audits.SetLimit(domainsAtOnce)
		for i, domain := range c.domains {
			audits.Go(func() error {
				done[i] <- auditor.Gather(ctx, domain)
				ended <- struct{}{}
				return nil
			})
		}
	}()

	bar := newProgress(c.hints, "domains checked")
	bar.total(len(c.domains))
	var failed error
	reports := make([]check.Report, 0, len(c.domains))
	var next *check.Facts                      // to be reported; nil: not there yet
	alive := time.NewTicker(2 * progressEvery) // one slow domain is long work too
	defer alive.Stop()
	for bar.done < len(c.domains) {
		select {
		case <-ended:
			bar.step()
		case <-alive.C:
			bar.set(bar.done)
			continue
		}
		for len(reports) < len(c.domains) {
			if next == nil {
				select {
				case next = <-done[len(reports)]:
				default:
				}
			}
			waits := bar.done < len(c.domains) && bar.done-len(reports) < maxHeld
			if next == nil || waits && auditor.Undecided(next) {
				break
			}
			r := auditor.Judge(next)
			next = nil
			reports = append(reports, r)
			if failed == nil {
				bar.hide()
				if failed = write(r); failed != nil {
					cancel() // and wait for what still runs
				}
			}
		}
	}
	bar.hide()
	return reports, failed
}

// checkDomains reads the command line: domains, or a single - for a list.
func checkDomains(args []string, stdin io.Reader) ([]string, error) {
	var list domainNames
	for _, arg := range args {
		if arg != "-" {
			if err := list.add(arg); err != nil {
				return nil, usageError("%w", err)
			}
			continue
		}
		lines := bufio.NewScanner(stdin)
		lines.Buffer(nil, maxDomainLine)
		n := 0
		for lines.Scan() {
			n++
			text, _, _ := strings.Cut(lines.Text(), "#")
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			if err := list.add(text); err != nil {
				return nil, usageError("standard input, line %d: %w", n, err)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, usageError("standard input, line %d: %w", n+1, err)
		}
	}
	if len(list.names) == 0 {
		return nil, usageError("standard input has no domain")
	}
	return list.names, nil
}

// domainNames are mail domains in A-labels, each once.
type domainNames struct {
	names []string
	seen  map[string]bool
}

func (l *domainNames) add(text string) error {
	hop, ok := policy.ParseNextHop(text)
	if !ok || hop.String() != hop.Domain {
		return fmt.Errorf("%s: %s", visible(text), whyNoDomain(text))
	}
	if l.seen == nil {
		l.seen = map[string]bool{}
	}
	if !l.seen[hop.Domain] {
		l.seen[hop.Domain] = true
		l.names = append(l.names, hop.Domain)
	}
	return nil
}

// whyNoDomain says what is wrong with a text, and what would be right.
func whyNoDomain(text string) string {
	bare := strings.Trim(text, "[]")
	_, address := netip.ParseAddr(strings.TrimPrefix(bare, "IPv6:"))
	switch {
	case address == nil:
		return "an address has no policy: want a mail domain"
	case strings.Contains(text, "://"):
		return "a URL: want a mail domain"
	case strings.Contains(text, "@"):
		return "a mail address: want the part after the @"
	case strings.HasPrefix(text, "["):
		return "a host in brackets is a smart host, not a mail domain: use 'tlspolicyd explain'"
	case strings.Contains(text, ":"):
		return "want a mail domain without a port"
	}
	return "not a valid domain name"
}
