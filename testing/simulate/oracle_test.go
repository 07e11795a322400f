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

// evidence is what the daemon may know about DANE; the zero value stands for
// nothing.
type evidence struct {
	view // as the last evaluation found it whose MX lookup worked
	at   time.Time
	last [2]proof // of a host whose lookup failed then
}

type proof struct {
	verdict verdict
	at      time.Time // zero: there is none
}

func (e evidence) String() string {
	return fmt.Sprintf("%v of %s, proved %v of %s, %v of %s", e.view, e.at.Format(stamp),
		e.last[0].verdict, e.last[0].at.Format(stamp), e.last[1].verdict, e.last[1].at.Format(stamp))
}

// learn merges an evaluation into what was known (§4, A19).
func (o *oracle) learn(e evidence, v view, now time.Time) evidence {
	if v.fails {
		return e
	}
	out := evidence{view: v, at: now}
	for n := range 2 {
		p := proof{e.verdicts[n], e.at}
		if p.verdict >= tlsaFails {
			p = e.last[n]
		}
		if young, _ := o.within(p.at, 24*time.Hour); young && v.verdicts[n] >= tlsaFails && e.listed[n] {
			out.last[n] = p
		}
	}
	return out
}

// fetched is a policy that the daemon may hold; the zero value stands for none.
type fetched struct {
	file *policyFile
	at   time.Time
}

func (f fetched) String() string { return fmt.Sprintf("%v of %s", f.file, f.at.Format(stamp)) }

// belief is what the daemon may know about one thing: one of each list.
type belief[T comparable] struct {
	now  []T
	next []T       // instead, once the work in flight is over
	due  time.Time // when it is
	kept []T       // what a process that dies leaves where the disk works (§6)
	disk []T       // the same where it did not
}

func (b *belief[T]) possible() []T { return union(b.now, b.next) }

func (b *belief[T]) begin(next []T, due time.Time) {
	b.next, b.due = union(next), due
	b.kept, b.disk = union(b.kept, next), union(b.disk, next)
}

func (b *belief[T]) settle(now time.Time, diskWorks bool) {
	if b.next != nil && now.After(b.due) {
		b.now, b.next = b.next, nil
	}
	if b.next == nil && diskWorks && now.Sub(b.due) > 30*time.Second {
		var nothing T // which need not be there where nothing was answered since
		b.kept = union(b.now, slices.DeleteFunc(union(b.kept), func(t T) bool { return t != nothing }))
	}
	if diskWorks {
		b.disk = b.kept
	}
}

// answered keeps what an answer that Postfix is to insist on can follow from.
func (b *belief[T]) answered(supports []T) {
	not := func(t T) bool { return !slices.Contains(supports, t) }
	if kept := slices.DeleteFunc(union(b.now), not); len(kept) > 0 {
		b.now = kept
	} else {
		b.now, b.next = slices.DeleteFunc(union(b.next), not), nil
	}
	b.kept = b.possible()
}

func (b *belief[T]) crash(lost bool) {
	if b.now, b.next = b.disk, nil; lost {
		b.now = union(b.now, make([]T, 1))
	}
	b.kept, b.disk = b.now, b.now
}

