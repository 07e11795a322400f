//go:build linux

package simulate

import (
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tlspolicyd/testing/lab"
)

// The choices that an event's arguments are indexes of.
var (
	questions = []string{"MX", "TXT", "A0", "A1", "TLSA0", "TLSA1", "AAAA0", "policyA"}
	dnsFaults = []lab.Fault{lab.ServFail, lab.Bogus, lab.Refused, lab.Drop, lab.Garbage, lab.CountLies, lab.TruncateAll, lab.StreamSilent, lab.CNAMELoop}
	maxAges   = []int{1200, 43200, 86400, 7 * 86400, 30 * 86400, 300}
	modes     = []string{"enforce", "testing", "none"}

	hostFaults = []lab.HostFault{
		{Refuse: true},
		{Stall: lab.AtConnect},
		{Stall: lab.AtHandshake},
		{Stall: lab.AtHeaders},
		{Stall: lab.AtBody},
		{Cert: lab.WrongName},
		{Cert: lab.SelfSigned},
		{Status: 404},
		{Status: 500},
		{Redirect: "https://elsewhere.test/"},
		{MediaType: "text/html"},
		{Size: 80_000},
		{CloseEarly: true},
		{Hangup: lab.AtHeaders},
		{Gzip: true},
		{NoTLS: "hello\r\n"},
		{Raw: "HTTP/1.1 200 OK\r\n\r\nversion: STSv1\r\n"},
		{TLSMax: tls.VersionTLS11},
		{Drip: 5 * time.Second},
		{Delay: 20 * time.Second}, // these two work, late
		{Delay: 2 * time.Second},
	}
)

const late = 19 // the first of hostFaults that works

// ttl is that of every record, as the lab gives it.
const ttl = 300 * time.Second

// truth is how the world is, as far as the daemon can find out. It changes with
// world.apply only.
type truth struct {
	faults map[string]bool // "name type" that cannot be looked up
	dns    int             // 0: works, 1: silent, 2: fails, 3: says that nothing is signed
	late   map[string]bool // "name type" that is answered 3 s later
	slow   bool            // the first resolver is silent, and the second one works
	signed map[string]bool // zones
	tlsa   map[string]int  // mail hosts: 0, 1: none, 2: usable, 3: unusable
	domain [domains]domainTruth
}

// domainTruth is how a domain is.
type domainTruth struct {
	mx    int // 0: both hosts, 1: the first, 2: the second, 3: null MX, 4: the domain is gone
	txt   bool
	file  *policyFile // nil: none was ever published
	fault int         // of the policy host: index in hostFaults and 1

	fileAt, idAt time.Time // of the last change
	changed      time.Time // of anything that matters for MTA-STS

	daneTrouble time.Time // when a lookup last failed, or what it finds changed
	hostTrouble time.Time // when the policy host last failed or was slow
	withoutTXT  time.Time // when there was last no TXT record
}

// policyFile is a policy as published.
type policyFile struct {
	mode   string
	mx     []string
	maxAge time.Duration
}

func (p *policyFile) String() string {
	if p == nil {
		return "no policy"
	}
	return fmt.Sprintf("%s %v %v", p.mode, p.mx, p.maxAge)
}

// allows reports whether a pattern matches a host (8461 §4.1).
func (p *policyFile) allows(host string) bool {
	return slices.ContainsFunc(p.mx, func(mx string) bool {
		return mx == host || strings.HasPrefix(mx, "*.") && strings.HasSuffix(host, mx[1:])
	})
}

func (p *policyFile) text() string {
	text := "version: STSv1\nmode: " + p.mode + "\n"
	for _, mx := range p.mx {
		text += "mx: " + mx + "\n"
	}
	return text + fmt.Sprintf("max_age: %d\n", p.maxAge/time.Second)
}

// names of a domain.
func domainName(d int) string {
	if d >= smartFrom {
		return fmt.Sprintf("s%d.test", d)
	}
	return fmt.Sprintf("d%d.test", d)
}

func keyOf(d int) string {
	if d >= smartFrom {
		return "[" + domainName(d) + "]"
	}
	return domainName(d)
}

// hostZone is the zone of a domain's mail hosts.
func hostZone(d int) string {
	switch {
	case d >= smartFrom:
		return domainName(d)
	case d >= sharedFrom:
		d = sharedFrom - 1
	}
	return fmt.Sprintf("h%d.test", d)
}

func mailHost(d, n int) string {
	if d >= smartFrom {
		return domainName(d)
	}
	return []string{"a.", "b."}[n] + hostZone(d)
}

// world is the lab and the truth about it.
type world struct {
	*lab.World
	truth
	hosts [domains]*lab.PolicyHost
	ids   int
}

// secondDNS is the resolver that is asked where the first one fails.
var secondDNS = netip.MustParseAddrPort("127.0.0.54:53")

