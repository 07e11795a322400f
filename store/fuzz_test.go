package store

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// withHeader makes fields of a fuzzer into something that gets past the
// checksum.
func withHeader(domain string, fields []byte) []byte {
	b := append(make([]byte, headerSize), fields...)
	seal(domain, b)
	return b
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	fields := appendBytes(nil, 99, []byte("from the future"))
	fields = appendInt(fields, tagClass, int64(Positive))
	fields = appendBytes(fields, 1<<40, nil)
	fields = appendBytes(fields, tagSTS, appendString(appendBytes(nil, 77, []byte{1}), tagTXTID, "id"))
	got, err := DecodeRecord("a.test", withHeader("a.test", fields))
	want := Record{Domain: "a.test", Class: Positive, STS: &STS{TXTID: "id"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v; -want +got:\n%s", err, diff)
	}
}

func TestAnotherEncodingVersionIsDamage(t *testing.T) {
	b := withHeader("a.test", nil)
	b[0]++
	if _, err := DecodeRecord("a.test", b); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v, want %v", err, ErrDamaged)
	}
}

// Whatever can be decoded has one encoding, which decodes to the same; and
// what cannot be decoded is an error and nothing else.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range []Record{
		{},
		{STS: &STS{Policy: []byte("version: STSv1\n"), TXTTTL: 1e9, Failures: 3, Error: "x"}},
		{DANE: []DANE{{Port: 25, SomeTLSA: true, NullMX: true}, {Literal: true, State: 3}}, Class: Positive},
	} {
		r.Domain = "seed.test"
		b, err := EncodeRecord(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[headerSize:])
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, fields []byte) {
		const domain = "fuzz.test"
		if _, err := DecodeRecord(domain, fields); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("error of another kind: %v", err)
		}
		r, err := DecodeRecord(domain, withHeader(domain, fields))
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		first, err := EncodeRecord(r)
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		again, err := DecodeRecord(domain, first)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, again); diff != "" {
			t.Errorf("-decoded +encoded and decoded:\n%s", diff)
		}
		if second, _ := EncodeRecord(again); !bytes.Equal(first, second) {
			t.Errorf("two encodings of one record: %x and %x", first, second)
		}
	})
}
