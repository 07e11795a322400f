package check

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
)

const (
	slowFetch     = 5 * time.Second // what sending servers wait for a policy, this daemon among them
	maxLinesShown = 30
)

// judgePolicyFile judges the policy file and how it is served (RFC 8461 §3.2, §3.3).
func judgePolicyFile(f *Facts) (found []audit.Finding) {
	if f.noMail() || !f.Announced && f.FetchErr != nil && !f.received() {
		return nil // no record and no file: there is nothing to say
	}
	if f.received() {
		found = append(found, f.judgeFetched()...)
		found = append(found, f.judgeLines()...)
	} else if f.FetchErr != nil && !f.policyDark() {
		found = append(found, f.judgeFetchError())
	}
	return found
}

// received reports whether a policy file came whole, valid or not.
func (f *Facts) received() bool {
	return f.Policy != nil || f.FetchErr != nil && f.FetchErr.Stage == mtasts.StagePolicy
}

func (f *Facts) judgeFetched() (found []audit.Finding) {
	x := f.Exchange
	seen := fmt.Sprintf("%s, %s, media type %s, %d bytes", x.Connected, x.TLSVersion, x.MediaType, x.Size)
	c := x.Certificate
	if c != nil {
		seen += fmt.Sprintf("; certificate for %s by %s, %s", list(c.Names), issuerText(c.Issuer), leftText(c.NotAfter, f.At))
	}
	for _, l := range x.Lookups {
		if len(l.Answer.Chain) > 0 {
			seen += "; mta-sts." + f.Domain + " CNAME " + oneLine(strings.TrimSuffix(l.Answer.Final, "."))
			break
		}
	}
	found = append(found, audit.Finding{Code: "policy-fetched", Grade: audit.OK, Text: "The policy file is at its place, over HTTPS with a good certificate.", Evidence: seen})
	if c != nil && endsSoon(c.NotBefore, c.NotAfter, f.At) {
		found = append(found, audit.Finding{
			Code: "policy-certificate-expiring", Grade: audit.Warn, Text: "The certificate of the policy host ends soon; from then on senders learn no policy.",
			Evidence: leftText(c.NotAfter, f.At), Advice: "Renew it, and look why nothing has renewed it yet.",
		})
	}
	if x.Total > slowFetch {
		found = append(found, audit.Finding{
			Code: "policy-slow", Grade: audit.Warn, Text: "The policy host is slow: many senders wait no longer than 5 seconds before they deliver without the policy.",
			Evidence: fmt.Sprintf("%.1f s", x.Total.Seconds()), Advice: "Serve the file from a faster host; it is static.",
		})
	}
	return found
}

// judgeLines says something about each line of the file.
func (f *Facts) judgeLines() (found []audit.Finding) {
	lines, missing := mtasts.PolicyLines(f.Exchange.Body)
	left := 0
	for _, l := range lines {
		one := audit.Finding{Code: "policy-line-ok", Grade: audit.OK, Subject: fmt.Sprintf("line %d", l.Number), Text: oneLine(l.Text)}
		switch {
		case l.Fault != "":
			one.Code, one.Grade, one.Evidence = "policy-line-invalid", audit.Fail, oneLine(l.Text)
			one.Text = sentence(l.Fault + ": the whole policy is invalid, and senders treat it as absent")
			one.Advice = "Mend the line, then publish a new id in the record."
		case l.Note != "":
			one.Code, one.Grade, one.Evidence, one.Text = "policy-line-suspicious", audit.Warn, oneLine(l.Text), sentence(l.Note)
			one.Advice = "Remove the line, or write what was meant."
		case len(strings.TrimSpace(string(l.Text))) == 0:
			continue // at the end, where it does no harm
		}
		if len(found) >= maxLinesShown && one.Grade != audit.Fail || len(found) >= 2*maxLinesShown {
			left++
			continue
		}
		found = append(found, one)
	}
	if left > 0 {
		found = append(found, audit.Finding{Code: "policy-line-ok", Grade: audit.OK, Subject: "more lines", Text: number(left, "more line") + ", not shown."})
	}
	if missing != "" && f.Policy == nil {
		found = append(found, audit.Finding{
			Code: "policy-line-missing", Grade: audit.Fail, Text: sentence("the file has " + missing + ", so it is no valid policy"),
			Advice: "Add it, then publish a new id in the record:", Fix: f.lineFor(missing),
		})
	}
	return found
}

