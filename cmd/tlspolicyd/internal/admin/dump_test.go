package admin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// record is one with every fact, different for each i. Nothing in it is due within
// hours, so that no refresh changes it.
func record(i int, now time.Time) store.Record {
	now = now.UTC().Truncate(time.Millisecond)
	rec := store.Record{
		Domain: fmt.Sprintf("d%d.test", i), LastUsed: now.Add(-time.Duration(i) * time.Second),
		DANE: []store.DANE{{
			Port: 25, State: uint8(i % 5), SomeTLSA: i%5 == 0, // as older versions wrote it
			KnownAt: now.Add(-time.Minute), ExpiresAt: now.Add(20 * time.Hour),
		}},
	}
	if i%2 == 0 {
		rec.STS = &store.STS{
			Policy: fmt.Appendf(nil, "version: STSv1\r\nmode: enforce\r\nmx: mx%d.test\r\nnote: <&> \u2028\r\nmax_age: 604800", i), PolicyID: fmt.Sprint(i),
			FetchedAt: now.Add(-time.Hour), TXTID: "2", CheckedAt: now.Add(-time.Minute), TXTTTL: 1500 * time.Millisecond,
			FailedID: "2", FailedAt: now.Add(-2 * time.Minute), Failures: 3, Error: "status 404",
		}
	}
	if i%3 == 0 {
		rec.DANE = append(rec.DANE, store.DANE{
			Port: 587, MX: uint8(dane.MXInsecure), NullMX: i%2 == 0, NoDomain: i%9 == 0, Unvalidated: i%4 == 0, Omitted: i,
			KnownAt: now.Add(-time.Second), ExpiresAt: now.Add(23 * time.Hour),
			Hosts: []store.Host{
				{Name: "mx1.test", Preference: 10, Verdict: uint8(dane.Usable), KnownAt: now.Add(-time.Hour), Failure: uint8(dane.AddressFailed), Error: "no answer"},
				{Name: "mx2.test", Preference: 20, Verdict: uint8(dane.TLSAFailed), Failure: uint8(dane.TLSAFailed), Error: "SERVFAIL"},
				{Name: "mx3.test", Preference: 20, Verdict: uint8(dane.NoTLSA), KnownAt: now.Add(-time.Second)},
			},
		})
	}
	if i%7 == 0 {
		rec.STS = &store.STS{CheckedAt: now, TXTTTL: 22 * time.Hour, TXTError: `no record at "_mta-sts"`}
	}
	return rec
}

