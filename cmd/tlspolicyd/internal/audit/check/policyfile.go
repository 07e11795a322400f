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

// The policy file and the way to it (RFC 8461 §3.2, §3.3).
const (
	// CodePolicyFetched: the file was fetched from its place over HTTPS.
	CodePolicyFetched = "policy-fetched"
	// CodePolicySlow: it took longer than many senders wait.
	CodePolicySlow = "policy-slow"
	// CodePolicyCertExpiring: the policy host's certificate ends soon.
	CodePolicyCertExpiring = "policy-certificate-expiring"
	// CodePolicyHostMissing: mta-sts.DOMAIN has no address.
	CodePolicyHostMissing = "policy-host-missing"
	// CodePolicyHostDNS: the lookup of its addresses failed.
	CodePolicyHostDNS = "policy-host-dns"
	// CodePolicyHostPrivate: it has only addresses that are not public.
	CodePolicyHostPrivate = "policy-host-private"
	// CodePolicyUnreachable: no TCP connection.
	CodePolicyUnreachable = "policy-unreachable"
	// CodePolicyTimeout: connected, but not done in time.
	CodePolicyTimeout = "policy-timeout"
	// CodePolicyTLS: no TLS session of version 1.2 or later.
	CodePolicyTLS = "policy-tls"
	// CodePolicyCertificate: the certificate is not valid for the policy host.
	CodePolicyCertificate = "policy-certificate"
	// CodePolicyHTTP: no complete HTTP response.
	CodePolicyHTTP = "policy-http"
	// CodePolicyRedirect: a redirect, which senders do not follow.
	CodePolicyRedirect = "policy-redirect"
	// CodePolicyStatus: another status than 200.
	CodePolicyStatus = "policy-status"
	// CodePolicyMediaType: not text/plain.
	CodePolicyMediaType = "policy-media-type"
	// CodePolicyEncoding: compressed although nobody asked for that.
	CodePolicyEncoding = "policy-encoding"
	// CodePolicySize: larger than senders read.
	CodePolicySize = "policy-size"

	// CodeLineOK: a valid line.
	CodeLineOK = "policy-line-ok"
	// CodeLineNoted: a valid line that may not do what its author thinks.
	CodeLineNoted = "policy-line-noted"
	// CodeLineInvalid: a line that makes the whole policy invalid.
	CodeLineInvalid = "policy-line-invalid"
	// CodeLineMissing: a required line is not there.
	CodeLineMissing = "policy-line-missing"
)

const (
	slowFetch     = 5 * time.Second // what sending servers wait for a policy, this daemon among them
	maxLinesShown = 30
)

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
	found = append(found, audit.Finding{Code: CodePolicyFetched, Grade: audit.OK, Text: "The policy file is at its place, over HTTPS with a good certificate.", Evidence: seen})
	if c != nil && endsSoon(c.NotBefore, c.NotAfter, f.At) {
		found = append(found, audit.Finding{
			Code: CodePolicyCertExpiring, Grade: audit.Warn, Text: "The certificate of the policy host ends soon; from then on senders learn no policy.",
			Evidence: leftText(c.NotAfter, f.At), Advice: "Renew it, and look why nothing has renewed it yet.",
		})
	}
	if x.Total > slowFetch {
		found = append(found, audit.Finding{
			Code: CodePolicySlow, Grade: audit.Warn, Text: "The policy host is slow: many senders wait no longer than 5 seconds before they deliver without the policy.",
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
		one := audit.Finding{Code: CodeLineOK, Grade: audit.OK, Subject: fmt.Sprintf("line %d", l.Number), Text: oneLine(l.Text)}
		switch {
		case l.Fault != "":
			one.Code, one.Grade, one.Evidence = CodeLineInvalid, audit.Fail, oneLine(l.Text)
			one.Text = sentence(l.Fault + ": the whole policy is invalid, and senders treat it as absent")
			one.Advice = "Mend the line, then publish a new id in the record."
		case l.Note != "":
			one.Code, one.Grade, one.Evidence, one.Text = CodeLineNoted, audit.Warn, oneLine(l.Text), sentence(l.Note)
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
		found = append(found, audit.Finding{Code: CodeLineOK, Grade: audit.OK, Subject: "more lines", Text: number(left, "more line") + ", not shown."})
	}
	if missing != "" && f.Policy == nil {
		found = append(found, audit.Finding{
			Code: CodeLineMissing, Grade: audit.Fail, Text: sentence("the file has " + missing + ", so it is no valid policy"),
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
		mtasts.StageAddress:     {CodePolicyHostPrivate, "The policy host has no public address, so senders cannot fetch the policy.", "Publish a public address for it."},
		mtasts.StageConnect:     {CodePolicyUnreachable, "The policy host takes no connection on port 443.", "Start its web server, or open the firewall."},
		mtasts.StageTimeout:     {CodePolicyTimeout, "The policy host does not answer in time.", "Look at its web server; many senders wait 5 seconds."},
		mtasts.StageTLS:         {CodePolicyTLS, "The policy host opens no TLS session of version 1.2 or later.", "Switch on TLS 1.2 and 1.3 on its web server."},
		mtasts.StageCertificate: {CodePolicyCertificate, "The certificate of the policy host is not valid for its name, so senders ignore the policy.", "Get a certificate for it from a public authority, and serve the whole chain."},
		mtasts.StageHTTP:        {CodePolicyHTTP, "The policy host gives no complete HTTP response.", "Look at its web server."},
		mtasts.StageRedirect:    {CodePolicyRedirect, "The policy host redirects, which senders do not follow (RFC 8461 section 3.3).", "Serve the file itself at this address."},
		mtasts.StageStatus:      {CodePolicyStatus, "There is no policy file at its place.", "Serve the file at this address with status 200."},
		mtasts.StageMediaType:   {CodePolicyMediaType, "The policy file is not sent as text/plain.", "Configure the media type of .txt files on the web server."},
		mtasts.StageEncoding:    {CodePolicyEncoding, "The policy file is sent compressed although nobody asked for that.", "Switch compression off for this file."},
		mtasts.StageSize:        {CodePolicySize, "The policy file is larger than senders read.", "Shorten it: a policy has a few lines."},
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
			out.Code = CodePolicyHostDNS
			return out
		}
		out.Code, out.Text = CodePolicyHostMissing, "The record announces a policy, but its host does not exist or has no address."
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
