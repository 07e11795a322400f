package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
)

// This file holds the evidence for each host against a model of its own, which
// knows the last proof about each host and the rules of docs/behaviour.md §5 in
// other words.

var verdictsOfHosts = []dane.Verdict{
	dane.Usable, dane.PartlyInsecure, dane.Unusable, dane.NoTLSA, dane.Insecure, dane.NoAddress, dane.TLSAFailed, dane.AddressFailed,
}

// model is what an observer of all evaluations knows.
type model struct {
	mx      dane.MXAnswer
	mxAt    time.Time
	verdict [2]dane.Verdict
	at      [2]time.Time // of the last proof; zero: none
	now     [2]dane.Verdict
}

func (m *model) evaluate(mx dane.MXAnswer, hosts [2]dane.Verdict, at time.Time) {
	if mx == dane.MXFailed {
		return
	}
	m.mx, m.mxAt, m.now = mx, at, hosts
	for i, v := range hosts {
		switch {
		case !v.Failed():
			m.verdict[i], m.at[i] = v, at
		case v == dane.TLSAFailed && m.verdict[i] == dane.NoAddress:
			m.at[i] = time.Time{} // it has addresses now: what was proved is over
		}
	}
}

// effective returns what counts about each host: the last proof of at most a day
// ago, else the failure.
func (m *model) effective(at time.Time) (hosts [2]dane.Verdict) {
	for i, v := range m.now {
		if v.Failed() && !m.at[i].IsZero() && at.Sub(m.at[i]) <= 24*time.Hour {
			v = m.verdict[i]
		}
		hosts[i] = v
	}
	return hosts
}

// level is docs/behaviour.md §5 for two hosts.
func (m *model) level(enforce bool, at time.Time) Level {
	if m.mx == dane.MXFailed || at.Sub(m.mxAt) > 24*time.Hour {
		return Temporary
	}
	var tlsa, usable, whole, none, failing, lost int
	for _, v := range m.effective(at) {
		switch v {
		case dane.Usable:
			tlsa, usable, whole = tlsa+1, usable+1, whole+1
		case dane.PartlyInsecure:
			tlsa, usable = tlsa+1, usable+1
		case dane.Unusable:
			tlsa++
		case dane.NoTLSA, dane.Insecure:
			none++
		case dane.TLSAFailed:
			failing++
		case dane.AddressFailed:
			lost++
		}
	}
	insecure := m.mx == dane.MXInsecure
	switch {
	case insecure && enforce:
		return Secure
	case insecure && tlsa+failing > 0:
		return DANE
	case tlsa > 0 && whole == tlsa && none+failing+lost == 0:
		return DANEOnly
	case tlsa > 0 && enforce && usable == 0:
		return Secure // for the proved hosts alone, where another fails
	case tlsa > 0:
		return DANE
	case failing > 0 && none == 0, lost > 0 && none == 0:
		return Temporary // nothing is proved about any host
	case failing > 0 && !enforce:
		return DANE
	case enforce:
		return Secure
	}
	return NoPolicy
}

func result(mx dane.MXAnswer, hosts [2]dane.Verdict) dane.Result {
	res := dane.Result{MX: dane.MX{Answer: mx, TTL: time.Hour}}
	var evidence []dane.Evidence
	for i, v := range hosts {
		e := dane.Evidence{Name: fmt.Sprintf("mx%d.two.test", i+1), Preference: uint16(10 * (i + 1)), Verdict: v, TTL: time.Hour}
		if v.Failed() {
			e.Err, e.TTL = errors.New("SERVFAIL"), 5*time.Minute
		}
		evidence = append(evidence, e)
		res.Hosts = append(res.Hosts, dane.Host{Evidence: e})
	}
	res.Outcome = dane.Derive(res.MX, evidence)
	if mx == dane.MXFailed {
		res.Hosts, res.Err = nil, errors.New("SERVFAIL")
	}
	return res
}

// step evaluates beside the evidence that a record has, and returns what the
// record has then and the views with and without a policy in force.
func step(d *store.DANE, res dane.Result, at time.Time) (*store.DANE, [2]View) {
	hop := NextHop{Domain: "two.test", Port: 25}
	facts, merged, learned := Evaluated(d, hop, res, false, at)
	if learned {
		d = &merged
	}
	v := View{Hop: hop, Now: at, DANE: facts}
	enforced := v
	enforced.STS = STSFacts{State: STSEnforce, Policy: &mtasts.Policy{Mode: mtasts.Enforce, MX: []string{"*.two.test"}, Lines: []string{"version: STSv1"}}}
	return d, [2]View{v, enforced}
}

func check(t *testing.T, m *model, views [2]View, at time.Time, story string) {
	t.Helper()
	for i, v := range views {
		want := m.level(i == 1, at)
		d := v.Decide(Settings{})
		if d.Level != want {
			t.Errorf("%s\nenforce %v: got %v by row %s, want %v", story, i == 1, d.Level, d.Row, want)
		}
		if d.Hosts == nil {
			continue
		}
		for h, verdict := range m.effective(at) {
			name := fmt.Sprintf("mx%d.two.test", h+1)
			got := strings.Contains(strings.Join(d.Hosts, " "), name)
			if want := verdict.None() || verdict == dane.Unusable; got != want {
				t.Errorf("%s\n%s (%v) gets mail under MTA-STS: %v, want %v", story, name, verdict, got, want)
			}
		}
	}
}

