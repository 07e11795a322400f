package dane

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
)

// maxTLSA bounds what is kept of one host's TLSA records. The verdict follows from
// all that dnsclient returns.
const maxTLSA = 100

// evaluate looks one host up: its addresses, then its TLSA records.
func evaluate(ctx context.Context, r dnsclient.Resolver, h *Host, port uint16) {
	e := &evaluation{ctx: ctx, r: r, h: h, port: port}
	secure, insecure := e.addresses()
	h.Secure = secure != nil && insecure == nil
	switch {
	case secure != nil:
		bases := []string{h.Name}
		if len(secure.Chain) > 0 {
			bases = []string{trim(secure.Final), h.Name} // 7672 §2.2.3: final name first
		}
		e.tlsa(bases)
		if h.Verdict == Usable && insecure != nil {
			// Clients evaluate DANE address by address: those of the insecure
			// answer are used without it (7672 §2.2.2). A resolver with DNS64
			// makes up such answers beside a signed A record (6147 §5.5).
			h.Verdict = PartlyInsecure
		}
	case insecure != nil:
		h.Verdict = Insecure // 7672 §2.2.2: no TLSA lookup
		if len(insecure.Chain) > 0 {
			e.insecureTarget()
		}
	}
	if h.Verdict.Failed() {
		h.TTL = min(failedHostTTL, cmp.Or(h.TTL, failedHostTTL))
	}
}

// insecureTarget is for a host whose alias chain is not all secure. The alias
// itself may be: then TLSA records at the original name count (7672 §2.2.2).
func (e *evaluation) insecureTarget() {
	alias, err := e.lookup(e.h.Name, dns.TypeCNAME)
	switch {
	case err != nil:
		e.h.Verdict, e.h.Err = TLSAFailed, err
	case alias.Authentic && !alias.Negative():
		e.tlsa([]string{e.h.Name})
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

// addresses looks the host's addresses up. It returns one answer with secure
// addresses and one with insecure ones, nil where there is none; where there is
// neither, the verdict is set.
func (e *evaluation) addresses() (secure, insecure *dnsclient.Answer) {
	lookups := dnsclient.LookupAddresses(e.ctx, e.r, e.h.Name)
	for i := range lookups {
		l := &lookups[i]
		if l.Err != nil {
			continue
		}
		e.lowerTTL(l.Answer.TTL)
		switch {
		case l.Answer.Negative():
			continue
		case l.Answer.Authentic:
			secure = &l.Answer
		default:
			insecure = &l.Answer
		}
		e.h.addAddresses(l.Answer.Records)
	}
	if secure != nil || insecure != nil {
		return secure, insecure
	}
	e.h.Verdict = NoAddress
	for i, l := range lookups {
		if l.Err != nil && lookups[1-i].Answer.Rcode != dns.RcodeNameError { // NXDOMAIN holds for every type (8020 §2)
			// The other one, if it answered, has no address: nothing is known.
			e.h.Verdict, e.h.Err = AddressFailed, l.Err
			break
		}
	}
	return nil, nil
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
			h.Verdict, h.Err = TLSAFailed, err // 7672 §2.1.2: a failed lookup is not an absence
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

func (h *Host) addAddresses(records []dns.RR) {
	for _, rr := range records {
		if len(h.Addresses) == dnsclient.MaxAddresses {
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
