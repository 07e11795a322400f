//go:build linux

package simulate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The oracle decides which answers docs/behaviour.md allows, from what the daemon
// can have seen: the world as it was when it asked. It does not know when a
// lookup ends, what of it is on disk after a crash, or in which order things
// happened that happen together. So it keeps a set of what the daemon may know,
// and an answer is allowed if it follows from one member of that set.

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
	fails, secure, null, gone bool // the MX answer
	hosts                     []string
	verdicts                  map[string]verdict // of all hosts the domain ever has
}

func (w *world) view(d int) view {
	v := view{
		fails: d < smartFrom && w.fails(domainName(d), "MX"), secure: d >= smartFrom || w.secure(domainName(d)),
		null: w.domain[d].mx == 3, gone: w.domain[d].mx == 4, hosts: w.mailHosts(d), verdicts: map[string]verdict{},
	}
	if v.gone && w.dns != 1 && !w.faults[domainName(d)+" MX"] {
		v.fails = false // the lab answers it in spite of the other faults
	}
	for n := range 2 {
		host := mailHost(d, n)
		switch {
		case w.fails(host, "A"):
			v.verdicts[host] = addressFails
		case !w.secure(hostZone(d)):
			v.verdicts[host] = noTLSA
		case w.fails("_25._tcp."+host, "TLSA"):
			v.verdicts[host] = tlsaFails
		default:
			v.verdicts[host] = []verdict{noTLSA, noTLSA, usable, unusable}[w.tlsa[host]]
		}
	}
	return v
}

// healthy reports whether the evaluation teaches everything.
func (v view) healthy() bool {
	for _, h := range v.hosts {
		if v.verdicts[h] >= tlsaFails {
			return false
		}
	}
	return !v.fails
}

func (v view) key() string { return fmt.Sprint(v) }

// evidence is what the daemon may know about DANE; nil stands for nothing.
type evidence struct {
	at     time.Time // of the MX answer
	secure bool
	null   bool
	none   bool // null MX, or no such domain
	hosts  []hostEvidence
}

type hostEvidence struct {
	name    string
	verdict verdict   // the last proof, or how the lookup fails
	at      time.Time // of the proof; zero: none
	fails   verdict   // how the lookup fails now; noTLSA: it does not
}

func (e *evidence) String() string {
	if e == nil {
		return "nothing"
	}
	s := fmt.Sprintf("MX of %s secure=%v none=%v", e.at.Format(stamp), e.secure, e.none)
	for _, h := range e.hosts {
		s += fmt.Sprintf(", %s %v", h.name, h.verdict)
		if h.fails != noTLSA {
			s += fmt.Sprintf(" (%v now, proved %s)", h.fails, h.at.Format(stamp))
		}
	}
	return s
}

const stamp = "02 15:04:05.000"

// learn merges an evaluation into what was known (§4, A19).
func (e *evidence) learn(v view, now time.Time) *evidence {
	if v.fails {
		return e
	}
	out := &evidence{at: now, secure: v.secure, null: v.null, none: v.null || v.gone}
	for _, name := range v.hosts {
		h := hostEvidence{name: name, verdict: v.verdicts[name], at: now}
		if h.verdict >= tlsaFails {
			h.fails, h.at = h.verdict, time.Time{}
			if e != nil {
				for _, old := range e.hosts {
					if old.name == name && !old.at.IsZero() && now.Sub(old.at) <= 24*time.Hour {
						h.verdict, h.at = old.verdict, old.at
					}
				}
			}
		}
		out.hosts = append(out.hosts, h)
	}
	return out
}

// fetched is a policy that the daemon may hold; nil stands for none.
type fetched struct {
	*policyFile
	at time.Time
}

func (f *fetched) String() string {
	if f == nil {
		return "none"
	}
	return fmt.Sprintf("%v of %s", f.policyFile, f.at.Format(stamp))
}

// belief is what the daemon may know about one thing.
type belief[T fmt.Stringer] struct {
	now      []T
	next     []T // once the work in flight is over, if there is any
	due      time.Time
	disk     []T // what a crash leaves at worst, durable or not
	answered bool
	quiet    time.Time // since when nothing was added
}

func (b *belief[T]) possible() []T { return append(slices.Clone(b.now), b.next...) }

// inFlight has next take the place of what is known, by the time given.
func (b *belief[T]) inFlight(next []T, now, due time.Time) {
	b.next, b.due, b.quiet = distinct(next), due, now
	b.disk = distinct(append(b.disk, b.next...))
}

