package policy

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/store"
	"tlspolicyd/testing/lab/postfix"
)

// FuzzFactsToReply goes from stored facts to both replies and has Postfix read
// them: it must understand the very policy that the facts and the table say.
func FuzzFactsToReply(f *testing.F) {
	const good = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmx: *.example.test\nmax_age: 86400\n"
	f.Add("example.test", []byte(good), uint8(dane.None), uint8(0), "")
	f.Add("[mx.example.test]:587", []byte(good), uint8(dane.Partial), uint8(2), "")
	f.Add("bücher.test:smtp", []byte(good), uint8(dane.Full), uint8(0), "")
	f.Add("a.test", []byte("version: STSv1\nmode: testing\nmx: *.test\nmx: hostname\nmax_age: 1\n"), uint8(dane.None), uint8(4), "x")
	f.Add("a.test", []byte(good+"x: } policy_failure=validation-failure {\n"), uint8(dane.InsecureMX), uint8(1), "")
	f.Add("a.test", []byte("version: STSv1\r\nmode: enforce \r\nmx: dot-nexthop\r\nmax_age: 1"), uint8(dane.InsecureMX), uint8(0), "")
	f.Add("a.test", []byte("version: STSv1\nmode: none\nmax_age: 0"), uint8(dane.Unknown), uint8(0), "MX lookup of a.test:\nSERVFAIL \x00\xff")
	f.Fuzz(func(t *testing.T, key string, file []byte, state, settings uint8, reason string) {
		hop, ok := ParseNextHop(key)
		if !ok {
			return
		}
		checkTemporary(t, hop, reason)
		now := time.Now()
		rec := store.Record{
			Domain: hop.Domain,
			STS:    &store.STS{Policy: file, FetchedAt: now, CheckedAt: now, TXTID: "1", FailedID: "1", FailedAt: now},
			DANE: []store.DANE{{
				Literal: hop.Literal, Port: hop.Port, State: state % 5, SomeTLSA: settings&8 != 0,
				KnownAt: now, ExpiresAt: now.Add(time.Hour),
			}},
		}
		set := Settings{settings&1 != 0, settings&2 != 0, settings&4 != 0, settings&16 != 0}
		v := Look(&rec, ReadSTS(rec.STS, now), hop, true, now)
		if !v.Enough(set) && v.Decide(set).Level != Temporary {
			t.Fatal("facts that are known give no answer")
		}
		a := v.Answer(set)
		policy := v.STS.Policy
		checkReply(t, a.Replies.Postfix, hop, a.Decision, policy, false)
		checkReply(t, a.Replies.TLSRPT, hop, a.Decision, policy, true)
	})
}

// checkTemporary checks the reply to a failure: one printable line.
func checkTemporary(t *testing.T, hop NextHop, reason string) {
	r, err := postfix.ParseReply(Failure(hop, reason).Replies.Postfix)
	if err != nil || r.Status != postfix.Temp || len(r.Data) > 200 ||
		strings.ContainsFunc(r.Data, func(c rune) bool { return c < ' ' || c > '~' }) {
		t.Errorf("failure with reason %q: %+v, %v", reason, r, err)
	}
}

// checkReply has Postfix read one reply.
func checkReply(t *testing.T, payload []byte, hop NextHop, d Decision, p *mtasts.Policy, tlsrpt bool) {
	t.Helper()
	r, err := postfix.ParseReply(payload)
	if err != nil {
		t.Fatalf("%.200q: %v", payload, err)
	}
	switch d.Level {
	case NoPolicy:
		if r != (postfix.Reply{Status: postfix.NotFound}) {
			t.Errorf("no policy: %+v", r)
		}
		return
	case Temporary:
		if r.Status != postfix.Temp {
			t.Errorf("temporary failure: %+v", r)
		}
		return
	case DANE, DANEOnly:
		want := postfix.Policy{Level: d.Level.String()}
		got, err := postfix.ParsePolicy(r.Data)
		old, oldErr := postfix.ParseOldPolicy(r.Data)
		if r.Status != postfix.OK || err != nil || oldErr != nil || !cmp.Equal(got, want) || !cmp.Equal(old, want) {
			t.Errorf("%s: %q, %v, %v", d.Level, payload, err, oldErr)
		}
		return
	}
	if r.Status == postfix.Temp {
		checkWithheld(t, r, p, tlsrpt)
		return
	}
	got, err := postfix.ParsePolicy(r.Data)
	if r.Status != postfix.OK || err != nil {
		t.Fatalf("%.300q: %v", payload, err)
	}
	if !tlsrpt {
		if old, err := postfix.ParseOldPolicy(r.Data); err != nil || !cmp.Equal(got, old) {
			t.Errorf("an older Postfix reads %+v, %v; a new one %+v", old, err, got)
		}
	}
	checkSecure(t, got, hop, p, tlsrpt)
}

