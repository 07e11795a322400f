package check_test

import (
	"bytes"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
)

// A domain with all there is, over IPv4 and IPv6, gets no warning.
func TestHealthyDomain(t *testing.T) {
	r := examine(t, domain, func(*scene) {})
	var text bytes.Buffer
	if err := (output.Text{}).Write(&text, r.Topics); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if r.Grade != audit.OK {
		t.Errorf("grade %v", r.Grade)
	}
	if r.MTASTS != "enforce" || r.DANE != "full" || r.TLSRPT != "valid" || r.Postfix != "OK dane-only" || r.MaxAgeSeconds != 2592000 || len(r.Certificates) != 5 {
		t.Errorf("%+v", r)
	}
}
