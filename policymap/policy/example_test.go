package policy_test

import (
	"fmt"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// A domain with an enforced MTA-STS policy. One of its two mail hosts is proved to
// have no TLSA records, and the lookup of the other fails: MTA-STS must not
// override DANE there, and need not hold back the mail for the first one.
func ExampleView_Answer() {
	hop, _ := policy.ParseNextHop("Example.test.")
	file, err := mtasts.ParsePolicy([]byte("version: STSv1\nmode: enforce\nmx: *.example.test\nmax_age: 604800\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	evaluation := dane.Result{
		MX: dane.MX{Answer: dane.MXSecure, TTL: time.Hour},
		Hosts: []dane.Host{
			{Evidence: dane.Evidence{Name: "mx1.example.test", Preference: 10, Verdict: dane.NoTLSA}},
			{Evidence: dane.Evidence{Name: "mx2.example.test", Preference: 20, Verdict: dane.TLSAFailed}},
		},
	}
	answer := policy.Afresh(hop, evaluation, &file, time.Now()).Answer(policy.Settings{})
	fmt.Println(answer.Decision.Row)
	fmt.Printf("%s\n", answer.Replies.Postfix)
	// Output:
	// unknown-some-hosts-enforce
	// OK secure match=mx1.example.test servername=hostname
}

// Full DANE comes before MTA-STS (RFC 8461 §2).
func ExampleDecide() {
	d := policy.Decide(policy.DANEFacts{State: dane.Full}, policy.STSEnforce, policy.Settings{})
	fmt.Println(d.Level)
	fmt.Println(d.Why)
	// Output:
	// dane-only
	// every mail host has usable TLSA records, and DANE comes before MTA-STS (RFC 8461 §2)
}