func newWorld() *world {
	w := &world{World: lab.New(), truth: truth{faults: map[string]bool{}, late: map[string]bool{}, signed: map[string]bool{}, tlsa: map[string]int{}}}
	for d := range domains {
		w.signed[domainName(d)], w.signed[hostZone(d)] = true, true
		for n := range 2 {
			w.Replace(mailHost(d, n), "A", fmt.Sprintf("10.21.%d.%d", d, n+1))
		}
		w.setMX(d, 0)
	}
	w.AddResolver(secondDNS, 0)
	w.setLatency()
	return w
}

// setLatency gives each question another latency at each time, up to 60 ms, so that
// hardly ever two answers come at the same moment: a history would not repeat where
// it depends on which is read first. Some come later.
func (w *world) setLatency() {
	late := maps.Clone(w.late)
	w.Latency(func(q lab.Query) time.Duration {
		h := fnv.New64a()
		fmt.Fprint(h, q.Name, q.Type, q.Network, q.At.UnixNano())
		latency := time.Duration(h.Sum64() % uint64(60*time.Millisecond))
		if late[q.Name+" "+q.Type] {
			latency += 3 * time.Second
		}
		return latency
	})
}

func (w *world) setMX(d, form int) {
	if d >= smartFrom {
		return
	}
	w.domain[d].mx = form
	mx := []string{"10 " + mailHost(d, 0) + ".", "20 " + mailHost(d, 1) + "."}
	switch form {
	case 1:
		mx = mx[:1]
	case 2:
		mx = mx[1:]
	case 3:
		mx = []string{"0 ."}
	case 4:
		mx = nil
	}
	w.Replace(domainName(d), "MX", mx...)
	var gone lab.Fault
	if form == 4 {
		gone = lab.NXDomain
	}
	if !w.faults[domainName(d)+" MX"] {
		w.Fault(domainName(d), "MX", gone)
	}
}

// question returns the name and type that a fault is about.
func question(d, n int) (name, qtype string) {
	switch kind := questions[n]; kind {
	case "MX":
		return domainName(d), "MX"
	case "TXT":
		return "_mta-sts." + domainName(d), "TXT"
	case "A0", "A1", "AAAA0":
		return mailHost(d, int(kind[len(kind)-1]-'0')), strings.TrimRight(kind, "01")
	case "TLSA0", "TLSA1":
		return "_25._tcp." + mailHost(d, int(kind[len(kind)-1]-'0')), "TLSA"
	default:
		return "mta-sts." + domainName(d), "A"
	}
}

// apply changes the world by an event, or returns false if it is not one of the
// world's.
func (w *world) apply(e event) bool {
	d, t := e.domain, &w.domain[e.domain]
	sts := true // the event matters for MTA-STS
	switch e.kind {
	case "mx":
		w.setMX(d, e.a)
	case "tlsa":
		w.tlsa[mailHost(d, e.a)] = e.b
		var rrs []string
		switch e.b {
		case 2:
			rrs = []string{"3 1 1 " + strings.Repeat("ab", 32)}
		case 3:
			rrs = []string{"1 1 1 " + strings.Repeat("ab", 32)}
		}
		w.Replace("_25._tcp."+mailHost(d, e.a), "TLSA", rrs...)
		sts = false
	case "sign":
		for n, zone := range []string{domainName(d), hostZone(d)} {
			w.signed[zone] = []int{e.a, e.b}[n] == 0
			if w.signed[zone] {
				w.Secure(zone)
			} else {
				w.Insecure(zone)
			}
		}
	case "policy":
		w.publish(d, e.a, e.b)
		w.newID(d)
	case "file":
		w.publish(d, e.a, e.b)
	case "id":
		w.newID(d)
	case "notxt":
		if w.hosts[d] != nil {
			w.hosts[d].RemoveTXT()
		}
		t.txt = false
	case "fault":
		name, qtype := question(d, e.a)
		w.late[name+" "+qtype] = e.b > len(dnsFaults)
		w.setLatency()
		failing := e.b > 0 && e.b <= len(dnsFaults)
		var f lab.Fault
		if failing {
			f = dnsFaults[e.b-1]
		} else if qtype == "MX" && t.mx == 4 {
			f = lab.NXDomain
		}
		w.Fault(name, qtype, f)
		w.faults[name+" "+qtype] = failing
	case "host":
		if w.hosts[d] == nil {
			return true
		}
		t.fault = e.b
		var f lab.HostFault
		if e.b > 0 {
			f = hostFaults[e.b-1]
		}
		w.hosts[d].Fault(f)
	case "dns":
		w.dns = e.b
		w.Down(e.b == 1)
		w.Fault("*", "", []lab.Fault{0, 0, lab.ServFail, lab.NoAD}[e.b])
	case "resolver": // the first: it is silent, fails or refuses
		w.AddResolver(w.DNSAddr(), []lab.Fault{0, lab.Drop, lab.ServFail, lab.Refused}[e.b])
		w.slow = e.b == 1
	default:
		return false
	}
	for i := range w.domain {
		if sts && (i == d || e.kind == "dns" || e.kind == "resolver") {
			w.domain[i].changed = time.Now()
		}
	}
	return true
}

