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
	} else if f.FetchErr != nil && !f.policyInconclusive() {
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
	found = append(found, audit.Passed("policy-fetched", "", "The policy file was fetched over HTTPS with a valid certificate.", seen))
	if c != nil && expiresSoon(c.NotBefore, c.NotAfter, f.At) {
		found = append(found, audit.Warned("policy-certificate-expiring", "", "The certificate of the policy host expires soon; from then on senders get no policy.",
			leftText(c.NotAfter, f.At), "Renew it, and find out why it was not renewed automatically.", ""))
	}
	if x.Total > slowFetch {
		found = append(found, audit.Warned("policy-slow", "", "The policy host is slow: many senders wait no longer than 5 seconds before they deliver without the policy.",
			fmt.Sprintf("%.1f s", x.Total.Seconds()), "Serve the file from a faster host; it is static.", ""))
	}
	return found
}

// judgeLines judges each line of the file.
func (f *Facts) judgeLines() (found []audit.Finding) {
	lines, missing := mtasts.PolicyLines(f.Exchange.Body)
	left := 0
	for _, l := range lines {
		subject, text := fmt.Sprintf("line %d", l.Number), oneLine(l.Text)
		one := audit.Passed("policy-line-ok", subject, text, "")
		switch {
		case l.Fault != "":
			one = audit.Failed("policy-line-invalid", subject, sentence(l.Fault+": the whole policy is invalid, and senders treat it as absent"), text,
				"Correct the line, then publish a new id in the record.", "")
		case l.Note != "":
			one = audit.Warned("policy-line-suspicious", subject, sentence(l.Note), text, "Remove the line, or write what was meant.", "")
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
		found = append(found, audit.Passed("policy-line-ok", "more lines", number(left, "more line")+", not shown.", ""))
	}
	if missing != "" && f.Policy == nil {
		found = append(found, audit.Failed("policy-line-missing", "", sentence("the file has "+missing+", so it is not a valid policy"), "",
			"Add it, then publish a new id in the record:", f.lineFor(missing)))
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
		mtasts.StageConnect:     {"policy-unreachable", "The policy host accepts no connection to port 443.", "Start its web server, or open its firewall."},
		mtasts.StageTimeout:     {"policy-timeout", "The policy host does not answer in time.", "Check its web server; many senders wait 5 seconds."},
		mtasts.StageTLS:         {"policy-tls-failed", "The policy host opens no TLS session of version 1.2 or later.", "Enable TLS 1.2 and 1.3 on its web server."},
		mtasts.StageCertificate: {"policy-certificate-invalid", "The certificate of the policy host is not valid for its name, so senders ignore the policy.", "Get a certificate for it from a public authority, and serve the whole chain."},
		mtasts.StageHTTP:        {"policy-http-failed", "The policy host gives no complete HTTP response.", "Check its web server."},
		mtasts.StageRedirect:    {"policy-redirect", "The policy host redirects, which senders do not follow (RFC 8461 section 3.3).", "Serve the file itself at this address."},
		mtasts.StageStatus:      {"policy-http-status", "There is no policy file at the address that RFC 8461 gives it.", "Serve the file at this address with status 200."},
		mtasts.StageMediaType:   {"policy-media-type", "The policy file is not sent as text/plain.", "Configure the media type of .txt files on the web server."},
		mtasts.StageEncoding:    {"policy-encoding", "The policy file is sent compressed although that was not requested.", "Turn compression off for this file."},
		mtasts.StageSize:        {"policy-too-large", "The policy file is larger than senders read.", "Shorten it: a policy has a few lines."},
	}
}

func (f *Facts) judgeFetchError() audit.Finding {
	e := f.FetchErr
	seen := oneLine(e.Reason)
	if x := f.Exchange; x != nil && x.URL != "" {
		seen = x.URL + ": " + seen
	}
	if e.Stage == mtasts.StageDNS {
		failed, ok := errors.AsType[*dnsclient.Error](e.Err)
		if !ok {
			return audit.Failed("policy-host-missing", "", "The record announces a policy, but its host does not exist or has no address.", seen,
				"Publish an address of the web server at mta-sts."+f.Domain+", or remove the record.", "")
		}
		out := f.dnsFailure("the policy host mta-sts."+f.Domain, "senders get no policy", failed)
		out.Code = "policy-host-lookup-failed"
		return out
	}
	if e.Stage == mtasts.StageCertificate {
		if c := f.Exchange.Certificate; c != nil {
			seen += fmt.Sprintf("; certificate for %s by %s, %s", list(c.Names), issuerText(c.Issuer), leftText(c.NotAfter, f.At))
		}
	}
	what := fetchFaults()[e.Stage]
	return audit.Failed(what.code, "", what.text, seen, what.advice, "")
}
