//go:build linux

package simulate

import (
	"slices"
	"time"
)

// This file follows what the daemon does: which evaluations and fetches it makes,
// what it may have learned from them, and whether it makes them in time and not
// too often.

// look takes in what the daemon asked since the last time. The world has not
// changed since.
func (o *oracle) look() {
	now := time.Now()
	o.w.noteTrouble()
	queries := o.w.Queries()
	o.w.ResetQueries()
	for _, q := range queries {
		for d := range o.domains {
			if q.Name == domainName(d) && q.Type == map[bool]string{true: "A", false: "MX"}[d >= smartFrom] {
				o.evaluation(d, q.At)
			}
		}
	}
	for d, h := range o.w.hosts {
		if h == nil || h.Requests() == o.domains[d].fetches {
			continue
		}
		for _, r := range h.Seen()[o.domains[d].fetches:] {
			o.domains[d].fetches++
			o.fetch(d, r.At)
		}
	}
	for d := range o.domains {
		x := &o.domains[d]
		x.dane.settle(now, o.diskWorks)
		x.sts.settle(now, o.diskWorks)
		if !x.evaluateBy.IsZero() && now.After(x.evaluateBy) {
			o.fail(d, "what is known is of %s, and was not looked up again", x.evaluated.Format(stamp))
		}
		o.renewed(d, now)
	}
}

func (o *oracle) evaluation(d int, at time.Time) {
	x, v := &o.domains[d], o.w.view(d)
	if x.dane.next == nil || at.After(x.dane.due) {
		x.dane.settle(at, false)
		quiet := latest(o.w.domain[d].daneTrouble, o.disturbed)
		if gap := at.Sub(x.evaluated); gap < time.Minute && x.evaluated.After(quiet.Add(20*time.Second)) {
			o.fail(d, "looked up again after %v", gap)
		}
		x.from, x.views, x.began = x.dane.now, nil, at
	}
	x.evaluated, x.evaluateBy = at, time.Time{}
	x.views = append(x.views, v)
	o.mayLearn(d, at)
}

// mayLearn works out what the evaluation in flight may end with.
func (o *oracle) mayLearn(d int, at time.Time) {
	x := &o.domains[d]
	due := at.Add(16 * time.Second)
	if len(x.views) == 1 && x.views[0].healthy() && o.diskWorks {
		due = at.Add(2 * time.Second)
	}
	var next []evidence
	for _, v := range x.views { // each host may be seen as in any view
		for _, first := range x.views {
			for _, second := range x.views {
				v.verdicts = [2]verdict{first.verdicts[0], second.verdicts[1]}
				for _, e := range x.from {
					next = append(next, o.learn(e, v, x.began))
				}
			}
		}
	}
	x.dane.begin(next, due)
}

// changed notes that the world is another one from now on.
func (o *oracle) changed(before [domains]view) {
	for d := range o.domains {
		x, v := &o.domains[d], o.w.view(d)
		if v == before[d] {
			continue
		}
		o.w.domain[d].daneTrouble = time.Now()
		if x.dane.next != nil && time.Now().Before(x.dane.due) {
			x.views = append(x.views, v)
			o.mayLearn(d, time.Now())
		}
	}
}

func (o *oracle) fetch(d int, at time.Time) {
	x := &o.domains[d]
	x.sts.settle(at, false)
	held := slices.ContainsFunc(x.sts.possible(), func(f fetched) bool { return f.file != nil })
	if gap := at.Sub(x.fetchedAt); o.disturbed.Before(x.fetchedAt) && gap < 5*time.Second ||
		x.fetchFailed && !held && o.disturbed.Before(x.fetchedAt) && o.w.domain[d].changed.Before(x.fetchedAt) && gap < 290*time.Second {
		o.fail(d, "policy fetched again after %v", gap)
	}
	x.fetchedAt, x.fetchFailed = at, !o.w.policyHostWorks(d)
	if x.fetchFailed {
		return
	}
	due := at.Add(2 * time.Second)
	if o.w.domain[d].fault > 0 || !o.diskWorks {
		due = at.Add(65 * time.Second)
	}
	next := []fetched{{o.w.domain[d].file, at}}
	if slices.ContainsFunc(x.dane.possible(), func(e evidence) bool { return e.null }) {
		next = append(next, x.sts.possible()...) // a fetch beside a null MX is abandoned (§4)
	}
	x.sts.begin(next, due)
}

// renewed checks that a policy in use is fetched again in time (§7).
func (o *oracle) renewed(d int, now time.Time) {
	x := &o.domains[d]
	if len(x.sts.now) != 1 || x.sts.next != nil || x.sts.now[0].file == nil || !o.diskWorks {
		return
	}
	f, unused := x.sts.now[0], 29*24*time.Hour
	end := f.at.Add(f.file.maxAge)
	if f.file.maxAge < 10*time.Minute {
		unused = 50 * time.Minute
	}
	works := latest(o.w.domain[d].hostTrouble, o.started.Add(15*time.Minute), o.diskBack)
	if !o.w.domain[d].withoutTXT.Before(f.at) || o.stepped(f.at) || now.Sub(x.asked) > unused || x.asked.After(end) || works.After(end.Add(-2*time.Minute)) {
		return // it may have ended: without a TXT record or unused, and steps change times
	}
	by := latest(f.at.Add(min(24*time.Hour, f.file.maxAge/2)), works).Add(6*time.Hour + 10*time.Minute)
	if end.Before(by) {
		by = end
	}
	if now.After(by.Add(15 * time.Second)) {
		o.fail(d, "the policy of %s was not renewed though its host works since %s", f.at.Format(stamp), works.Format(stamp))
		x.sts.now[0] = fetched{}
	}
}

// crashed notes that a process takes over from what is on disk, or maybe from an
// empty one.
func (o *oracle) crashed(lost bool) {
	for d := range o.domains {
		o.domains[d].dane.crash(lost)
		o.domains[d].sts.crash(lost)
		o.domains[d].evaluateBy = time.Time{}
	}
	o.started, o.disturbed = time.Now(), time.Now()
}