func (b *belief[T]) settle(now time.Time, diskWorks bool) {
	if b.next != nil && now.After(b.due) {
		b.now, b.next = b.next, nil
	}
	if diskWorks && b.next == nil && (b.answered || now.Sub(b.quiet) > 30*time.Second) {
		b.disk = slices.Clone(b.now)
		if !b.answered {
			var nothing T // §6: absences need not be there
			b.disk = distinct(append(b.disk, nothing))
		}
	}
}

// was keeps what an answer that was given can follow from.
func (b *belief[T]) was(supports func(T) bool, durable bool) {
	kept := slices.DeleteFunc(slices.Clone(b.now), func(t T) bool { return !supports(t) })
	if len(kept) == 0 {
		kept, b.next = slices.DeleteFunc(slices.Clone(b.next), func(t T) bool { return !supports(t) }), nil
	}
	b.now = kept
	b.answered = true
	if durable {
		b.disk = distinct(append(slices.Clone(kept), b.next...))
	}
}

func (b *belief[T]) crash(lost bool) {
	b.now, b.next = b.disk, nil
	if lost {
		var nothing T
		b.now, b.answered = distinct(append(slices.Clone(b.now), nothing)), false
	}
	b.disk = slices.Clone(b.now)
}

func distinct[T fmt.Stringer](list []T) []T {
	var out []T
	seen := map[string]bool{}
	for _, t := range list {
		if k := t.String(); !seen[k] {
			seen[k] = true
			out = append(out, t)
		}
	}
	return out
}

// settings are those of §5.
type settings struct{ insecureDANE, partialSTS, testingEnforced, strict bool }

// answer is a reply without what does not matter, and why it is allowed.
type answer struct{ reply, why string }

func secureAnswer(patterns []string, why string) answer {
	var names []string
	for _, p := range patterns {
		names = append(names, strings.TrimPrefix(p, "*"))
	}
	return answer{"secure " + strings.Join(names, ":"), why}
}

// decide is the table of §5. lenient says that what is 24 hours old, give or
// take some seconds, is still used.
func (o *oracle) decide(e *evidence, p *policyFile, set settings, lenient bool) []answer {
	one := func(reply, why string) []answer { return []answer{{reply, why}} }
	enforce := p != nil && (p.mode == "enforce" || p.mode == "testing" && set.testingEnforced)
	young := func(at time.Time) bool {
		if at.IsZero() {
			return false
		}
		in, over := o.within(at, 24*time.Hour)
		return in && (lenient || !over)
	}
	if e == nil || !young(e.at) {
		return one("temp", "the MX lookup fails, and nothing is known")
	}
	n := map[verdict]int{}
	var proved []string
	for _, h := range e.hosts {
		v := h.verdict
		if h.fails != noTLSA && !young(h.at) {
			v = h.fails
		}
		n[v]++
		if v == noTLSA || v == unusable {
			proved = append(proved, h.name)
		}
	}
	tlsa, failing := n[usable]+n[unusable], n[tlsaFails]+n[addressFails]
	if e.none {
		n, tlsa, failing = nil, 0, 0
	}
	cut := func() []answer {
		var allowed []string
		for _, h := range proved {
			for _, mx := range p.mx {
				if mx == h || strings.HasPrefix(mx, "*.") && strings.HasSuffix(h, mx[1:]) {
					allowed = append(allowed, h)
					break
				}
			}
		}
		if allowed == nil {
			return one("temp", "the policy allows no host that is proved to have no usable TLSA record")
		}
		return []answer{secureAnswer(allowed, "a TLSA lookup fails: the policy for the proved hosts")}
	}
	switch {
	case tlsa > 0 && !e.secure:
		if enforce && !set.insecureDANE {
			return []answer{secureAnswer(p.mx, "insecure MX, enforce")}
		}
		return one("dane", "insecure MX")
	case tlsa > 0 && n[unusable]+n[noTLSA] > 0: // Partial, whatever fails
		switch {
		case !enforce:
			return one("dane", "partial DANE")
		case n[usable] == 0 && n[tlsaFails] > 0:
			return append(cut(), secureAnswer(p.mx, "no usable TLSA record, enforce"))
		case n[usable] == 0, set.partialSTS:
			return []answer{secureAnswer(p.mx, "partial DANE, none usable or by policy.partial, enforce")}
		}
		return one("dane", "partial DANE comes before enforce")
	case tlsa > 0 && failing > 0:
		if enforce && set.partialSTS {
			return one("dane-only", "a host has TLSA records, another one fails, and no host goes without a check")
		}
		return one("dane", "a host has TLSA records, another one fails")
	case tlsa > 0:
		return one("dane-only", "full DANE")
	case n[tlsaFails] > 0 || n[addressFails] > 0 && n[noTLSA] == 0:
		switch {
		case enforce && !e.secure && (!set.insecureDANE || n[tlsaFails] == 0):
			return []answer{secureAnswer(p.mx, "unknown hosts of an insecure MX answer, enforce")}
		case enforce && n[tlsaFails] > 0 && len(proved) > 0:
			return cut()
		case enforce && !e.secure:
			return one("dane", "unknown hosts of an insecure MX answer, and DANE comes first there")
		case !enforce && n[tlsaFails] > 0 && (len(proved) > 0 || !e.secure):
			if set.strict {
				return one("notfound", "a host fails, postfix_level is strict")
			}
			return one("dane", "a host fails, another is proved to have none")
		}
		return one("temp", "DANE is unknown")
	}
	switch {
	case e.null && enforce: // whether the policy was in force before is not known here (A7)
		return append(one("notfound", "null MX"), secureAnswer(p.mx, "null MX, enforce before it"))
	case enforce:
		return []answer{secureAnswer(p.mx, "no DANE, enforce")}
	}
	return one("notfound", "no DANE, no policy to enforce")
}

