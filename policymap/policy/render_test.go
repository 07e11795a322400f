package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/mtasts"
)

func mustPolicy(t testing.TB, text string) *mtasts.Policy {
	t.Helper()
	p, err := mtasts.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// §5: the replies, byte for byte.
func TestReplies(t *testing.T) {
	policy := mustPolicy(t, "version: STSv1\r\nmode:enforce\nmx: MX1.Example.test\nmx: *.example.test\nmx: mx1.example.test\nunknown: {x}\nmax_age: 86400\n")
	for _, c := range []struct {
		name     string
		decision Decision
		literal  string
		plain    string
		tlsrpt   string
	}{
		{"dane-only", Decision{Level: DANEOnly}, "", "OK dane-only", "OK dane-only"},
		{"dane", Decision{Level: DANE}, "", "OK dane", "OK dane"},
		{"no policy", Decision{Level: NoPolicy}, "", "NOTFOUND ", "NOTFOUND "},
		{"temporary", Decision{Level: Temporary, Reason: "MX lookup of example.test: SERVFAIL"}, "", "TEMP MX lookup of example.test: SERVFAIL", "TEMP MX lookup of example.test: SERVFAIL"},
		{"override", Decision{Level: Override}, "encrypt", "OK encrypt", "OK encrypt"},
		{
			"secure",
			Decision{Level: Secure},
			"",
			"OK secure match=mx1.example.test:.example.test servername=hostname",
			"OK secure match=mx1.example.test:.example.test servername=hostname policy_type=sts policy_domain=example.test" +
				" mx_host_pattern=mx1.example.test mx_host_pattern=*.example.test" +
				" { policy_string = version: STSv1 } { policy_string = mode: enforce } { policy_string = mx: MX1.Example.test }" +
				" { policy_string = mx: *.example.test } { policy_string = mx: mx1.example.test } { policy_string = max_age: 86400 }",
		},
	} {
		r := Render(c.decision, "example.test", policy, c.literal)
		if got := string(r.Postfix); got != c.plain {
			t.Errorf("%s, postfix:\n got %q\nwant %q", c.name, got, c.plain)
		}
		if got := string(r.TLSRPT); got != c.tlsrpt {
			t.Errorf("%s, postfix-tlsrpt:\n got %q\nwant %q", c.name, got, c.tlsrpt)
		}
	}
}

// §1: a reason is one printable line of at most 200 bytes.
func TestReasonIsOneShortPrintableLine(t *testing.T) {
	r := Render(Decision{Level: Temporary, Reason: "a\nb\x00c\xff" + strings.Repeat("x", 500)}, "example.test", nil, "")
	reason := strings.TrimPrefix(string(r.Postfix), "TEMP ")
	if len(reason) > 200 || !strings.HasPrefix(reason, `a\x0ab\x00c\xffx`) {
		t.Errorf("got %d bytes: %q", len(reason), reason)
	}
}

func manyMX(n int, length int) string {
	var b strings.Builder
	b.WriteString("version: STSv1\nmode: enforce\nmax_age: 604800\n")
	for i := range n {
		fmt.Fprintf(&b, "mx: %s.x%05d.test\n", strings.Repeat("m", length), i)
	}
	return b.String()
}

// §5: a reply that would pass 100,000 bytes loses its policy strings first, but
// for one; if that is not enough it is TEMP.
func TestReplyTooLong(t *testing.T) {
	fits := Render(Decision{Level: Secure}, "example.test", mustPolicy(t, manyMX(500, 20)), "")
	if got := strings.Count(string(fits.TLSRPT), "policy_string"); got != 503 {
		t.Errorf("a reply that fits has %d policy strings, want 503", got)
	}
	long := Render(Decision{Level: Secure}, "example.test", mustPolicy(t, manyMX(1000, 20)), "")
	if got := string(long.TLSRPT); len(got) > 100000 || strings.Count(got, "policy_string") != 1 ||
		strings.Count(got, "mx_host_pattern=") != 1000 || !strings.HasPrefix(got, "OK secure match=") {
		t.Errorf("%d bytes with %d policy strings and %d patterns", len(got), strings.Count(got, "policy_string"), strings.Count(got, "mx_host_pattern="))
	}
	policy := mustPolicy(t, manyMX(3000, 10))
	huge := Render(Decision{Level: Secure}, "example.test", policy, "")
	if got := string(huge.TLSRPT); !strings.HasPrefix(got, "TEMP ") || !strings.Contains(got, "too many mx patterns") {
		t.Errorf("got %.100q, %d bytes", got, len(got))
	}
	if got := string(huge.Postfix); len(got) > 100000 || !strings.HasPrefix(got, "OK secure") {
		t.Errorf("the map without attributes still fits, got %.100q", got)
	}
}

// A pattern that Postfix would take for a word of its own must not reach match=.
func TestPatternThatIsAPostfixKeyword(t *testing.T) {
	mixed := &mtasts.Policy{Mode: mtasts.Enforce, MaxAge: time.Hour, MX: []string{"hostname", "mx.example.test"}, Lines: []string{"version: STSv1"}}
	if got := string(Render(Decision{Level: Secure}, "example.test", mixed, "").Postfix); got != "OK secure match=mx.example.test servername=hostname" {
		t.Errorf("got %q", got)
	}
	only := &mtasts.Policy{Mode: mtasts.Enforce, MaxAge: time.Hour, MX: []string{"nexthop"}, Lines: []string{"version: STSv1"}}
	if got := string(Render(Decision{Level: Secure}, "example.test", only, "").Postfix); !strings.HasPrefix(got, "TEMP ") {
		t.Errorf("got %q", got)
	}
}
