package check

import (
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/smtpprobe"
	"tlspolicyd/internal/dane"
)

// Where port 25 looks blocked, the advice names another domain than the one at hand.
func TestAnotherDomainToCompareWith(t *testing.T) {
	for domain, want := range map[string]string{
		"good.test": "tlspolicyd check good.test gmail.com",
		"gmail.com": "tlspolicyd check gmail.com outlook.com",
	} {
		silent := &smtpprobe.Result{Stage: smtpprobe.Connect, Cause: smtpprobe.Silence}
		f := &Facts{Domain: domain, Hosts: []Host{{Host: dane.Host{Evidence: dane.Evidence{Name: "mx.test"}}, Addresses: []Address{{Probe: silent}}}}}
		found := judgeThisHost(f)
		if len(found) != 1 || found[0].Code != "port25-blocked" || found[0].Fix != want {
			t.Errorf("%s: %+v, want %q", domain, found, want)
		}
	}
}
