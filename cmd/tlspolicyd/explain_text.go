package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// What the text leaves out of a report; --json has more of it.
const (
	explainWidth       = 98   // columns
	explainTextRecords = 8    // records shown of one kind
	explainTextReply   = 2000 // bytes of a reply
)

// writeExplanation writes a report for people: one block for each step, in the
// order in which one thing leads to the next.
func writeExplanation(out io.Writer, r explainReport) error {
	t := new(explainText)
	t.line(0, "== %s: %s", visible(r.Key), subjectText(r))
	t.line(0, "")
	if r.LookedUp {
		t.questions(r.DNS, r.Resolver)
		t.record(r.Record)
		t.fetch(r.Fetch)
		t.policy(r.Policy)
		t.dane(r.DANE)
	}
	t.answer(r)
	_, err := io.WriteString(out, t.b.String())
	return err
}

func subjectText(r explainReport) string {
	switch {
	case r.NextHop == nil:
		return "nothing to look up"
	case r.NextHop.Literal:
		return fmt.Sprintf("the host %s itself, port %d", r.NextHop.Domain, r.NextHop.Port)
	}
	return fmt.Sprintf("mail domain %s, port %d", r.NextHop.Domain, r.NextHop.Port)
}

func (t *explainText) questions(list []explainQuestion, r explainResolver) {
	t.line(0, "DNS")
	t.field(2, "resolver", strings.Join(r.Servers, ", "))
	if r.ADCounts {
		t.field(2, "AD bits", "count: the path to the resolver is trusted")
	} else {
		t.field(2, "AD bits", "DO NOT COUNT, so DANE is never the answer: a resolver is not on loopback, and its AD bits "+
			"could be forged on the way (RFC 7672 section 2.1.3). Run a validating resolver on this host and "+
			"name it in dns.servers, or set dns.trust_ad=true if the path to it is safe.")
	}
	name, servers := 0, make([]string, 0, len(list))
	for _, q := range list {
		name = max(name, len(q.Name))
		servers = append(servers, q.Server)
	}
	name = min(max(name, 20), 46)
	severalServers := len(distinct(servers)) > 1
	t.line(0, "")
	t.line(2, "%-5s %-*s  %-8s  %-3s  %7s  %10s", "type", name, "question", "answer", "AD", "TTL", "time")
	for _, q := range list {
		t.question(q, name, severalServers)
	}
	t.line(0, "")
}

func (t *explainText) question(q explainQuestion, width int, withServer bool) {
	answer, ad, ttl := q.Rcode, "no", fmt.Sprintf("%d s", q.TTLSeconds)
	if q.AD {
		ad = "yes"
	}
	if q.Failure != "" {
		ad, ttl = "-", "-"
	}
	if answer == "" {
		answer = q.Failure
	}
	t.line(2, "%-5s %-*s  %-8s  %-3s  %7s  %7.1f ms", q.Type, width, q.Name, answer, ad, ttl, q.TookMS)
	const indent = 8
	if withServer && q.Server != "" {
		t.line(indent, "from %s", q.Server)
	}
	switch q.Failure {
	case "":
	case "canceled":
		t.line(indent, "no longer waited for")
	default:
		t.note(indent, q.Error)
	}
	for _, alias := range q.Aliases {
		t.line(indent, "alias of %s", alias)
	}
	for _, record := range q.Records[:min(len(q.Records), explainTextRecords)] {
		t.line(indent, "%s", cut(record, explainWidth-indent))
	}
	if more := q.RecordCount - min(len(q.Records), explainTextRecords); more > 0 {
		t.line(indent, "and %d more", more)
	}
}

func (t *explainText) record(r *explainRecord) {
	t.line(0, "MTA-STS record")
	t.field(2, "name", r.Name)
	for _, text := range r.Texts[:min(len(r.Texts), explainTextRecords)] {
		t.field(2, "TXT", cut(`"`+text+`"`, 2*explainWidth))
	}
	if more := r.Count - min(len(r.Texts), explainTextRecords); more > 0 {
		t.field(2, "", fmt.Sprintf("and %d more", more))
	}
	switch r.Verdict {
	case "valid":
		t.field(2, "verdict", "valid, id "+r.ID)
	case "failed":
		t.field(2, "verdict", "could not be told: "+r.Error)
	default:
		t.field(2, "verdict", r.Verdict+": "+r.Error)
	}
	t.line(0, "")
}