func (w *world) publish(d, form, age int) {
	t := &w.domain[d]
	p := &policyFile{mode: modes[form%10], maxAge: time.Duration(maxAges[age]) * time.Second}
	switch form / 10 {
	case 0:
		p.mx = []string{mailHost(d, 0), mailHost(d, 1)}
	case 1:
		p.mx = []string{"*." + hostZone(d), mailHost(d, 0)}
	default:
		p.mx = []string{mailHost(d, 0)}
	}
	if d >= smartFrom {
		p.mx = p.mx[len(p.mx)-1:]
	}
	if t.file == nil || t.file.text() != p.text() {
		t.fileAt = time.Now()
	}
	if w.hosts[d] == nil {
		w.hosts[d] = w.PolicyHost(domainName(d), p.text())
		t.txt, t.idAt = true, time.Now()
	}
	w.hosts[d].SetPolicyKeepID(p.text())
	t.file = p
}

func (w *world) newID(d int) {
	if w.hosts[d] == nil {
		return
	}
	w.ids++
	w.hosts[d].SetID(fmt.Sprint("id", w.ids))
	w.domain[d].txt, w.domain[d].idAt = true, time.Now()
}

// fails reports whether a question gets no usable answer.
func (t *truth) fails(name, qtype string) bool {
	return t.faults[name+" "+qtype] || t.dns == 1 || t.dns == 2
}

// secure reports whether answers from a zone have the AD bit.
func (t *truth) secure(zone string) bool { return t.signed[zone] && t.dns != 3 }

// policyHostWorks reports whether a fetch gets the policy file.
func (t *truth) policyHostWorks(d int) bool {
	f := t.domain[d].fault
	return t.domain[d].file != nil && (f == 0 || f > late) && !t.fails("mta-sts."+domainName(d), "A")
}

// stsHealthy reports whether TXT and policy can be found at once.
func (t *truth) stsHealthy(d int) bool {
	return !t.slow && !t.late["_mta-sts."+domainName(d)+" TXT"] && !t.late["mta-sts."+domainName(d)+" A"] && t.policyHostWorks(d) && t.domain[d].fault == 0 && t.domain[d].txt && !t.fails("_mta-sts."+domainName(d), "TXT")
}

// noteTrouble notes what does not work now.
func (w *world) noteTrouble() {
	now := time.Now()
	for d := range w.domain {
		t := &w.domain[d]
		if !w.view(d).healthy() {
			t.daneTrouble = now
		}
		if !w.policyHostWorks(d) || t.fault > 0 {
			t.hostTrouble = now
		}
		if !t.txt {
			t.withoutTXT = now
		}
	}
}

// verdict is what the lookups of a mail host say.
type verdict int

const (
	noTLSA verdict = iota // proved to have none, or insecure
	usable
	unusable
	tlsaFails
	addressFails
)

func (v verdict) String() string {
	return [...]string{"no TLSA", "usable", "unusable", "TLSA fails", "address fails"}[v]
}

// view is what an evaluation of DANE finds, should it see the world as it is.
type view struct {
	fails, secure, null, gone bool       // the MX answer
	listed                    [2]bool    // the hosts in it
	verdicts                  [2]verdict // of both
	slow                      bool       // some answers take 5 s
}

func (v view) String() string {
	return fmt.Sprintf("MX fails=%v secure=%v null=%v gone=%v, hosts in it %v: %v, %v, slow=%v",
		v.fails, v.secure, v.null, v.gone, v.listed, v.verdicts[0], v.verdicts[1], v.slow)
}

func (w *world) view(d int) view {
	mx := w.domain[d].mx
	v := view{
		fails: w.fails(domainName(d), "MX"), secure: w.secure(domainName(d)), null: mx == 3, gone: mx == 4,
		listed: [2]bool{mx == 0 || mx == 1, mx == 0 || mx == 2}, slow: w.slow || w.late[domainName(d)+" MX"],
	}
	switch {
	case d >= smartFrom:
		v.fails, v.secure, v.listed = false, true, [2]bool{true, false}
	case v.gone && w.dns != 1 && !w.faults[domainName(d)+" MX"]:
		v.fails = false // the lab answers it in spite of the other faults
	}
	for n := range 2 {
		host := mailHost(d, n)
		v.slow = v.slow || w.late[host+" A"] || w.late[host+" AAAA"] || w.late["_25._tcp."+host+" TLSA"]
		switch {
		case w.fails(host, "A"):
			v.verdicts[n] = addressFails
		case !w.secure(hostZone(d)):
			v.verdicts[n] = noTLSA
		case w.fails("_25._tcp."+host, "TLSA"):
			v.verdicts[n] = tlsaFails
		default:
			v.verdicts[n] = []verdict{noTLSA, noTLSA, usable, unusable}[w.tlsa[host]]
		}
	}
	return v
}

// healthy reports whether the evaluation teaches everything, at once.
func (v view) healthy() bool {
	for n, listed := range v.listed {
		if listed && v.verdicts[n] >= tlsaFails {
			return false
		}
	}
	return !v.fails && !v.slow
}

func latest(times ...time.Time) (out time.Time) {
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}
