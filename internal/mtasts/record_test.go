package mtasts

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/testing/lab"
)

// BEHAVIOUR §3: found, none, and "nothing is known" are three things.
func TestLookupRecord(t *testing.T) {
	for _, tc := range []struct {
		name, domain string
		id           string // found
		texts        int
		is           error
	}{
		{"valid", "example.test", "20160831085700Z", 1, nil},
		{"letter case of the name", "Example.TEST", "20160831085700Z", 1, nil},
		{"several strings are joined without a blank (8461 §3.1)", "split.test", "ab", 1, nil},
		{"escaped bytes are read as on the wire", "escaped.test", "ab", 1, nil},
		{"CNAME (8461 §3.1)", "alias.test", "20160831085700Z", 1, nil},
		{"another record beside it", "beside.test", "a", 2, nil},
		{"NXDOMAIN", "absent.test", "", 0, ErrNoRecord},
		{"no TXT record", "nodata.test", "", 0, ErrNoRecord},
		{"two records", "two.test", "", 2, ErrManyRecords},
		{"a name that cannot exist", strings.Repeat("a.", 121) + "test", "", 0, ErrNoRecord},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, _ *Fetcher) {
				w.Zone(recordZone)
				res := LookupRecord(t.Context(), newResolver(t, w), tc.domain)
				if res.Found != (tc.id != "") || res.Record.ID != tc.id {
					t.Errorf("found %v with id %q; want id %q", res.Found, res.Record.ID, tc.id)
				}
				if res.Failed || !errors.Is(res.Err, tc.is) {
					t.Errorf("failed %v, error %v, want %v", res.Failed, res.Err, tc.is)
				}
				if len(res.Texts) != tc.texts {
					t.Errorf("texts %q", res.Texts)
				}
			})
		})
	}
}

const recordZone = `
	_mta-sts.example.test. 120 TXT "v=STSv1; id=20160831085700Z;"
	_mta-sts.split.test. TXT "v=ST" "Sv1; i" "d=a" "b;"
	_mta-sts.escaped.test. TXT "v=STSv1\059\032id=a\098\;"
	_mta-sts.alias.test. 60 CNAME _mta-sts.example.test.
	_mta-sts.beside.test. TXT "v=spf1 -all"
	_mta-sts.beside.test. TXT "v=STSv1; id=a"
	_mta-sts.two.test. TXT "v=STSv1; id=a"
	_mta-sts.two.test. TXT "v=STSv1; id=b"
	_mta-sts.syntax.test. TXT "v=STSv1; id=a-b"
	_mta-sts.bytes.test. TXT "v=STSv1; id=a; x=\195\188"
	_mta-sts.nodata.test. A 203.0.113.1
`

func TestLookupRecordKeepsReasonAndTTL(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, _ *Fetcher) {
		w.Zone(recordZone)
		r := newResolver(t, w)
		for _, domain := range []string{"syntax.test", "bytes.test"} {
			res := LookupRecord(t.Context(), r, domain)
			if _, ok := errors.AsType[*RecordError](res.Err); !ok || res.Found || res.Failed || len(res.Texts) != 1 {
				t.Errorf("%s: %+v", domain, res)
			}
		}
		if res := LookupRecord(t.Context(), r, "alias.test"); res.Answer.TTL != time.Minute || len(res.Answer.Chain) != 1 {
			t.Errorf("TTL %v, aliases %v", res.Answer.TTL, res.Answer.Chain)
		}
		if res := LookupRecord(t.Context(), r, "absent.test"); res.Answer.TTL != 300*time.Second {
			t.Errorf("TTL of the negative answer %v", res.Answer.TTL)
		}
	})
}

// BEHAVIOUR §3: SERVFAIL or no answer is a lookup failure, not an absence.
func TestLookupRecordFails(t *testing.T) {
	for name, fault := range map[string]lab.Fault{"SERVFAIL": lab.ServFail, "silence": lab.Drop, "REFUSED": lab.Refused} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *lab.World, _ *Fetcher) {
				w.Zone(recordZone)
				w.Fault("_mta-sts.example.test", "TXT", fault)
				res := LookupRecord(t.Context(), newResolver(t, w), domain)
				if _, ok := errors.AsType[*dnsclient.Error](res.Err); !ok || !res.Failed || res.Found {
					t.Errorf("%+v", res)
				}
			})
		})
	}
}

// A TXT record as long as DNS allows is read and refused, in one short line.
func TestLookupRecordHuge(t *testing.T) {
	inWorld(t, func(t *testing.T, w *lab.World, _ *Fetcher) {
		w.Fault("_mta-sts.example.test", "TXT", lab.Huge)
		res := LookupRecord(t.Context(), newResolver(t, w), domain)
		if res.Found || res.Failed || len(res.Texts) != 1 || len(res.Texts[0]) < 60000 {
			t.Fatalf("found %v, failed %v, %d texts, error %v", res.Found, res.Failed, len(res.Texts), res.Err)
		}
		checkLine(t, res.Err.Error())
	})
}