func (t *explainText) fetch(f *explainFetch) {
	t.line(0, "Policy host")
	if f == nil {
		t.line(2, "not asked: without a valid MTA-STS record there is no policy to fetch (RFC 8461 section 3.3)")
		t.line(0, "")
		return
	}
	t.field(2, "URL", f.URL)
	for i, a := range f.Addresses {
		name := ""
		if i == 0 {
			name = "addresses"
		}
		text := a.Address + "  " + a.Outcome
		if a.Reason != "" {
			text += ": " + a.Reason
		}
		t.field(2, name, text)
	}
	if f.Proxy != "" {
		t.field(2, "proxy", f.Proxy)
	}
	if f.TLSVersion != "" {
		t.field(2, "TLS", f.TLSVersion+", "+f.CipherSuite)
	}
	t.certificate(f.Certificate)
	if f.Status != 0 {
		t.field(2, "response", fmt.Sprintf("status %d, media type %s, %d bytes", f.Status, orNone(f.MediaType), f.Size))
	}
	if f.Location != "" {
		t.field(2, "location", f.Location)
	}
	t.field(2, "time", fmt.Sprintf("%.1f ms: addresses %.1f, connection %.1f, TLS %.1f, response %.1f",
		f.TookMS, f.DNSMS, f.ConnectMS, f.TLSMS, f.ResponseMS))
	switch f.FailedAt {
	case "", "policy":
		t.field(2, "verdict", "policy file received")
	default:
		t.field(2, "verdict", fmt.Sprintf("FAILED (%s): %s", f.FailedAt, f.Error))
	}
	t.line(0, "")
}

func (t *explainText) certificate(c *explainCertificate) {
	if c == nil {
		return
	}
	t.field(2, "certificate", "for "+orNone(strings.Join(c.Names, " ")))
	t.field(2, "", "issued by "+orNone(c.Issuer))
	switch {
	case c.DaysLeft < 0:
		t.field(2, "", fmt.Sprintf("EXPIRED at %s", c.NotAfter.Format(time.RFC3339)))
	default:
		t.field(2, "", fmt.Sprintf("from %s to %s (%d days left)",
			c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.RFC3339), c.DaysLeft))
	}
}

func (t *explainText) policy(p *explainPolicy) {
	if p == nil {
		return
	}
	t.line(0, "Policy file")
	last := 0
	for _, l := range p.Lines {
		t.linesLeftOut(last+1, l.Number-1)
		mark := " "
		if l.Number == p.ErrorLine {
			mark = ">"
		}
		t.line(2, "%s%4d  %s", mark, l.Number, cut(l.Text, explainWidth-9))
		if l.Number == p.ErrorLine {
			t.note(9, "^ "+p.Error)
		}
		last = l.Number
	}
	t.linesLeftOut(last+1, p.LineCount)
	switch {
	case p.Valid:
		t.field(2, "verdict", fmt.Sprintf("valid: mode %s, max_age %s", p.Mode, maxAgeText(p.MaxAgeSeconds)))
	case p.ErrorLine > 0:
		t.field(2, "verdict", fmt.Sprintf("INVALID: line %d: %s", p.ErrorLine, p.Error))
	default:
		t.field(2, "verdict", "INVALID: "+p.Error)
	}
	t.line(0, "")
}

func maxAgeText(seconds int64) string {
	const day = 24 * 60 * 60
	switch {
	case seconds == 0:
		return "0 s: used once, not kept"
	case seconds < 2*day:
		return fmt.Sprintf("%d s", seconds)
	}
	return fmt.Sprintf("%d s (%d days)", seconds, seconds/day)
}

func (t *explainText) linesLeftOut(from, to int) {
	if from <= to {
		t.line(9, "(lines %d to %d left out)", from, to)
	}
}

