package lab

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Query is a question that a resolver of the world was asked.
type Query struct {
	Name    string // lower case, without the final dot
	Type    string // "MX"
	At      time.Time
	Network string // "udp" or "tcp"
	Server  netip.AddrPort
	AD, DO  bool // the bits of the question
}

// DNSAddr is the address of the world's first resolver. It is on loopback, so
// its AD bits are to be trusted.
func (w *World) DNSAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 53}), 53)
}

// AddResolver puts another resolver into the world, with the same names as the
// first and a fault of its own for every question (0: none). Called again for
// the same address it changes the fault.
func (w *World) AddResolver(addr netip.AddrPort, f Fault) {
	s := service{serve: func(c net.Conn, network string) {
		w.serveStream(c, resolver{addr: addr, fault: f, udp: strings.HasPrefix(network, "udp")})
	}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.services[endpoint{addr, true}] = s
	w.services[endpoint{addr, false}] = s
}

// Delay makes each DNS answer wait for d; given names, only theirs.
func (w *World) Delay(d time.Duration, names ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(names) == 0 {
		w.delay = d
	}
	for _, name := range names {
		w.delays[canonical(name)] = d
	}
}

// Latency has each DNS answer wait for as long as d says, whatever Delay says. It
// must not call the world.
func (w *World) Latency(d func(Query) time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.latency = d
}

// Down makes all resolvers silent, or ends that.
func (w *World) Down(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// ADOnlyWhenAsked makes the resolvers set AD only when the question had the AD
// bit; otherwise DO does as well (RFC 6840 §5.7, §5.8).
func (w *World) ADOnlyWhenAsked(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adOnlyByAD = on
}

// Queries returns the questions asked since the last ResetQueries, in order.
func (w *World) Queries() []Query {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.queries)
}

// ResetQueries forgets the questions asked so far.
func (w *World) ResetQueries() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = nil
	clear(w.counts)
}

// Count returns how often a question was asked since the last ResetQueries; a
// qtype of "" or "ANY" counts all types, the name "*" all names.
func (w *World) Count(name, qtype string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts[question{faultName(name), typeCode(qtype)}]
}

// record notes a question. w.mu is held.
func (w *World) record(q Query, name string, qtype uint16) {
	w.queries = append(w.queries, q)
	for _, k := range []question{{name, qtype}, {name, 0}, {"*", qtype}, {"*", 0}} {
		w.counts[k]++
	}
}

// reply is what a question leads to, after a delay.
type reply struct {
	delay    time.Duration
	messages [][]byte
	stray    []byte        // sent first, from where the question did not go
	framing  framing       // over a stream
	again    time.Duration // the messages are sent again and again, this far apart; 0: once
}

// resolver is one of the world's resolvers as reached over one transport.
type resolver struct {
	addr  netip.AddrPort
	fault Fault
	udp   bool
}

// ask answers one message.
func (w *World) ask(raw []byte, r resolver) reply {
	var req dns.Msg
	if err := req.Unpack(raw); err != nil || req.Response || len(req.Question) != 1 {
		return reply{} // a real resolver may say FORMERR; nothing here depends on it
	}
	q := req.Question[0]
	name := canonical(q.Name)
	opt := req.IsEdns0()
	asked := Query{
		Name: strings.TrimSuffix(name, "."), Type: dns.TypeToString[q.Qtype], At: time.Now(), Network: "tcp",
		Server: r.addr, AD: req.AuthenticatedData, DO: opt != nil && opt.Do(),
	}
	if r.udp {
		asked.Network = "udp"
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	w.record(asked, name, q.Qtype)
	if w.down {
		return reply{}
	}
	fault := r.fault
	if fault == 0 {
		fault = w.takeFault(name, q.Qtype)
	}
	msg := w.answer(&req, name, asked.DO, fault)
	delay := w.delay
	if d, ok := w.delays[name]; ok {
		delay = d
	}
	if w.latency != nil {
		delay = w.latency(asked)
	}
	rep := wire(msg, &req, r.udp, fault)
	rep.delay = delay
	return rep
}

// answer builds the answer to a question. w.mu is held.
func (w *World) answer(req *dns.Msg, name string, do bool, fault Fault) *dns.Msg {
	q := req.Question[0]
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	m.Compress = true
	if opt := req.IsEdns0(); opt != nil {
		m.SetEdns0(1232, do) // RFC 6891 §6.1.1: only in answer to EDNS
	}
	switch fault {
	case ServFail, Bogus:
		m.Rcode = dns.RcodeServerFailure
		if opt := m.IsEdns0(); opt != nil && fault == Bogus {
			opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus})
		}
		return m
	case Refused:
		m.Rcode = dns.RcodeRefused
		return m
	case FormErr:
		m.Rcode = dns.RcodeFormatError
		return m
	case LongChain:
		for range maxAliases * 4 {
			next := nextAlias(name)
			m.Answer = append(m.Answer, alias(name, next))
			name = next
		}
		return m
	case CNAMELoop:
		m.Answer = []dns.RR{alias(name, "loop."+name), alias("loop."+name, name)}
	case EndlessCNAMEs:
		m.Answer = []dns.RR{alias(name, nextAlias(name))}
	case NXDomain:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{w.zone.soa(name)}
	default:
		if fault == Huge {
			m.Answer = hugeRecords(name, q.Qtype)
		} else if fault == Expanding {
			m.Answer = expandingRecords(name, q.Qtype)
		} else if strings.HasSuffix(name, endless) {
			m.Answer = []dns.RR{alias(name, nextAlias(name))}
		}
		if len(m.Answer) == 0 {
			w.resolve(m, name, q.Qtype)
		}
	}
	if fault == NoSOA {
		m.Ns = nil
	}
	w.finish(m, req, name, do)
	if fault == NoAD {
		m.AuthenticatedData = false
	}
	return m
}

