package admin

import (
	"bytes"
	"testing"
	"time"
	"unicode"

	"tlspolicyd/store"
)

func wantPrintable(t *testing.T, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%q is in %q", r, text)
		}
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
