package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// defaultTTL is that of records that give none, in seconds, and of the SOA that
// comes with negative answers.
const defaultTTL = 300

// zone is all records of the world. Names are lower case with the final dot.
type zone struct {
	sets     map[string]map[uint16][]dns.RR
	below    map[string]int  // how many names at or below a name have records
	secure   map[string]bool // the nearest entry at or above a name decides; without any it is secure
	negative uint32          // SOA minimum of negative answers, seconds
}

// question is a name and a type; type 0 is every type.
type question struct {
	name  string
	qtype uint16
}

func newZone() zone {
	return zone{
		sets:     map[string]map[uint16][]dns.RR{},
		below:    map[string]int{},
		secure:   map[string]bool{},
		negative: defaultTTL,
	}
}

// Zone adds records in master-file syntax (RFC 1035 §5.1). Names without final
// dot are relative to the root, the TTL is 300 unless given, and each record
// names its owner: blanks at the beginning of a line are ignored, so that a
// literal may be indented. A record is added to the set that is there.
func (w *World) Zone(text string) {
	rrs := parseRecords(text)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, rr := range rrs {
		w.zone.add(rr)
	}
}

// Replace puts records in the place of a record set; without any, the set is
// removed. A record is given whole ("example.test. 60 MX 10 mx.test.") or as
// its data alone ("10 mx.test.", TTL 300).
func (w *World) Replace(name, rrtype string, records ...string) {
	q := question{canonical(name), typeCode(rrtype)}
	var rrs []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil || rr == nil || canonical(rr.Header().Name) != q.name || rr.Header().Rrtype != q.qtype {
			whole := fmt.Sprintf("%s %d IN %s %s", q.name, defaultTTL, rrtype, text)
			if rr, err = dns.NewRR(whole); err != nil || rr == nil {
				panic(fmt.Sprintf("lab: record %q: %v", whole, err))
			}
		}
		rrs = append(rrs, rr)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone.replace(q, rrs)
}

// Insecure makes answers for the names and everything below come without the
// AD bit. "." stands for every name.
func (w *World) Insecure(names ...string) { w.setSecure(false, names) }

// Secure undoes Insecure, also for a part of what Insecure covers: the nearest
// name above decides.
func (w *World) Secure(names ...string) { w.setSecure(true, names) }

func (w *World) setSecure(secure bool, names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		w.zone.secure[canonical(name)] = secure
	}
}

// NegativeTTL sets the SOA minimum that negative answers carry (RFC 2308 §5),
// in whole seconds; 300 at first. An SOA record in the zone comes before it.
func (w *World) NegativeTTL(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone.negative = uint32(d / time.Second)
}

func parseRecords(text string) []dns.RR {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimLeft(line, " \t")
	}
	// By directive: the parser would replace its default with the last TTL seen.
	text = fmt.Sprintf("$TTL %d\n%s", defaultTTL, strings.Join(lines, "\n"))
	p := dns.NewZoneParser(strings.NewReader(text), ".", "")
	var rrs []dns.RR
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		rrs = append(rrs, rr)
	}
	if err := p.Err(); err != nil {
		panic("lab: zone: " + err.Error())
	}
	return rrs
}

func (z *zone) add(rr dns.RR) {
	h := rr.Header()
	q := question{canonical(h.Name), h.Rrtype}
	z.replace(q, append(z.sets[q.name][q.qtype], rr))
}

func (z *zone) replace(q question, rrs []dns.RR) {
	had := len(z.sets[q.name]) > 0
	if len(rrs) == 0 {
		delete(z.sets[q.name], q.qtype)
	} else {
		if z.sets[q.name] == nil {
			z.sets[q.name] = map[uint16][]dns.RR{}
		}
		z.sets[q.name][q.qtype] = rrs
	}
	has := len(z.sets[q.name]) > 0
	if had == has {
		return
	}
	step := 1
	if had {
		step = -1
		delete(z.sets, q.name)
	}
	for name := range upwards(q.name) {
		z.below[name] += step
	}
}

// find returns the record sets at a name, those of a wildcard included (RFC
// 4592), and whether the name exists at all: a name without records above one
// with records does (an empty non-terminal).
func (z *zone) find(name string) (map[uint16][]dns.RR, bool) {
	if sets, ok := z.sets[name]; ok {
		return sets, true
	}
	if z.below[name] > 0 || name == "." {
		return nil, true
	}
	for above := range upwards(name) {
		if above != name && (z.below[above] > 0 || above == ".") {
			sets, ok := z.sets["*."+strings.TrimPrefix(above, ".")]
			return sets, ok
		}
	}
	return nil, false
}

func (z *zone) isSecure(name string) bool {
	for above := range upwards(name) {
		if secure, ok := z.secure[above]; ok {
			return secure
		}
	}
	return true
}

// soa returns the SOA record for a negative answer about name.
func (z *zone) soa(name string) dns.RR {
	for above := range upwards(name) {
		if rrs := z.sets[above][dns.TypeSOA]; len(rrs) > 0 {
			return rrs[0]
		}
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: z.negative},
		Ns:  "ns.lab.invalid.", Mbox: "hostmaster.lab.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: z.negative,
	}
}

// upwards yields name, its parent and so on to the root.
func upwards(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for yield(name) && name != "." {
			next, end := dns.NextLabel(name, 0)
			if name = name[next:]; end {
				name = "."
			}
		}
	}
}

// addressRecord returns the A or AAAA record that says name is at addr.
func addressRecord(name string, addr netip.Addr) dns.RR {
	h := dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: defaultTTL}
	if addr.Unmap().Is4() {
		return &dns.A{Hdr: h, A: addr.Unmap().AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()}
}

// parentName returns a name without its first label.
func parentName(name string) string {
	_, parent, _ := strings.Cut(name, ".")
	return parent
}

func canonical(name string) string { return dns.CanonicalName(name) }

// typeCode returns the number of a record type, 0 for "" and "ANY".
func typeCode(rrtype string) uint16 {
	rrtype = strings.ToUpper(rrtype)
	if rrtype == "" || rrtype == "ANY" {
		return 0
	}
	code, ok := dns.StringToType[rrtype]
	if !ok {
		panic(fmt.Sprintf("lab: unknown record type %q", rrtype))
	}
	return code
}