// checkWithheld: only what cannot be written as a Postfix policy is withheld.
func checkWithheld(t *testing.T, r postfix.Reply, p *mtasts.Policy, tlsrpt bool) {
	size := 0
	for _, mx := range p.MX {
		size += 2 * (len(mx) + len(" mx_host_pattern="))
	}
	words := []string{"hostname", "nexthop", "dot-nexthop"}
	real := slices.ContainsFunc(p.MX, func(mx string) bool { return !slices.Contains(words, mx) })
	if real && (size < 50000 || !tlsrpt && size < 100000) {
		t.Errorf("policy withheld: %+v", r)
	}
}

// checkSecure holds what Postfix read against the policy file: the same hosts
// get mail, and everything else is as docs/behaviour.md §5 says.
func checkSecure(t *testing.T, got postfix.Policy, hop NextHop, p *mtasts.Policy, tlsrpt bool) {
	t.Helper()
	want := postfix.Policy{Level: "secure", Match: got.Match, Servername: "hostname"}
	if tlsrpt {
		want.Type, want.Domain = "sts", hop.Domain
		want.MXPatterns = unique(p.MX)
		want.Strings = p.Lines
		if len(got.Strings) == 1 {
			want.Strings = p.Lines[:1] // as far as it has room
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +as Postfix reads it:\n%s", diff)
	}
	words := []string{"hostname", "nexthop", "dot-nexthop"}
	hosts := []string{"mx.elsewhere.test", hop.Domain, "mx." + hop.Domain, "hostname", "nexthop", "dot-nexthop"}
	for _, mx := range p.MX[:min(len(p.MX), 20)] {
		parent := strings.TrimPrefix(mx, "*.")
		hosts = append(hosts, parent, "host."+parent, "deep.host."+parent, "x"+parent)
	}
	for _, host := range hosts {
		by := slices.ContainsFunc(p.MX, func(mx string) bool { return !slices.Contains(words, mx) && mtasts.MatchMX(mx, host) })
		deep := slices.ContainsFunc(p.MX, func(mx string) bool {
			parent, ok := strings.CutPrefix(mx, "*.")
			return ok && strings.HasSuffix(host, "."+parent)
		})
		accepted, err := got.Accepts(hop.Domain, host)
		if err != nil {
			t.Fatal(err)
		}
		// Without the TLSRPT attributes ".parent" is as near as Postfix comes.
		if accepted != by && (tlsrpt || !accepted || !deep) {
			t.Errorf("host %s: Postfix accepts it: %v, the policy: %v (match %q, patterns %q)", host, accepted, by, got.Match, p.MX)
		}
	}
}

// FuzzOverride: the key of an override line decides alone who gets it.
func FuzzOverride(f *testing.F) {
	f.Add("broken.test", "broken.test:587")
	f.Add(".partner.test", "[mx.partner.test]")
	f.Add(".test", "BÜCHER.test.")
	f.Add("a.test", ".a.test")
	f.Fuzz(func(t *testing.T, line, key string) {
		hop, ok := ParseNextHop(key)
		got, found := Overrides{line: {Policy: "encrypt"}}.For(key, hop)
		if !ok {
			if found && (strings.HasPrefix(key, ".") || got.Policy != "encrypt") {
				t.Errorf("%q: %+v", key, got)
			}
			return
		}
		parent, children := strings.CutPrefix(line, ".")
		want := line == hop.Domain
		if children {
			want = strings.HasSuffix(hop.Domain, line) && hop.Domain != parent && line != "."
		}
		if found != want {
			t.Errorf("line %q, key %q (%s): found %v", line, key, hop.Domain, found)
		}
		r := Render(OverrideLine{Policy: "encrypt"}.Decision(), hop.Domain, nil, "encrypt")
		if !bytes.Equal(r.Postfix, []byte("OK encrypt")) || !bytes.Equal(r.TLSRPT, r.Postfix) {
			t.Errorf("%q, %q", r.Postfix, r.TLSRPT)
		}
	})
}
