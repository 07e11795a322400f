package dane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/defect"
	"tlspolicyd/internal/dnsclient"
)

// laggard is how much longer than the address family that answered the other
// one may take. Past it the one that answered decides, as it does when the
// other fails: a resolver may try for long to reach a broken server.
const laggard = 2 * time.Second

// Bounds of what is kept of one host's answers, which may be of 64 KiB each. What
// follows from them follows from all records.
const (
	maxAddresses = 32
	maxTLSA      = 100
)

// evaluate finds out about one host: its addresses, then its TLSA records.
func evaluate(ctx context.Context, r dnsclient.Resolver, h *Host, port uint16) {
	if !lookable(h.Name) {
		h.Verdict = NoAddress
		return
	}
	e := &evaluation{ctx: ctx, r: r, h: h, port: port}
	address, ok := e.addresses()
	if !ok {
		return
	}
	if h.Secure {
		bases := []string{h.Name}
		if len(address.Chain) > 0 {
			bases = []string{trim(address.Final), h.Name} // 7672 §2.2.3: final name first
		}
		e.tlsa(bases)
		return
	}
	h.Verdict = Insecure // 7672 §2.2.2: no TLSA lookup
	if len(address.Chain) == 0 {
		return
	}
	// An insecure target behind an alias that may itself be secure: then TLSA
	// records at the original name count (7672 §2.2.2).
	alias, err := e.lookup(h.Name, dns.TypeCNAME)
	switch {
	case err != nil:
		h.fail(err)
	case alias.Authentic && !alias.Negative():
		e.tlsa([]string{h.Name})
	}
}

// evaluation is the work on one host.
type evaluation struct {
	ctx  context.Context
	r    dnsclient.Resolver
	h    *Host
	port uint16

	answered bool // h.TTL means something
}

// addresses looks A and AAAA up side by side. It returns the answer that leads
// on, or false when the verdict is in already.
func (e *evaluation) addresses() (dnsclient.Answer, bool) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var answers [2]dnsclient.Answer
	var errs [2]error
	var wg sync.WaitGroup
	for i, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		wg.Go(func() {
			defer defect.Catch(&errs[i])
			answers[i], errs[i] = e.r.Lookup(ctx, e.h.Name, qtype)
			// The other family may take its time, and four thousand records are
			// not to be held meanwhile.
			answers[i].Records = slices.Clone(answers[i].Records[:min(len(answers[i].Records), maxAddresses)])
			if errs[i] == nil && !answers[i].Negative() {
				time.AfterFunc(laggard, cancel)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		defect.Raise(err)
	}

	var lead *dnsclient.Answer
	for i := range answers {
		a := &answers[i]
		if errs[i] != nil {
			continue
		}
		e.lowerTTL(a.TTL)
		if a.Negative() {
			continue
		}
		e.h.addAddresses(a.Records)
		if lead == nil {
			lead, e.h.Secure = a, a.Authentic
		} else if !a.Authentic {
			// Addresses that can be forged may not be used under DANE, so both
			// families have to be secure (7672 §2.2.2).
			lead, e.h.Secure = a, false
		}
	}
	if lead != nil {
		return *lead, true
	}
	for i, err := range errs {
		if err != nil && answers[1-i].Rcode != dns.RcodeNameError { // NXDOMAIN holds for every type (8020 §2)
			// The other one, if it answered, has no address: nothing is known.
			e.h.fail(err)
			return dnsclient.Answer{}, false
		}
	}
	e.h.Verdict = NoAddress
	return dnsclient.Answer{}, false
}

// tlsa asks for TLSA records at the base domains in turn, until there are
// secure ones. Those decide even when none is usable: going on to the next name
// would find records that the server's certificate was not meant for.
func (e *evaluation) tlsa(bases []string) {
	h := e.h
	h.Verdict = NoTLSA
	for _, base := range bases {
		name := fmt.Sprintf("_%d._tcp.%s", e.port, base)
		if !dnsclient.Askable(name) {
			continue // too long to exist
		}
		h.Base = base
		a, err := e.lookup(name, dns.TypeTLSA)
		if err != nil {
			h.fail(err) // 7672 §2.1.2: a failed lookup is not an absence
			return
		}
		if !a.Authentic || a.Negative() {
			continue
		}
		h.Verdict = Unusable
		for _, rr := range a.Records {
			record, ok := rr.(*dns.TLSA)
			if !ok {
				continue
			}
			t := read(record)
			if len(h.TLSA) < maxTLSA {
				h.TLSA = append(h.TLSA, t)
			}
			if t.Unusable == "" {
				h.Verdict = Usable
			}
		}
		return
	}
}

func (e *evaluation) lookup(name string, qtype uint16) (dnsclient.Answer, error) {
	a, err := e.r.Lookup(e.ctx, name, qtype)
	if err == nil {
		e.lowerTTL(a.TTL)
	}
	return a, err
}

func (e *evaluation) lowerTTL(ttl time.Duration) {
	if !e.answered || ttl < e.h.TTL {
		e.h.TTL, e.answered = ttl, true
	}
}

func (h *Host) fail(err error) {
	h.Verdict, h.Err = Failed, err
}

func (h *Host) addAddresses(records []dns.RR) {
	for _, rr := range records {
		if len(h.Addresses) == maxAddresses {
			return
		}
		switch rr := rr.(type) {
		case *dns.A:
			h.Addresses = append(h.Addresses, rr.A.String())
		case *dns.AAAA:
			h.Addresses = append(h.Addresses, rr.AAAA.String())
		}
	}
}

func trim(name string) string { return name[:len(name)-1] }