// Every pair of evaluations of two hosts, an hour apart (§4, §5).
func TestEvidenceOfTwoHosts(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pairs := func(do func([2]dane.Verdict)) {
		for _, a := range verdictsOfHosts {
			for _, b := range verdictsOfHosts {
				do([2]dane.Verdict{a, b})
			}
		}
	}
	answers := []dane.MXAnswer{dane.MXSecure, dane.MXInsecure, dane.MXFailed}
	for _, mx1 := range answers {
		for _, mx2 := range answers {
			pairs(func(before [2]dane.Verdict) {
				first, _ := step(nil, result(mx1, before), began)
				pairs(func(now [2]dane.Verdict) {
					m := &model{}
					m.evaluate(mx1, before, began)
					at := began.Add(time.Hour)
					m.evaluate(mx2, now, at)
					_, views := step(first, result(mx2, now), at)
					check(t, m, views, at, fmt.Sprintf("MX %v: %v, then MX %v: %v", mx1, before, mx2, now))
				})
			})
		}
	}
}

// Random histories: what fails keeps its last proof for a day and no longer, and
// makes the answer neither weaker than the proofs at hand nor holds mail back that
// Postfix could deliver by them.
func TestEvidenceOverRandomHistories(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, at := &model{}, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		var d *store.DANE
		story := fmt.Sprintf("seed %d:", seed)
		for range 12 {
			at = at.Add(time.Duration(r.Int64N(int64(10 * time.Hour))))
			mx := []dane.MXAnswer{dane.MXSecure, dane.MXSecure, dane.MXInsecure, dane.MXFailed}[r.IntN(4)]
			hosts := [2]dane.Verdict{verdictsOfHosts[r.IntN(len(verdictsOfHosts))], verdictsOfHosts[r.IntN(len(verdictsOfHosts))]}
			story += fmt.Sprintf("\n%s MX %v %v", at.Format("02 15:04"), mx, hosts)
			m.evaluate(mx, hosts, at)
			var views [2]View
			d, views = step(d, result(mx, hosts), at)
			check(t, m, views, at, story)
			if d == nil {
				continue
			}
			// What is stored says the same, now and until it is too old.
			rec, err := store.EncodeRecord(store.Record{Domain: "two.test", DANE: []store.DANE{*d}})
			if err != nil {
				t.Fatal(err)
			}
			back, err := store.DecodeRecord("two.test", rec)
			if err != nil {
				t.Fatal(err)
			}
			later := at.Add(time.Duration(r.Int64N(int64(30 * time.Hour))))
			v := Look(&back, STSFacts{}, NextHop{Domain: "two.test", Port: 25}, true, later)
			if got, want := v.Decide(Settings{}).Level, m.level(false, later); got != want {
				t.Errorf("%s\nread again %v later: %v, want %v", story, later.Sub(at), got, want)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// The record of a domain of two hosts stays small.
func TestEvidenceIsSmall(t *testing.T) {
	d, _ := step(nil, result(dane.MXSecure, [2]dane.Verdict{dane.Usable, dane.Usable}), time.Now())
	rec := store.Record{
		Domain: "two.test", DANE: []store.DANE{*d}, LastUsed: time.Now(), Due: time.Now(), Class: store.Positive,
		STS: &store.STS{
			Policy: []byte("version: STSv1\nmode: enforce\nmx: mx1.two.test\nmx: mx2.two.test\nmax_age: 604800\n"), PolicyID: "20261124T120000",
			FetchedAt: time.Now(), TXTID: "20261124T120000", CheckedAt: time.Now(), TXTTTL: time.Hour,
		},
	}
	b, err := store.EncodeRecord(rec)
	if err != nil {
		t.Fatal(err)
	}
	const indexes = 2 * (8 + 1 + len("two.test") + 16) // two keys and their page entries
	if n := len(b) + len("two.test") + 16 + indexes; n > 700 {
		t.Errorf("%d bytes", n)
	}
}

// The states that older versions kept are read, and stand in for failing lookups.
func TestEvidenceOfOlderVersions(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for state, want := range map[dane.State][3]Level{ // fresh; MX fails; one host fails
		dane.Full:       {DANEOnly, DANEOnly, DANEOnly},
		dane.Partial:    {DANE, DANE, DANE},
		dane.InsecureMX: {DANE, DANE, DANE},
		dane.None:       {NoPolicy, NoPolicy, DANE},
	} {
		old := &store.DANE{Port: 25, State: uint8(state), KnownAt: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour)}
		rec := store.Record{Domain: "two.test", DANE: []store.DANE{*old}}
		v := Look(&rec, STSFacts{}, NextHop{Domain: "two.test", Port: 25}, true, now)
		_, failed := step(old, result(dane.MXFailed, [2]dane.Verdict{}), now)
		_, one := step(old, result(dane.MXSecure, [2]dane.Verdict{dane.Usable, dane.TLSAFailed}), now)
		got := [3]Level{v.Decide(Settings{}).Level, failed[0].Decide(Settings{}).Level, one[0].Decide(Settings{}).Level}
		if got != want {
			t.Errorf("%v: got %v, want %v", state, got, want)
		}
	}
}