// What is written is read back to the last bit; Due and Class follow from it.
func TestDumpIsLossless(t *testing.T) {
	now := time.Now()
	var text bytes.Buffer
	w, err := newDumpWriter(&text, "test", now)
	if err != nil {
		t.Fatal(err)
	}
	var want []store.Record
	for i := range 50 {
		want = append(want, record(i, now))
		if err := w.write(want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.write(store.Record{Domain: "empty.test", LastUsed: now}); err != nil {
		t.Fatal(err)
	}
	if err := w.end(); err != nil {
		t.Fatal(err)
	}
	got, broken := readDump(t, text.String())
	if diff := cmp.Diff(want, got); diff != "" || len(broken) != 0 {
		t.Errorf("broken %v, differences:\n%s", broken, diff)
	}
}

func readDump(t testing.TB, text string) (recs []store.Record, broken []error) {
	t.Helper()
	d, err := NewDumpReader(strings.NewReader(text))
	if err != nil {
		return nil, []error{err}
	}
	for {
		rec, _, err := d.Next()
		switch _, isLine := errors.AsType[*LineError](err); {
		case err == io.EOF:
			return recs, broken
		case err == nil:
			recs = append(recs, rec)
		case isLine:
			broken = append(broken, err)
		default:
			t.Fatal(err)
		}
	}
}

const (
	header   = `{"format":"tlspolicyd-cache","version":1}`
	goodLine = `{"domain":"a.test","dane":[{"port":25,"state":"full","known_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T01:00:00Z"}]}`
)

func withSTS(sts string) string { return `{"domain":"a.test","mta_sts":{` + sts + `}}` }

func withDANE(d string) string {
	return `{"domain":"a.test","dane":[{"known_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T01:00:00Z",` + d + `}]}`
}

// A broken line is reported with its number and what is wrong, and no other is lost.
func TestDumpWithABrokenLine(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"no JSON":            {`nonsense`, "JSON"},
		"empty line":         {``, "cut short"},
		"cut short":          {goodLine[:40], "cut short"},
		"two objects":        {goodLine + goodLine, "follows"},
		"unknown field":      {`{"domain":"a.test","color":1}`, `unknown field "color"`},
		"wrong type":         {`{"domain":7}`, "cannot unmarshal"},
		"not UTF-8":          {`{"domain":"` + "\xff" + `"}`, "not UTF-8"},
		"no domain":          {strings.Replace(goodLine, "a.test", "", 1), "domain"},
		"upper case":         {strings.Replace(goodLine, "a.test", "A.test", 1), "lower case"},
		"a port":             {strings.Replace(goodLine, "a.test", "a.test:25", 1), "domain"},
		"an address":         {strings.Replace(goodLine, "a.test", "192.0.2.1", 1), "domain"},
		"no facts":           {`{"domain":"a.test"}`, "no facts"},
		"policy broken":      {withSTS(`"fetched_at":"2026-01-01T00:00:00Z","policy":"version: STSv1\nmode: enfroce\n"`), "line 2"},
		"policy twice":       {withSTS(`"fetched_at":"2026-01-01T00:00:00Z","policy":"","policy_base64":"QQ=="`), "both"},
		"policy of no time":  {withSTS(`"policy":"version: STSv1\nmode: none\nmax_age: 1\n"`), "fetched_at"},
		"id":                 {withSTS(`"txt_id":"a b"`), "txt_id"},
		"negative":           {withSTS(`"failures":-1`), "range"},
		"bad time":           {withSTS(`"checked_at":"yesterday"`), "JSON"},
		"state":              {withDANE(`"port":25,"state":"strong"`), `state "strong"`},
		"port":               {withDANE(`"port":0,"state":"full"`), "port 0"},
		"unknown":            {withDANE(`"port":25,"state":"unknown"`), "some_tlsa"},
		"lives too long":     {strings.Replace(goodLine, "2026-01-01T01:00:00Z", "2026-01-02T00:00:01Z", 1), "at most 24h"},
		"MX":                 {withDANE(`"port":25,"mx":"signed"`), `mx "signed"`},
		"hosts":              {withDANE(`"port":25,"mx":"secure","hosts":[` + strings.TrimSuffix(strings.Repeat("{},", maxHosts+1), ",") + `]`), "33 hosts"},
		"host without name":  {withDANE(`"port":25,"mx":"secure","hosts":[{"verdict":"usable","known_at":"2026-01-01T00:00:00Z"}]`), "host 1: want a name"},
		"verdict":            {withDANE(`"port":25,"mx":"secure","hosts":[{"name":"a","verdict":"good"}]`), `verdict "good"`},
		"proof of no time":   {withDANE(`"port":25,"mx":"secure","hosts":[{"name":"a","verdict":"usable"}]`), "known_at"},
		"proof ahead":        {withDANE(`"port":25,"mx":"secure","hosts":[{"name":"a","verdict":"usable","known_at":"2027-01-01T00:00:00Z"}]`), "known_at is after"},
		"failure":            {withDANE(`"port":25,"mx":"secure","hosts":[{"name":"a","verdict":"tlsa-failed"}]`), "without error"},
		"long error":         {withSTS(`"error":"` + strings.Repeat("x", maxReason+1) + `"`), "error: want up to 200"},
		"error of bytes":     {withSTS(`"txt_error":"\u001b[2J"`), "txt_error: want"},
		"large policy":       {withSTS(`"fetched_at":"2026-01-01T00:00:00Z","policy":"` + `version: STSv1\nmode: none\nmax_age: 1\nx: ` + strings.Repeat("x", mtasts.MaxPolicySize) + `\n"`), "at most 65536"},
		"domain twice":       {strings.Replace(goodLine, "a.test", "b.test", 1), `"b.test" is there twice`},
		"port too large":     {withDANE(`"port":70000,"state":"full"`), "JSON"},
		"no time":            {`{"domain":"a.test","dane":[{"port":25,"state":"full"}]}`, "known_at"},
		"too long":           {`{"domain":"` + strings.Repeat("a", maxLine) + `"}`, "longer than"},
		"escape sequences":   {`{"domain":"\u001b[2J"}`, `\x1b[2J`},
		"too many endpoints": {`{"domain":"a.test","dane":[` + strings.TrimSuffix(strings.Repeat("{},", maxEndpoints+1), ",") + `]}`, "at most"},
		"endpoint twice": {strings.Replace(withDANE(`"port":25,"state":"full"`), "}]}",
			`},{"port":25,"state":"none","known_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T01:00:00Z"}]}`, 1), "twice"},
	} {
		before := strings.Replace(goodLine, "a.test", "b.test", 1)
		after := strings.Replace(goodLine, "a.test", "c.test", 1)
		recs, broken := readDump(t, header+"\n"+before+"\n"+tt.line+"\n"+after+"\n"+`{"records":3}`+"\n")
		if len(recs) != 2 || len(broken) != 1 {
			t.Errorf("%s: %d good, broken %v", name, len(recs), broken)
			continue
		}
		text := broken[0].Error()
		if !strings.HasPrefix(text, "line 3: ") || !strings.Contains(text, tt.want) || len(text) > 400 ||
			strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestDumpThatIsNone(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":         {"", "line 1: the file is empty"},
		"another file":  {goodLine + "\n", "line 1: no dump"},
		"newer":         {`{"format":"tlspolicyd-cache","version":2,"more":1}`, "line 1: version 2: format version is newer"},
		"no version":    {`{"format":"tlspolicyd-cache"}`, "line 1: version 0"},
		"cut short":     {header + "\n" + goodLine + "\n", "line 3: the file is cut short"},
		"records lost":  {header + "\n" + goodLine + "\n" + `{"records":2}`, "line 3: 2 records were exported and 1 are here"},
		"more follows":  {header + "\n" + `{"records":0}` + "\n" + goodLine, "line 3: something follows"},
		"endless line":  {strings.Repeat("x", maxLine+1), "line 1: longer than"},
		"header broken": {header[:20], "line 1: no dump"},
	} {
		_, broken := readDump(t, tt.text)
		if len(broken) != 1 || !strings.HasPrefix(broken[0].Error(), tt.want) {
			t.Errorf("%s: %v", name, broken)
		}
	}
	_, broken := readDump(t, `{"format":"tlspolicyd-cache","version":2}`)
	if !errors.Is(broken[0], ErrVersion) {
		t.Errorf("%v", broken)
	}
	if recs, broken := readDump(t, header+"\r\n"+goodLine+"\r\n"+`{"records":1}`); len(recs) != 1 || len(broken) != 0 {
		t.Errorf("CRLF and no last line end: %v %v", recs, broken)
	}
}

// export | import of 100,000 domains into another daemon loses nothing. Under the
// race detector, which makes it ten times slower, there are fewer.
func TestExportImportOfALargeCache(t *testing.T) {
	n := 100_000
	if raceDetector {
		n = 5_000
	}
	from, to := start(t), start(t)
	now := time.Now()
	var recs []store.Record
	for i := range n {
		rec := record(i, now)
		rec.Due, rec.Class = now.Add(time.Hour), store.Positive
		if recs = append(recs, rec); len(recs) == 500 {
			if err := from.store.Put(t.Context(), recs...); err != nil {
				t.Fatal(err)
			}
			recs = recs[:0]
		}
	}
	began := time.Now()
	var dump bytes.Buffer
	if err := from.client.Export(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	exported := time.Since(began)
	imported := 0
	if err := to.client.Import(t.Context(), bytes.NewReader(dump.Bytes()), false, func(done int) { imported = done }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records, %d MB: exported in %v, imported in %v", n, dump.Len()>>20, exported, time.Since(began)-exported)
	if imported != n || to.store.Len() != n {
		t.Fatalf("%d imported, %d in the store", imported, to.store.Len())
	}
	// What follows from the facts is worked out anew.
	derived := cmpopts.IgnoreFields(store.Record{}, "Due", "Class")
	if err := from.store.Walk(store.Scan{}, func(want store.Record) bool {
		got, err := to.store.Get(want.Domain)
		if diff := cmp.Diff(want, got, derived); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", want.Domain, err, diff)
		}
		return !t.Failed()
	}); err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := to.client.Export(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(withoutHeader(dump.Bytes()), withoutHeader(again.Bytes())) {
		t.Error("the second export differs from the first")
	}
}

// withoutHeader is a dump without its header, which has the time in it.
func withoutHeader(dump []byte) []byte {
	_, rest, _ := bytes.Cut(dump, []byte("\n"))
	return rest
}

// What was imported answers lookups, on a host without any network.
func TestImportedCacheAnswers(t *testing.T) {
	from, to := start(t), start(t)
	from.PolicyHost("plain.test", enforce)
	from.ask(t, "plain.test", secure)
	from.ask(t, "full.test", "OK dane-only")
	from.ask(t, "[mx.full.test]:25", "OK dane-only")
	var dump bytes.Buffer
	if err := from.client.Export(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	to.Down(true)
	if err := to.client.Import(t.Context(), &dump, false, func(int) {}); err != nil {
		t.Fatal(err)
	}
	to.ask(t, "plain.test", secure)
	to.ask(t, "full.test", "OK dane-only")
	to.ask(t, "[mx.full.test]", "OK dane-only")
	if info, ok := to.Info("plain.test"); !ok || info.STS != policy.STSEnforce {
		t.Errorf("%+v", info)
	}
}

// A line that broke after the file was checked is no silent loss.
func TestImportOfAFileThatChanged(t *testing.T) {
	d := start(t)
	dump := header + "\nnonsense\n" + goodLine + "\n" + `{"records":2}` + "\n"
	err := d.client.Import(t.Context(), strings.NewReader(dump), false, func(int) {})
	if bad, ok := errors.AsType[*LineError](err); !ok || bad.Line != 2 {
		t.Errorf("got %v", err)
	}
	done := 0
	if err := d.client.Import(t.Context(), strings.NewReader(dump), true, func(n int) { done = n }); err != nil || done != 1 {
		t.Errorf("%d imported, %v", done, err)
	}
}

// An export that is cut off ends without the last line, so nobody can take it
// for a whole one.
func TestExportThatIsCutOff(t *testing.T) {
	d := start(t)
	now := time.Now()
	for i := range 2000 {
		d.store.PutLater(record(i, now))
	}
	if err := d.client.Export(t.Context(), failingWriter{}); err == nil {
		t.Error("a full disk went unnoticed")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func FuzzDump(f *testing.F) {
	f.Add(header + "\n" + goodLine + "\n" + `{"records":1}` + "\n")
	f.Add(header + "\n" + withSTS(`"fetched_at":"2026-01-01T00:00:00Z","policy":"version: STSv1\nmode: none\nmax_age: 1\n"`) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		recs, broken := readDump(t, text)
		for _, err := range broken {
			if s := err.Error(); len(s) > 500 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("error %q", s)
			}
		}
		// What was taken can be stored, and written again as it is.
		var out bytes.Buffer
		w, err := newDumpWriter(&out, "", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range recs {
			encoded, err := store.EncodeRecord(rec)
			if err != nil {
				t.Fatal(err)
			}
			stored, err := store.DecodeRecord(rec.Domain, encoded)
			if diff := cmp.Diff(rec, stored, cmpopts.EquateApproxTime(0)); err != nil || diff != "" {
				t.Errorf("%v; what is stored differs:\n%s", err, diff)
			}
			if err := w.write(rec); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.end(); err != nil {
			t.Fatal(err)
		}
		again, broken := readDump(t, out.String())
		if diff := cmp.Diff(recs, again, cmpopts.EquateApproxTime(0)); diff != "" || len(broken) != 0 {
			t.Errorf("broken %v, differences:\n%s", broken, diff)
		}
	})
}
