package explain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// documentedField is a row of the tables in docs/explain.md.
type documentedField struct {
	kind   string
	values []string // the words it may hold; nil: anything
}

func documentedFields(t *testing.T) map[string]documentedField {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/explain.md")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]documentedField{}
	words := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(cells[0], "| `") {
			continue
		}
		f := documentedField{kind: cells[1]}
		for _, w := range words.FindAllStringSubmatch(cells[2], -1) {
			f.values = append(f.values, w[1])
		}
		name := strings.Trim(cells[0], "| `")
		if _, twice := fields[name]; twice {
			t.Errorf("docs/explain.md documents %s twice", name)
		}
		fields[name] = f
	}
	return fields
}

// enumerated are the fields whose every word is documented.
func enumerated() []string {
	return []string{
		"decision.row", "decision.level", "decision.mta_sts", "dns[].type", "dns[].failure", "record.verdict",
		"fetch.addresses[].outcome", "fetch.tls_version", "fetch.failed_at", "policy.mode",
		"dane.state", "dane.mx", "dane.hosts[].verdict",
	}
}

// walk calls visit for every field below v.
func walk(v any, path string, visit func(path string, v any)) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			field := strings.TrimPrefix(path+"."+name, ".")
			visit(field, value)
			walk(value, field, visit)
		}
	case []any:
		for _, value := range v {
			walk(value, path+"[]", visit)
		}
	}
}

// Whoever reads the output with a program relies on docs/explain.md: all that
// is documented is there, nothing else is, and the types are those documented.
func TestJSONIsAsDocumented(t *testing.T) {
	documented := documentedFields(t)
	_, x := newWorld(t)
	keys := []string{
		"enforce.test", "dane.test", "mixed.test", "[mx1.dane.test]:587", "broken.test", "toolong.test", "control.test",
		"hostile.test", "several.test", "badcert.test", "expired.test", "redirect.test", "private.test", "unsigned.test",
		"nullmx.test", "notxt.test", "gone.test", "bogus.test", "skip.test", "mail.partner.test", ".enforce.test", "[192.0.2.1]",
	}
	var out bytes.Buffer
	for _, key := range keys {
		if err := x.Report(t.Context(), key).WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	var order []string
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var object map[string]any
		if err := json.Unmarshal(lines.Bytes(), &object); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		key, _ := object["key"].(string)
		order = append(order, key)
		walk(object, "", func(path string, v any) {
			seen[path] = true
			f, ok := documented[path]
			if !ok {
				t.Errorf("%s: %s is not documented", key, path)
			} else if !isKind(v, f.kind) {
				t.Errorf("%s: %s is %#v, documented as %s", key, path, v, f.kind)
			}
			if word, _ := v.(string); word != "" && slices.Contains(enumerated(), path) && !slices.Contains(f.values, word) {
				t.Errorf("%s: %s is %q, which is not documented", key, path, word)
			}
		})
	}
	if !slices.Equal(order, keys) {
		t.Errorf("keys in the order %q, want %q", order, keys)
	}
	for path := range documented {
		if !seen[path] {
			t.Errorf("%s is documented but was never seen", path)
		}
	}
}

// isKind holds a JSON value against the type in docs/explain.md.
func isKind(v any, kind string) bool {
	if rest, nullable := strings.CutSuffix(kind, " or null"); nullable {
		return v == nil || isKind(v, rest)
	}
	switch v := v.(type) {
	case string:
		if kind == "time" {
			at, err := time.Parse(time.RFC3339, v)
			return err == nil && at.Location() == time.UTC
		}
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && v == math.Trunc(v)
	case map[string]any:
		return kind == "object"
	case []any:
		item, ok := strings.CutPrefix(kind, "array of ")
		for _, i := range v {
			ok = ok && isKind(i, strings.TrimSuffix(item, "s"))
		}
		return ok
	}
	return false
}