// lineFor is an example of a line that is missing.
func (f *Facts) lineFor(missing string) string {
	mx := "mx." + f.Domain
	if hosts := f.Explanation.DANE.Hosts; len(hosts) > 0 {
		mx = hosts[0].Name
	}
	for _, line := range []string{"version: STSv1", "mode: testing", "max_age: 604800"} {
		if key, _, _ := strings.Cut(line, ":"); strings.HasPrefix(missing, "no "+key+" line") {
			return line
		}
	}
	return "mx: " + mx
}

// fetchFault is what a failed step means, and what to do.
type fetchFault struct{ code, text, advice string }

func fetchFaults() map[mtasts.Stage]fetchFault {
	return map[mtasts.Stage]fetchFault{
		mtasts.StageAddress:     {"policy-host-not-public", "The policy host has no public address, so senders cannot fetch the policy.", "Publish a public address for it."},
		mtasts.StageConnect:     {"policy-unreachable", "The policy host takes no connection on port 443.", "Start its web server, or open the firewall."},
		mtasts.StageTimeout:     {"policy-timeout", "The policy host does not answer in time.", "Look at its web server; many senders wait 5 seconds."},
		mtasts.StageTLS:         {"policy-tls-failed", "The policy host opens no TLS session of version 1.2 or later.", "Switch on TLS 1.2 and 1.3 on its web server."},
		mtasts.StageCertificate: {"policy-certificate-invalid", "The certificate of the policy host is not valid for its name, so senders ignore the policy.", "Get a certificate for it from a public authority, and serve the whole chain."},
		mtasts.StageHTTP:        {"policy-http-failed", "The policy host gives no complete HTTP response.", "Look at its web server."},
		mtasts.StageRedirect:    {"policy-redirect", "The policy host redirects, which senders do not follow (RFC 8461 section 3.3).", "Serve the file itself at this address."},
		mtasts.StageStatus:      {"policy-http-status", "There is no policy file at its place.", "Serve the file at this address with status 200."},
		mtasts.StageMediaType:   {"policy-media-type", "The policy file is not sent as text/plain.", "Configure the media type of .txt files on the web server."},
		mtasts.StageEncoding:    {"policy-encoding", "The policy file is sent compressed although nobody asked for that.", "Switch compression off for this file."},
		mtasts.StageSize:        {"policy-too-large", "The policy file is larger than senders read.", "Shorten it: a policy has a few lines."},
	}
}

func (f *Facts) judgeFetchError() audit.Finding {
	e := f.FetchErr
	out := audit.Finding{Grade: audit.Fail, Evidence: oneLine(e.Reason)}
	if x := f.Exchange; x != nil && x.URL != "" {
		out.Evidence = x.URL + ": " + out.Evidence
	}
	if e.Stage == mtasts.StageDNS {
		if failed, ok := errors.AsType[*dnsclient.Error](e.Err); ok {
			out = f.dnsFailure("the policy host mta-sts."+f.Domain, "senders learn no policy", failed)
			out.Code = "policy-host-lookup-failed"
			return out
		}
		out.Code, out.Text = "policy-host-missing", "The record announces a policy, but its host does not exist or has no address."
		out.Advice = "Publish an address of the web server at mta-sts." + f.Domain + ", or remove the record."
		return out
	}
	what := fetchFaults()[e.Stage]
	out.Code, out.Text, out.Advice = what.code, what.text, what.advice
	if e.Stage == mtasts.StageCertificate {
		if c := f.Exchange.Certificate; c != nil {
			out.Evidence += fmt.Sprintf("; certificate for %s by %s, %s", list(c.Names), issuerText(c.Issuer), leftText(c.NotAfter, f.At))
		}
	}
	return out
}