func union[T comparable](lists ...[]T) (out []T) {
	for _, t := range slices.Concat(lists...) {
		if !slices.Contains(out, t) {
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
	return answer{"secure " + strings.ReplaceAll(strings.Join(patterns, ":"), "*.", "."), why}
}

// decide is the table of §5, for evidence that is 24 hours old, give or take some
// seconds, with it and without.
func (o *oracle) decide(d int, e evidence, p *policyFile, set settings) []answer {
	return append(o.row(d, e, p, set, true), o.row(d, e, p, set, false)...)
}

func (o *oracle) row(d int, e evidence, p *policyFile, set settings, lenient bool) []answer {
	one := func(reply, why string) []answer { return []answer{{reply, why}} }
	enforce := p != nil && (p.mode == "enforce" || p.mode == "testing" && set.testingEnforced)
	young := func(at time.Time) bool {
		in, over := o.within(at, 24*time.Hour)
		return !at.IsZero() && in && (lenient || !over)
	}
	if !young(e.at) {
		return one("temp", "the MX lookup fails, and nothing is known")
	}
	n := map[verdict]int{}
	var proved []string
	for i, v := range e.verdicts {
		if !e.listed[i] {
			continue
		}
		if v >= tlsaFails && young(e.last[i].at) {
			v = e.last[i].verdict
		}
		n[v]++
		if v == noTLSA || v == unusable {
			proved = append(proved, mailHost(d, i))
		}
	}
	tlsa, failing := n[usable]+n[unusable], n[tlsaFails]+n[addressFails]
	cut := func() []answer {
		allowed := slices.DeleteFunc(proved, func(host string) bool { return !p.allows(host) })
		if len(allowed) == 0 {
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

// oracle is what may be known of all domains.
type oracle struct {
	w         *world
	domains   [domains]domainOracle
	started   time.Time // the process
	disturbed time.Time // by a start, a reload or the clock
	diskWorks bool      // what an answer rested on is on it, whenever that was given
	diskBack  time.Time // when it last began to take writes again
	steps     []step
	wrong     []string
}

// domainOracle is what watch_test.go keeps about one domain.
type domainOracle struct {
	dane belief[evidence]
	sts  belief[fetched]

	// The evaluation in flight: what it began with and may see.
	from  []evidence
	views []view
	began time.Time

	evaluated   time.Time // the last MX query
	evaluateBy  time.Time // when the next one is due at the latest; zero: none is
	asked       time.Time
	fetches     int
	fetchedAt   time.Time
	fetchFailed bool
}

func newOracle(w *world) *oracle {
	o := &oracle{w: w, started: time.Now()}
	for d := range o.domains {
		x := &o.domains[d]
		x.dane.begin([]evidence{{}}, time.Time{})
		x.sts.begin([]fetched{{}}, time.Time{})
	}
	return o
}

func (o *oracle) fail(d int, format string, args ...any) {
	x, t := &o.domains[d], &o.w.domain[d]
	o.wrong = append(o.wrong, fmt.Sprintf("%s %s: %s\n  world: %v, %v, policy host fault %d, TXT %v\n  may know of DANE: %v\n  may hold: %v",
		time.Now().Format(stamp), keyOf(d), fmt.Sprintf(format, args...),
		o.w.view(d), t.file, t.fault, t.txt, x.dane.possible(), x.sts.possible()))
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

// reply holds what Postfix makes of a reply against what is allowed.
func (o *oracle) reply(d int, began time.Time, sets []settings, got string) {
	x, t, now, before := &o.domains[d], &o.w.domain[d], time.Now(), o.domains[d].asked
	x.asked = now
	if took := now.Sub(began); took > 15*time.Second {
		o.fail(d, "answered after %v", took)
	}
	var allowed []answer
	var byEvidence []evidence
	var byPolicy []fetched
	absent, current := true, false // it follows only where no policy is held, or also from the file of now
	for _, e := range x.dane.possible() {
		for _, set := range sets {
			follows := func(p *policyFile) bool {
				answers := o.decide(d, e, p, set)
				allowed = append(allowed, answers...)
				return slices.ContainsFunc(answers, func(a answer) bool { return a.reply == got })
			}
			for _, f := range x.sts.possible() {
				for _, p := range o.inForce(f) {
					if follows(p) {
						byEvidence, byPolicy = append(byEvidence, e), append(byPolicy, f)
						absent = absent && p == nil
					}
				}
			}
			current = current || slices.Contains(byEvidence, e) && t.file != nil && follows(t.file)
		}
	}
	outdated := t.file != nil && !current && o.w.stsHealthy(d)
	switch {
	case len(byEvidence) == 0:
		o.fail(d, "%q is none of %q", got, union(allowed))
	case got == "temp" && began.After(t.daneTrouble.Add(26*time.Second)):
		o.fail(d, "TEMP though every lookup works since %s", t.daneTrouble.Format(stamp))
	case outdated && absent && t.mx < 3 && began.After(t.changed.Add(400*time.Second)):
		o.fail(d, "%q without the policy, which can be fetched since %s", got, t.changed.Format(stamp))
	case outdated && !absent && !t.idAt.Before(t.fileAt) && before.After(latest(t.changed, o.started).Add(400*time.Second)) && began.After(before.Add(30*time.Second)):
		o.fail(d, "%q by a policy that was replaced at %s", got, t.changed.Format(stamp))
	}
	if now.Sub(x.evaluated) > ttl+10*time.Second && !o.stepped(x.evaluated) && x.evaluateBy.IsZero() {
		x.evaluateBy = now.Add(20 * time.Second)
	}
	if len(byEvidence) > 0 && got != "temp" && got != "notfound" {
		x.dane.answered(byEvidence)
		if strings.HasPrefix(got, "secure") {
			x.sts.answered(byPolicy)
		}
	}
}

// inForce returns what a policy may count as now.
func (o *oracle) inForce(f fetched) (list []*policyFile) {
	in, over := false, true
	if f.file != nil {
		in, over = o.within(f.at, f.file.maxAge)
	}
	if in {
		list = append(list, f.file)
	}
	if over {
		list = append(list, nil)
	}
	return list
}
