package dnsclient

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/printable"
)

// maxLinks bounds an alias chain, over all messages of one lookup.
const maxLinks = 16

var errContradiction = errors.New("NXDOMAIN beside records of the name")

// walk follows one question through the answers it takes: usually one message,
// more when a server leaves the end of an alias chain to the client.
type walk struct {
	answer Answer
	ttl    uint32 // smallest seen so far
}

func newWalk(name string, qtype uint16) *walk {
	name = dns.CanonicalName(name)
	return &walk{
		answer: Answer{Name: name, Type: qtype, Final: name, Authentic: true},
		ttl:    math.MaxUint32,
	}
}

// add takes one message whose question is (answer.Final, answer.Type). It
// reports whether the answer is complete; otherwise the new answer.Final has to
// be asked for.
func (w *walk) add(m *message, authentic bool) (done bool, err error) {
	a := &w.answer
	a.Rcode = m.Rcode
	a.Authentic = a.Authentic && authentic
	before := len(a.Chain)
	for {
		records, alias, err := pick(m.Answer, a.Final, a.Type)
		if err != nil {
			return false, err
		}
		if len(records) > 0 {
			if m.Rcode == dns.RcodeNameError {
				return false, errContradiction
			}
			for _, rr := range records {
				w.lower(rr.Header().Ttl)
			}
			if a.Records = records; len(records) > 1 {
				a.Records = dns.Dedup(records, nil) // an RRset has no duplicates, RFC 2181 §5
			}
			a.More = m.more
			a.TTL = seconds(w.ttl)
			return true, nil
		}
		if alias == nil {
			break
		}
		if err := w.follow(alias); err != nil {
			return false, err
		}
	}

	soa := negativeSOA(m.Ns, a.Final)
	if m.Rcode == dns.RcodeSuccess && soa == nil && len(a.Chain) > before {
		// Neither data nor denial for the target (RFC 2308 §2.2): some
		// forwarders leave the rest of the chain to the client.
		return false, nil
	}
	if soa != nil {
		w.lower(soa.Hdr.Ttl) // RFC 2308 §5: the smaller of the SOA's TTL and its minimum
		w.lower(soa.Minttl)
		a.TTL = seconds(w.ttl)
	}
	return true, nil
}

func (w *walk) follow(alias *dns.CNAME) error {
	a := &w.answer
	to := dns.CanonicalName(alias.Target)
	if to == a.Final || slices.ContainsFunc(a.Chain, func(c CNAME) bool { return c.From == to }) {
		return fmt.Errorf("alias loop at %s", printable.Line(to, 100))
	}
	if len(a.Chain) == maxLinks {
		return fmt.Errorf("more than %d aliases", maxLinks)
	}
	w.lower(alias.Hdr.Ttl)
	a.Chain = append(a.Chain, CNAME{From: a.Final, To: to})
	a.Final = to
	return nil
}

// lower takes one more TTL into account. RFC 2181 §8: a TTL with the top bit
// set counts as zero.
func (w *walk) lower(ttl uint32) {
	if ttl > math.MaxInt32 {
		ttl = 0
	}
	w.ttl = min(w.ttl, ttl)
}

func seconds(ttl uint32) time.Duration { return time.Duration(ttl) * time.Second }

// pick returns the records of one type at a name and, when there are none, the
// alias there. Records of other owners, types and classes are ignored.
func pick(section []dns.RR, owner string, qtype uint16) (records []dns.RR, alias *dns.CNAME, err error) {
	for _, rr := range section {
		h := rr.Header()
		cname, isAlias := rr.(*dns.CNAME)
		if h.Class != dns.ClassINET || h.Rrtype != qtype && !isAlias || dns.CanonicalName(h.Name) != owner {
			continue
		}
		if mx, ok := rr.(*dns.MX); h.Rdlength == 0 || ok && mx.Mx == "" {
			// The DNS library lets RDATA end early, as dynamic updates have it,
			// and hands out a record with nil or empty fields.
			return nil, nil, fmt.Errorf("%s record without data", typeName(h.Rrtype))
		}
		if h.Rrtype == qtype {
			records = append(records, rr)
		} else if alias == nil {
			alias = cname
		}
	}
	return records, alias, nil
}

// negativeSOA returns the SOA that speaks for the absence of a name, or nil.
func negativeSOA(authority []dns.RR, name string) *dns.SOA {
	for _, rr := range authority {
		soa, ok := rr.(*dns.SOA)
		if ok && soa.Hdr.Class == dns.ClassINET && soa.Hdr.Rdlength > 0 && dns.IsSubDomain(dns.CanonicalName(soa.Hdr.Name), name) {
			return soa
		}
	}
	return nil
}