// oracle is what may be known of all domains, and since when the world has been
// as it is.
type oracle struct {
	w       *world
	domains [domains]struct {
		dane belief[*evidence]
		sts  belief[*fetched]

		// The evaluation in flight: what it began with and may see.
		from  []*evidence
		views []view
		began time.Time

		evaluated, daneTrouble   time.Time // the last MX query; when a lookup last failed
		daneChanged, hostTrouble time.Time // the same for changes, and for the policy host
		withoutTXT, asked        time.Time
		askedAfter               time.Time // the first lookup by which the TXT record was due again
		fetches                  int
		fetchedAt                time.Time
		fetchFailed              bool
		expect                   []expectation
	}
	started    time.Time // the process
	disturbed  time.Time // by a start, a reload or the clock
	diskOff    bool
	diskBack   time.Time
	diskWrites time.Time // when the store was first seen to write after that
	lostUntil  time.Time
	steps      []step
	asked      int
	wrong      []string
}

func newOracle(w *world) *oracle {
	o := &oracle{w: w, started: time.Now()}
	for d := range o.domains {
		x := &o.domains[d]
		x.dane.now, x.dane.disk = []*evidence{nil}, []*evidence{nil}
		x.sts.now, x.sts.disk = []*fetched{nil}, []*fetched{nil}
	}
	return o
}

// expectation is an evaluation that has to begin soon.
type expectation struct{ since, by time.Time }

type step struct {
	at time.Time
	by time.Duration
}

func (o *oracle) fail(d int, format string, args ...any) {
	x := &o.domains[d]
	o.wrong = append(o.wrong, fmt.Sprintf("%s %s: %s\n  world: %v, %v, policy host fault %d, TXT %v\n  may know of DANE: %v\n  may hold: %v",
		time.Now().Format(stamp), keyOf(d), fmt.Sprintf(format, args...),
		o.w.view(d), o.w.domain[d].file, o.w.domain[d].fault, o.w.domain[d].txt, x.dane.possible(), x.sts.possible()))
}

// within reports whether something of the time at may be younger than life, and
// whether it may be older. Steps of the clock make it vague (§7).
func (o *oracle) within(at time.Time, life time.Duration) (in, over bool) {
	slack := 15 * time.Second
	for _, s := range o.steps {
		if s.at.After(at) {
			slack += s.by.Abs()
		}
	}
	age := time.Since(at)
	return age-slack < life, age+slack >= life
}

// stepped reports whether the clock was set since then.
func (o *oracle) stepped(since time.Time) bool {
	return len(o.steps) > 0 && o.steps[len(o.steps)-1].at.After(since)
}

// diskWorks reports whether everything that an answer rested on is on disk: a record that waits is
// tried again after 10 s, or with the first write that succeeds.
func (o *oracle) diskWorks() bool {
	return !o.diskOff && (time.Since(o.diskBack) > 15*time.Second || !o.diskWrites.IsZero())
}