// finish sets the AD bit, adds signatures where they are asked for and puts the
// name into the spelling of the question. w.mu is held.
func (w *World) finish(m, req *dns.Msg, name string, do bool) {
	secure := m.Rcode != dns.RcodeServerFailure && w.zone.isSecure(name)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			secure = secure && w.zone.isSecure(canonical(c.Target))
		}
	}
	m.AuthenticatedData = secure && (req.AuthenticatedData || do && !w.adOnlyByAD)
	if do {
		m.Answer = w.zone.sign(m.Answer)
		m.Ns = w.zone.sign(m.Ns)
	}
	for _, rr := range m.Answer {
		if canonical(rr.Header().Name) == name {
			rr.Header().Name = req.Question[0].Name
		}
	}
}

// maxAliases is where the resolver gives up on a chain of aliases, with
// SERVFAIL, as real ones do.
const maxAliases = 12

// resolve fills in rcode, answer and authority. w.mu is held.
func (w *World) resolve(m *dns.Msg, name string, qtype uint16) {
	for range maxAliases {
		sets, exists := w.zone.find(name)
		if rrs := sets[qtype]; len(rrs) > 0 {
			m.Answer = append(m.Answer, owned(rrs, name)...)
			return
		}
		if aliases := sets[dns.TypeCNAME]; len(aliases) > 0 {
			m.Answer = append(m.Answer, owned(aliases[:1], name)...)
			name = canonical(aliases[0].(*dns.CNAME).Target)
			if f := w.takeFault(name, qtype); f == ServFail || f == Bogus || f == Refused {
				break
			}
			continue
		}
		if !exists {
			m.Rcode = dns.RcodeNameError // of the last name in the chain (RFC 6604 §3)
		}
		m.Ns = []dns.RR{w.zone.soa(name)}
		return
	}
	m.Rcode = dns.RcodeServerFailure
	m.Answer = nil
}

// owned copies records and gives them the name asked for, which differs under
// a wildcard.
func owned(rrs []dns.RR, name string) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Name = name
	}
	return out
}

func alias(from, to string) dns.RR {
	return &dns.CNAME{
		Hdr:    dns.RR_Header{Name: from, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: defaultTTL},
		Target: to,
	}
}

// sign puts an RRSIG after each record set of a secure name, as an answer to a
// question with DO has them. The signatures are nothing but bytes: a stub
// resolver relies on the AD bit.
func (z *zone) sign(rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for i, rr := range rrs {
		out = append(out, rr)
		h := rr.Header()
		last := i+1 == len(rrs) || rrs[i+1].Header().Name != h.Name || rrs[i+1].Header().Rrtype != h.Rrtype
		if !last || !z.isSecure(canonical(h.Name)) {
			continue
		}
		now := uint32(time.Now().Unix())
		out = append(out, &dns.RRSIG{
			Hdr:         dns.RR_Header{Name: h.Name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: h.Ttl},
			TypeCovered: h.Rrtype, Algorithm: dns.ECDSAP256SHA256, Labels: uint8(dns.CountLabel(h.Name)),
			OrigTtl: h.Ttl, Inception: now - 3600, Expiration: now + 7*86400, KeyTag: 1, SignerName: ".",
			Signature: strings.Repeat("A", 86) + "==",
		})
	}
	return out
}
