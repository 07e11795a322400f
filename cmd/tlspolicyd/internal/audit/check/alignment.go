package check

import (
	"fmt"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/mtasts"
)

// judgeAlignment compares MX hosts with the mx patterns of the policy (RFC 8461
// §4.1), both ways.
func judgeAlignment(f *Facts) (found []audit.Finding) {
	if f.noMail() || f.Policy == nil || f.Policy.Mode == mtasts.None {
		return nil
	}
	used := map[string]bool{}
	for _, h := range f.Explanation.DANE.Hosts {
		if isAddress(h.Name) {
			continue // said of the domain; an mx line cannot name it
		}
		pattern := f.covering(h.Name)
		if pattern != "" {
			found = append(found, audit.Finding{
				Code: "mx-in-policy", Grade: audit.OK, Subject: h.Name, Text: "The policy covers this host.", Evidence: "mx: " + oneLine(pattern),
			})
		} else {
			found = append(found, f.uncovered(h.Name))
		}
		for _, p := range f.Policy.MX {
			used[p] = used[p] || mtasts.MatchMX(p, h.Name)
		}
	}
	left := 0
	for _, p := range f.Policy.MX {
		if used[p] {
			continue
		}
		used[p] = true // said once
		if left++; left > maxList {
			continue
		}
		found = append(found, audit.Finding{
			Code: "policy-mx-unused", Grade: audit.Warn, Subject: "mx: " + oneLine(p), Text: "The pattern covers no mail host of the domain.",
			Advice: "Remove it if no mail host of that name will come back: it lets an attacker use whoever has such a name.",
		})
	}
	if left > maxList {
		found = append(found, audit.Finding{
			Code: "policy-mx-unused", Grade: audit.Warn, Subject: "more patterns", Text: fmt.Sprintf("%d more cover no mail host.", left-maxList),
			Advice: "Remove them.",
		})
	}
	return found
}

// covering returns the first pattern that matches a host, or "".
func (f *Facts) covering(host string) string {
	for _, p := range f.Policy.MX {
		if mtasts.MatchMX(p, host) {
			return p
		}
	}
	return ""
}

func (f *Facts) uncovered(host string) audit.Finding {
	out := audit.Finding{
		Code: "mx-not-in-policy", Grade: audit.Fail, Subject: host, Text: "No mx line of the policy covers this host, so senders refuse to deliver to it.",
		Evidence: "mx: " + list(f.Policy.MX), Advice: "Add the line to the policy file, then publish a new id in the record:", Fix: "mx: " + host,
	}
	if f.Policy.Mode == mtasts.Testing {
		out.Grade = audit.Warn
		out.Text = "No mx line of the policy covers this host; in mode enforce senders would refuse to deliver to it."
	}
	for _, p := range f.Policy.MX { // the mistake that is made most
		if parent, wild := strings.CutPrefix(p, "*"); wild && strings.HasSuffix(host, parent) {
			out.Evidence += "; a wildcard stands for one label only (RFC 8461 section 4.1)"
			break
		}
	}
	return out
}
