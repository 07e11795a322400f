package store_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/store"
)

func policy(domain string) store.Record {
	at := time.Date(2026, 3, 29, 1, 0, 0, 123456789, time.FixedZone("", 7200))
	return store.Record{
		Domain: domain,
		STS: &store.STS{
			Policy:    []byte("version: STSv1\r\nmode: enforce\r\nmx: *.example.test\r\nmax_age: 604800\r\n"),
			PolicyID:  "20260329010000",
			FetchedAt: at,
			TXTID:     "20260329010000",
			CheckedAt: at,
			TXTTTL:    time.Hour,
		},
		DANE:     []store.DANE{{Port: 25, State: 1, KnownAt: at, ExpiresAt: at.Add(time.Hour)}},
		LastUsed: at,
		Due:      at.Add(24 * time.Hour),
		Class:    store.Positive,
	}
}

func encode(t testing.TB, r store.Record) []byte {
	t.Helper()
	b, err := store.EncodeRecord(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTimesAreKeptToTheMillisecondInUTC(t *testing.T) {
	want := policy("example.test")
	got, err := store.DecodeRecord("example.test", encode(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if w, g := want.Due.Truncate(time.Millisecond), got.Due; !g.Equal(w) || g.Location() != time.UTC {
		t.Errorf("due %v, want %v", g, w)
	}
	if !got.STS.FailedAt.IsZero() {
		t.Errorf("a time that was never set became %v", got.STS.FailedAt)
	}
}

func TestEveryBitOfARecordIsCheckedOnLoad(t *testing.T) {
	good := encode(t, policy("example.test"))
	for i := range good {
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << bit
			if _, err := store.DecodeRecord("example.test", bad); !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
		if _, err := store.DecodeRecord("example.test", good[:i]); !errors.Is(err, store.ErrDamaged) {
			t.Fatalf("cut off after %d bytes: %v", i, err)
		}
	}
}

// A value under the wrong key must not become that domain's policy.
func TestRecordOfAnotherDomainIsDamage(t *testing.T) {
	b := encode(t, policy("example.test"))
	if _, err := store.DecodeRecord("example.invalid", b); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("error %v, want %v", err, store.ErrDamaged)
	}
}

func TestDamageIsReportedInPrintableASCII(t *testing.T) {
	_, err := store.DecodeRecord(strings.Repeat("\x00\n\u2028", 10000), nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, r := range err.Error() {
		if r < ' ' || r > '~' {
			t.Fatalf("%q in an error", r)
		}
	}
	if n := len(err.Error()); n > 4096 {
		t.Errorf("error of %d bytes", n)
	}
}

func TestRecordsThatCannotBeKept(t *testing.T) {
	big := policy("big.test")
	big.STS.Policy = make([]byte, store.MaxEncoded)
	for _, r := range []store.Record{{}, {Domain: strings.Repeat("a", store.MaxDomain+1)}, big} {
		if _, err := store.EncodeRecord(r); err == nil {
			t.Errorf("record of a domain of %d bytes was encoded", len(r.Domain))
		}
	}
}

// Whatever the caller hands over can be read again.
func TestNumbersThatMakeNoSense(t *testing.T) {
	for _, n := range []int{math.MinInt, -1, math.MaxInt} {
		b := encode(t, store.Record{Domain: "a.test", STS: &store.STS{Failures: n, TXTTTL: time.Duration(n)}})
		if _, err := store.DecodeRecord("a.test", b); err != nil {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// BEHAVIOUR §6: a million domains must fit; the size of the file follows from
// these.
func TestEncodedSize(t *testing.T) {
	negative := policy("negative-answer.test")
	negative.Class = store.Negative
	negative.STS = &store.STS{CheckedAt: negative.LastUsed, TXTTTL: time.Hour, TXTError: "NXDOMAIN"}
	for _, c := range []struct {
		name   string
		record store.Record
		atMost int
	}{
		{"negative", negative, 80},
		{"policy", policy("example.test"), 200},
	} {
		n := len(encode(t, c.record))
		t.Logf("%s: %d bytes", c.name, n)
		if n > c.atMost {
			t.Errorf("%s: %d bytes, want at most %d", c.name, n, c.atMost)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	want := policy("example.test")
	b := encode(t, want)
	got, err := store.DecodeRecord("example.test", b)
	if err != nil {
		t.Fatal(err)
	}
	truncate := cmp.Transformer("milliseconds", func(t time.Time) int64 { return t.UnixMilli() })
	if diff := cmp.Diff(want, got, truncate); diff != "" {
		t.Errorf("-encoded +decoded:\n%s", diff)
	}
	clear(b)
	if diff := cmp.Diff(want, got, truncate); diff != "" {
		t.Errorf("the record shares memory with what it was read from:\n%s", diff)
	}
}

func BenchmarkEncodeRecord(b *testing.B) {
	r := policy("example.test")
	b.ReportAllocs()
	for b.Loop() {
		encode(b, r)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	enc := encode(b, policy("example.test"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.DecodeRecord("example.test", enc); err != nil {
			b.Fatal(err)
		}
	}
}