func (t *explainText) dane(d *explainDANE) {
	t.line(0, "Mail hosts and DANE")
	t.field(2, "MX answer", map[string]string{
		"not-asked": "not asked for: the key names the host",
		"failed":    "could not be had",
		"no-domain": "the domain does not exist",
		"null":      "null MX: the domain takes no mail (RFC 7505)",
		"secure":    "secure",
		"insecure":  "not secure (no AD)",
	}[d.MX])
	for _, h := range d.Hosts {
		t.host(h, d.MX)
	}
	if d.HostsOmitted > 0 {
		t.field(2, "", fmt.Sprintf("and %d more, which were not looked at", d.HostsOmitted))
	}
	t.field(2, "DANE state", d.State+": "+map[string]string{
		"full":        "every mail host that has an address is secure and has a usable TLSA record",
		"partial":     "some mail hosts have secure TLSA records, but not all have a usable one",
		"insecure-mx": "some mail hosts have secure TLSA records, but the MX answer is not secure",
		"none":        "no mail host has a secure TLSA record",
		"unknown":     "a lookup that matters failed",
	}[d.State])
	if d.Error != "" {
		t.field(2, "first failure", d.Error)
	}
	t.line(0, "")
}

func (t *explainText) host(h explainHost, mx string) {
	head := fmt.Sprintf("host, MX %d", h.Preference)
	switch {
	case mx == "not-asked":
		head = "host"
	case h.Implicit:
		head = "host, no MX"
	}
	t.field(2, head, h.Name)
	if len(h.Addresses) > 0 {
		security := "not secure"
		if h.Secure {
			security = "secure"
		}
		shown := h.Addresses[:min(len(h.Addresses), explainTextRecords)]
		text := strings.Join(shown, " ")
		if more := len(h.Addresses) - len(shown); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		t.field(4, "addresses", text+" ("+security+")")
	}
	if h.TLSABase != "" {
		t.field(4, "TLSA base", h.TLSABase)
	}
	for _, r := range h.TLSA {
		data := r.Data
		if len(data) > 32 {
			data = fmt.Sprintf("%s... (%d bytes)", data[:32], r.DataSize)
		}
		verdict := "usable"
		if !r.Usable {
			verdict = "NOT USABLE: " + r.Reason
		} else if r.Reason != "" {
			verdict += ", but " + r.Reason
		}
		t.field(4, "TLSA", fmt.Sprintf("%d %d %d %s  %s", r.Usage, r.Selector, r.MatchingType, data, verdict))
	}
	if more := h.TLSACount - len(h.TLSA); more > 0 {
		t.field(4, "", fmt.Sprintf("and %d more", more))
	}
	t.field(4, "verdict", verdictText(h))
}

func verdictText(h explainHost) string {
	switch h.Verdict {
	case "no-address":
		return "has no address: takes no part"
	case "insecure":
		return "addresses are not secure: no TLSA lookup (RFC 7672 section 2.2.2)"
	case "no-tlsa":
		return "no secure TLSA record"
	case "unusable":
		return "TLSA records, none of them usable"
	case "partly-insecure":
		return "TLSA usable, but not at every address: some are not secure (RFC 7672 section 2.2.2)"
	case "usable":
		return "TLSA usable"
	}
	return "FAILED: " + h.Error
}

func (t *explainText) answer(r explainReport) {
	t.line(0, "Answer")
	if r.Override != nil {
		t.field(2, "override", *r.Override)
	}
	if r.LookedUp {
		t.field(2, "DANE", r.DANE.State)
		t.field(2, "MTA-STS", stsText(r))
	}
	t.field(2, "row", r.Decision.Row)
	t.field(2, "why", r.Decision.Why)
	if r.Decision.Reason != "" {
		t.field(2, "failing step", r.Decision.Reason)
	}
	t.field(2, "postfix", cut(r.Replies.Postfix, explainTextReply))
	t.field(2, "postfix-tlsrpt", cut(r.Replies.TLSRPT, explainTextReply))
	t.field(2, "took", fmt.Sprintf("%.1f ms", r.TookMS))
	t.line(0, "")
}

// stsText is the mode in force, or why there is none.
func stsText(r explainReport) string {
	switch {
	case r.Policy != nil && r.Policy.Valid:
		return r.Decision.MTASTS
	case r.Policy != nil:
		return r.Decision.MTASTS + ": the policy file is invalid"
	case r.Fetch != nil:
		return fmt.Sprintf("%s: the policy file could not be fetched (%s)", r.Decision.MTASTS, r.Fetch.FailedAt)
	case r.Record.Verdict == "failed":
		return r.Decision.MTASTS + ": the record could not be looked up"
	}
	return r.Decision.MTASTS + ": no valid record"
}
