package check

import (
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
)

// judgeAlignment compares MX hosts with the mx patterns of the policy (RFC 8461
// §4.1), both ways.
func judgeAlignment(f *Facts) (found []audit.Finding) {
	if f.noMail() || f.Policy == nil || f.Policy.Mode == mtasts.None {
		return nil
	}
	hosts := slices.DeleteFunc(slices.Clone(f.Explanation.DANE.Hosts), func(h dane.Host) bool {
		return isAddress(h.Name) // judgeDomain reports it; an mx line cannot name it
	})
	for _, h := range hosts {
		if pattern := f.covering(h.Name); pattern != "" {
			found = append(found, audit.Passed("mx-in-policy", h.Name, "The policy names this host.", "mx: "+oneLine(pattern)))
		} else {
			found = append(found, f.uncovered(h.Name))
		}
	}
	var unused []string
	for _, p := range f.Policy.MX {
		if !slices.Contains(unused, p) && !slices.ContainsFunc(hosts, func(h dane.Host) bool { return mtasts.MatchMX(p, h.Name) }) {
			unused = append(unused, p)
		}
	}
	for i, p := range unused {
		if i == maxList {
			found = append(found, audit.Warned("policy-mx-unused", "more patterns", fmt.Sprintf("%d more match no mail host.", len(unused)-maxList), "", "Remove them.", ""))
			break
		}
		found = append(found, audit.Warned("policy-mx-unused", "mx: "+oneLine(p), "The pattern matches no mail host of the domain.", "",
			"Remove it if no mail host of that name will come back: an attacker who gets a host of such a name can receive the mail.", ""))
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
	out := audit.Failed("mx-not-in-policy", host, "No mx line of the policy matches this host, so senders refuse to deliver to it.",
		"mx: "+list(f.Policy.MX), "Add the line to the policy file, then publish a new id in the record:", "mx: "+host)
	if f.Policy.Mode == mtasts.Testing {
		out.Grade = audit.Warn
		out.Text = "No mx line of the policy matches this host; in mode enforce senders would refuse to deliver to it."
	}
	for _, p := range f.Policy.MX { // the most common mistake
		if parent, wild := strings.CutPrefix(p, "*"); wild && strings.HasSuffix(host, parent) {
			out.Evidence += "; a wildcard stands for one label only (RFC 8461 section 4.1)"
			break
		}
	}
	return out
}