// reply holds a reply to a lookup against what is allowed.
func (o *oracle) reply(d int, tlsrpt bool, began time.Time, sets []settings, reply string) {
	o.asked++
	now, x, t := time.Now(), &o.domains[d], &o.w.domain[d]
	if took := now.Sub(began); took > 15*time.Second {
		o.fail(d, "answered after %v", took)
	}
	got, err := read(reply, tlsrpt, domainName(d))
	if err != nil {
		o.fail(d, "%v", err)
		return
	}
	byEvidence, byPolicy := map[*evidence]bool{}, map[*fetched]bool{}
	var allowed []answer
	follows, absentOnly, oldOnly := false, true, true
	for _, e := range x.dane.possible() {
		for _, f := range x.sts.possible() {
			for _, p := range o.inForce(f) {
				for _, set := range sets {
					for _, a := range append(o.decide(e, p, set, true), o.decide(e, p, set, false)...) {
						allowed = append(allowed, a)
						if a.reply == got {
							follows, byEvidence[e], byPolicy[f] = true, true, true
							absentOnly = absentOnly && p == nil
							oldOnly = oldOnly && p != nil && p.text() != t.file.text()
						}
					}
				}
			}
		}
	}
	// With the policy that is published now the answer may be the same.
	if t.file != nil {
		for e := range byEvidence {
			for _, set := range sets {
				for _, a := range o.decide(e, t.file, set, true) {
					absentOnly, oldOnly = absentOnly && a.reply != got, oldOnly && a.reply != got
				}
			}
		}
	}
	settled := latest(t.changed, o.started).Add(400 * time.Second)
	if x.askedAfter.Before(settled) {
		x.askedAfter = time.Time{}
	}
	switch {
	case !follows:
		o.fail(d, "%q is none of %q", got, allowed)
	case got == "temp" && began.After(latest(x.daneTrouble, x.daneChanged).Add(26*time.Second)):
		o.fail(d, "TEMP though every lookup works since %s", latest(x.daneTrouble, x.daneChanged).Format(stamp))
	case absentOnly && t.mx < 3 && o.w.stsHealthy(d) && began.After(t.changed.Add(400*time.Second)):
		o.fail(d, "%q without the policy, which can be fetched since %s", got, t.changed.Format(stamp))
	case oldOnly && o.w.stsHealthy(d) && !t.idAt.Before(t.fileAt) && !x.askedAfter.IsZero() && began.After(x.askedAfter.Add(30*time.Second)):
		o.fail(d, "%q by a policy that was replaced at %s", got, t.changed.Format(stamp))
	}
	if began.After(settled) && x.askedAfter.IsZero() {
		x.askedAfter = now
	}
	x.asked = now
	if now.Sub(x.evaluated) > ttl+10*time.Second && !o.stepped(x.evaluated) {
		x.expect = append(x.expect, expectation{now.Add(-ttl - 10*time.Second), now.Add(20 * time.Second)})
	}
	if follows && got != "temp" && got != "notfound" {
		x.dane.was(func(e *evidence) bool { return byEvidence[e] }, o.diskWorks())
		if strings.HasPrefix(got, "secure") {
			x.sts.was(func(f *fetched) bool { return byPolicy[f] }, o.diskWorks())
		}
	}
}

// inForce returns what a policy may count as now.
func (o *oracle) inForce(f *fetched) (list []*policyFile) {
	if f == nil {
		return []*policyFile{nil}
	}
	in, over := o.within(f.at, f.maxAge)
	if in {
		list = append(list, f.policyFile)
	}
	if over {
		list = append(list, nil)
	}
	return list
}

// read checks the form of a reply (§5) and returns what matters in it.
func read(reply string, tlsrpt bool, domain string) (string, error) {
	switch {
	case reply == "NOTFOUND ":
		return "notfound", nil
	case reply == "OK dane", reply == "OK dane-only":
		return reply[3:], nil
	case strings.HasPrefix(reply, "TEMP ") && len(reply) < 205:
		return "temp", nil
	}
	match, rest, ok := strings.Cut(strings.TrimPrefix(reply, "OK secure match="), " servername=hostname")
	if !ok || !strings.HasPrefix(reply, "OK secure match=") || tlsrpt == (rest == "") ||
		tlsrpt && (!strings.HasPrefix(rest, " policy_type=sts policy_domain="+domain+" mx_host_pattern=") || !strings.Contains(rest, "{ policy_string = ")) {
		return "", fmt.Errorf("not a reply of §5: %q", reply)
	}
	return "secure " + match, nil
}

func latest(times ...time.Time) (out time.Time) {
	for _, t := range times {
		if t.After(out) {
			out = t
		}
	}
	return out
}
