package admin

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode"

	"tlspolicyd/store"
)

// hostile is what a terminal would obey: C0, DEL, a C1 CSI, bidirectional
// controls, a language tag beyond the BMP; and what is harmless.
const hostile = "\x1b[2J \x7f \u009b31m \u202e \u2066 \U000e0041 \u00a0 bücher €"

func wantPrintable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q is in %q", r, text)
		}
	}
}

func TestEscapedJSONIsPrintableAndTheSame(t *testing.T) {
	var out bytes.Buffer
	e := json.NewEncoder(EscapeJSON(&out))
	e.SetIndent("", "  ")
	if err := e.Encode([]string{hostile}); err != nil {
		t.Fatal(err)
	}
	wantPrintable(t, out.String())
	var got []string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 1 || got[0] != hostile {
		t.Errorf("got %q, %v", got, err)
	}
	if !strings.Contains(out.String(), "bücher €") {
		t.Errorf("what is printable was escaped: %s", out.String())
	}
}

// A policy file may have anything in it. An export of it is safe to look at, is
// imported to the last byte, and is exported again as the same text.
func TestExportOfHostileText(t *testing.T) {
	from, to := start(t), start(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	policy := "version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: 604800\nnote: \u009b31m \u202e \U000e0041\n"
	if err := from.store.Put(t.Context(), store.Record{
		Domain: "a.test", LastUsed: now, Due: now.Add(time.Hour), Class: store.Positive,
		STS: &store.STS{Policy: []byte(policy), PolicyID: "1", TXTID: "1", FetchedAt: now, CheckedAt: now, TXTTTL: time.Hour},
	}); err != nil {
		t.Fatal(err)
	}
	var dump, again bytes.Buffer
	if err := from.client.Export(t.Context(), &dump); err != nil {
		t.Fatal(err)
	}
	wantPrintable(t, dump.String())
	if err := to.client.Import(t.Context(), bytes.NewReader(dump.Bytes()), false, func(int) {}); err != nil {
		t.Fatal(err)
	}
	if rec, err := to.store.Get("a.test"); err != nil || string(rec.STS.Policy) != policy {
		t.Errorf("imported %+v, %v", rec.STS, err)
	}
	if err := to.client.Export(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(withoutHeader(dump.Bytes()), withoutHeader(again.Bytes())) {
		t.Errorf("exported again as %s", again.Bytes())
	}
}
