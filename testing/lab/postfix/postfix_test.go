package postfix

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPolicies(t *testing.T) {
	for value, want := range map[string]Policy{
		"dane-only":  {Level: "dane-only"},
		"NONE match": {Level: "none"},
		"secure match=mx.a.test:.b.test servername=hostname": {
			Level: "secure", Match: []string{"mx.a.test", ".b.test"}, Servername: "hostname",
		},
		"secure, match=a.test,\tmatch=b.test": {Level: "secure", Match: []string{"a.test", "b.test"}},
		"fingerprint match=00:11|22:33":       {Level: "fingerprint", Match: []string{"00:11", "22:33"}},
		"may { protocols = >=TLSv1.2, !TLSv1.3 }": {
			Level: "may", Protocols: ">=TLSv1.2, !TLSv1.3",
		},
		"secure policy_type=sts policy_domain=a.test { policy_string = mx: {x} } mx_host_pattern=*.a.test": {
			Level: "secure", Type: "sts", Domain: "a.test", Strings: []string{"mx: {x}"}, MXPatterns: []string{"*.a.test"},
		},
	} {
		got, err := ParsePolicy(value)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v; -want +got:\n%s", value, err, diff)
		}
	}
}

func TestPoliciesThatPostfixRefuses(t *testing.T) {
	for value, reason := range map[string]string{
		"":                                 "empty",
		" , ":                              "empty",
		"safe":                             "level",
		"secure match":                     "no name=value",
		"secure match=":                    "empty",
		"secure =a":                        "no name=value",
		"secure { match = a":               "closing brace",
		"secure {match=a}x":                "behind the closing brace",
		"dane match=a.test":                "not at this level",
		"secure servername=a servername=":  "no host name",
		"secure servername=a servername=b": "twice",
		"secure servername=-a":             "no host name",
		"secure trust=all":                 "no attribute",
		"secure policy_domain=a.test":      "without policy_type",
		"secure policy_type=x":             "no type",
		"secure policy_type=sts policy_domain=.a.": "no host name",
		"may connection_reuse=maybe":               "yes or no",
	} {
		if _, err := ParsePolicy(value); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: error %v, want %q in it", value, err, reason)
		}
	}
	for _, value := range []string{"secure { match = a.test }", "secure policy_type=sts"} {
		if _, err := ParseOldPolicy(value); err == nil {
			t.Errorf("%s: an old Postfix takes it", value)
		}
	}
}

// What would let a hostile policy file in, were it ever copied into a reply.
func TestAttributeInsideOfBracesIsNone(t *testing.T) {
	p, err := ParsePolicy("secure policy_type=sts { policy_string = mx: a } servername=evil.test { policy_string = b }")
	if err != nil || p.Servername != "evil.test" || len(p.Strings) != 2 {
		t.Errorf("a brace in the text ends the attribute: got %+v, %v", p, err)
	}
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		value, host string
		want        bool
	}{
		{"secure match=mx.a.test", "mx.a.test", true},
		{"secure match=mx.a.test", "MX.A.test", true},
		{"secure match=mx.a.test", "b.a.test", false},
		{"secure match=.a.test", "b.a.test", true},
		{"secure match=.a.test", "c.b.a.test", true},
		{"secure match=.a.test", "a.test", false},
		{"secure match=hostname", "any.test", true},
		{"secure match=nexthop", "next.test", true},
		{"secure match=nexthop", "mx.next.test", false},
		{"secure match=dot-nexthop", "mx.next.test", true},
		{"secure match=dot-nexthop", "next.test", false},
		{"secure match=.a.test policy_type=sts mx_host_pattern=*.a.test", "b.a.test", true},
		{"secure match=.a.test policy_type=sts mx_host_pattern=*.a.test", "c.b.a.test", false},
		{"secure match=.a.test policy_type=sts mx_host_pattern=b.a.test", "c.a.test", false},
	} {
		p, err := ParsePolicy(c.value)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Accepts("next.test", c.host); got != c.want || err != nil {
			t.Errorf("%s, %s: got %v, %v", c.value, c.host, got, err)
		}
	}
}

func TestReplies(t *testing.T) {
	payload, rest, err := ReadNetstring([]byte("7:OK dane,9:NOTFOUND ,"))
	if err != nil || string(payload) != "OK dane" || string(rest) != "9:NOTFOUND ," {
		t.Errorf("%q, %q, %v", payload, rest, err)
	}
	for _, bad := range []string{"", "7", ":,", "07:OK dane,", "7:OK dane", "7:OK danex", "x:,", "-1:,", "100001:" + strings.Repeat("x", 100001) + ","} {
		if _, _, err := ReadNetstring([]byte(bad)); err == nil {
			t.Errorf("%.20q is a netstring", bad)
		}
	}
	if r, err := ParseReply([]byte("TEMP why not")); err != nil || r != (Reply{Temp, "why not"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"", "OK", "NOTFOUND", "ok dane", "OK dane\x00", " OK x"} {
		if _, err := ParseReply([]byte(bad)); err == nil {
			t.Errorf("%q is a reply", bad)
		}
	}
}