// The fields that scripts are most likely to use, with their values.
func TestJSONValues(t *testing.T) {
	_, x := newWorld(t)
	var got []Report
	for _, key := range []string{"broken.test", "mixed.test", "badcert.test"} {
		got = append(got, x.Report(t.Context(), key))
	}
	broken, mixed, badcert := got[0], got[1], got[2]
	if p := broken.Policy; p.Valid || p.ErrorLine != 2 || p.Error != `mode "enfroce": want enforce, testing or none` {
		t.Errorf("broken.test: policy %+v", p)
	}
	if f := broken.Fetch; f.Status != 200 || f.FailedAt != "policy" || f.Connected != "10.20.0.4:443" {
		t.Errorf("broken.test: fetch %+v", f)
	}
	if c := badcert.Fetch.Certificate; badcert.Fetch.FailedAt != "certificate" || !slices.Equal(c.Names, []string{"wrong-name.invalid"}) {
		t.Errorf("badcert.test: fetch %+v, certificate %+v", badcert.Fetch, c)
	}
	verdicts := map[string]string{}
	for _, h := range mixed.DANE.Hosts {
		verdicts[h.Name] = h.Verdict
	}
	for host, want := range map[string]string{
		"mx1.dane.test": "usable", "unusable.mixed.test": "unusable", "nowhere.mixed.test": "no-address",
		"failing.mixed.test": "failed", "unsigned.mixed.test": "insecure",
	} {
		if verdicts[host] != want {
			t.Errorf("mixed.test: host %s is %q, want %q", host, verdicts[host], want)
		}
	}
	if mixed.DANE.State != "partial" || mixed.Replies.Postfix != "OK dane" || mixed.Decision.Row != string(policy.RowPartial) {
		t.Errorf("mixed.test: state %s, decision %+v, replies %+v", mixed.DANE.State, mixed.Decision, mixed.Replies)
	}
}

// FuzzExplainHostile: whatever a stranger writes into DNS, a certificate or a
// policy file, the terminal gets printable characters and line ends only, and
// lists stay short.
func FuzzExplainHostile(f *testing.F) {
	f.Add([]byte("v=STSv1; id=1;"), []byte("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\n"), "mx.a.test")
	f.Add([]byte("\x1b[2J\x9b\xc2\x9b\u202e\x7f"), []byte("mode: \x1b]0;title\x07\r\n"), "\x1b[31m.test")
	f.Add(bytes.Repeat([]byte{0}, 300), bytes.Repeat([]byte("\n\n"), 500), strings.Repeat("\u2066", 90))
	f.Fuzz(func(t *testing.T, txt, body []byte, name string) {
		e := Explanation{Key: name, LookedUp: true, NextHop: policy.NextHop{Domain: "a.test", Port: 25}}
		rr := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT}, Txt: []string{string(txt)}}
		e.DNS = []dnsclient.Recorded{
			{Name: name, Type: dns.TypeTXT, Answer: dnsclient.Answer{Records: []dns.RR{rr}, Chain: []dnsclient.CNAME{{To: name}}}},
			{Name: name, Type: dns.TypeMX, Answer: dnsclient.Answer{Records: []dns.RR{&dns.MX{Mx: name}}}},
			{Name: name, Type: dns.TypeTLSA, Err: &dnsclient.Error{Name: name, Kind: dnsclient.ServFail, Rcode: 2}},
		}
		e.Record = mtasts.RecordResult{Texts: [][]byte{txt}}
		e.Record.Record, e.Record.Err = mtasts.ParseRecord(e.Record.Texts)
		e.Exchange = &mtasts.Exchange{
			URL: "https://mta-sts.a.test/", Body: body, Location: name, MediaType: name,
			Certificate: &mtasts.Certificate{Names: []string{name}, Issuer: name},
		}
		if policy, err := mtasts.ParsePolicy(body); err == nil {
			e.Policy = &policy
		} else {
			e.FetchErr = &mtasts.FetchError{Stage: mtasts.StagePolicy, Reason: err.Error(), Exchange: e.Exchange, Err: err}
		}
		e.DANE = dane.Result{Hosts: []dane.Host{{Evidence: dane.Evidence{Name: name}, Base: name, TLSA: []dane.TLSA{{Data: txt, Unusable: name}}}}}

		r := newReport(e, nil, false, time.Unix(0, 0))
		if n := len(r.Policy.Lines); n > maxLines+5 {
			t.Errorf("%d lines of the policy file", n)
		}
		var text, line bytes.Buffer
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		for _, c := range text.String() {
			if c != '\n' && !unicode.IsPrint(c) || c == utf8.RuneError {
				t.Fatalf("%q in the text:\n%q", c, text.String())
			}
		}
		if err := r.WriteJSON(&line); err != nil {
			t.Fatal(err)
		}
		for i, c := range line.Bytes() {
			if (c < ' ' || c > '~') && i != line.Len()-1 {
				t.Fatalf("byte %#x in the JSON:\n%q", c, line.String())
			}
		}
		var back Report
		if err := json.Unmarshal(line.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(name) && back.Key != name {
			t.Errorf("key %q came back as %q", name, back.Key)
		}
	})
}
