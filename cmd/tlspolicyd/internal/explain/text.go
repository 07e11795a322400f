package explain

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"tlspolicyd/internal/printable"
)

// What the text leaves out of a report; --json has more of it.
const (
	columns      = 98   // columns
	shownRecords = 8    // records shown of one kind
	shownReply   = 2000 // bytes of a reply
)

// WriteText writes the report for people: one block for each step, in the order
// in which one thing leads to the next.
func (r Report) WriteText(out io.Writer) error {
	t := new(page)
	fmt.Fprintf(&t.b, "== %s: %s\n\n", printable.Text(r.Key), subjectText(r))
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

func subjectText(r Report) string {
	switch {
	case r.NextHop == nil:
		return "nothing to look up"
	case r.NextHop.Literal:
		return fmt.Sprintf("the host %s itself, port %d", r.NextHop.Domain, r.NextHop.Port)
	}
	return fmt.Sprintf("mail domain %s, port %d", r.NextHop.Domain, r.NextHop.Port)
}

func (t *page) questions(list []Question, r Resolver) {
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

func (t *page) question(q Question, width int, withServer bool) {
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
	for _, record := range q.Records[:min(len(q.Records), shownRecords)] {
		t.line(indent, "%s", cut(record, columns-indent))
	}
	if more := q.RecordCount - min(len(q.Records), shownRecords); more > 0 {
		t.line(indent, "and %d more", more)
	}
}

func (t *page) record(r *Record) {
	t.line(0, "MTA-STS record")
	t.field(2, "name", r.Name)
	for _, text := range r.Texts[:min(len(r.Texts), shownRecords)] {
		t.field(2, "TXT", cut(`"`+text+`"`, 2*columns))
	}
	if more := r.Count - min(len(r.Texts), shownRecords); more > 0 {
		t.field(2, "", fmt.Sprintf("and %d more", more))
	}
	switch r.Verdict {
	case "valid":
		t.field(2, "verdict", "valid, id "+r.ID)
	case "failed":
		t.field(2, "verdict", "unknown: "+r.Error)
	default:
		t.field(2, "verdict", r.Verdict+": "+r.Error)
	}
	t.line(0, "")
}

func (t *page) fetch(f *Fetch) {
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

func (t *page) certificate(c *Certificate) {
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

func (t *page) policy(p *Policy) {
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
		t.line(2, "%s%4d  %s", mark, l.Number, cut(l.Text, columns-9))
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

func (t *page) linesLeftOut(from, to int) {
	if from <= to {
		t.line(9, "(lines %d to %d left out)", from, to)
	}
}

func (t *page) dane(d *DANE) {
	t.line(0, "Mail hosts and DANE")
	t.field(2, "MX answer", map[string]string{
		"not-asked": "not looked up: the key names the host",
		"failed":    "the lookup failed",
		"no-domain": "the domain does not exist",
		"null":      "null MX: the domain accepts no mail (RFC 7505)",
		"secure":    "secure",
		"insecure":  "not secure (no AD)",
	}[d.MX])
	for _, h := range d.Hosts {
		t.host(h, d.MX)
	}
	if d.HostsOmitted > 0 {
		t.field(2, "", fmt.Sprintf("and %d more, which were not looked up", d.HostsOmitted))
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

func (t *page) host(h Host, mx string) {
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
		shown := h.Addresses[:min(len(h.Addresses), shownRecords)]
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

func verdictText(h Host) string {
	switch h.Verdict {
	case "no-address":
		return "has no address: not counted"
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

func (t *page) answer(r Report) {
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
	t.field(2, "postfix", cut(r.Replies.Postfix, shownReply))
	t.field(2, "postfix-tlsrpt", cut(r.Replies.TLSRPT, shownReply))
	t.field(2, "took", fmt.Sprintf("%.1f ms", r.TookMS))
	t.line(0, "")
}

// stsText is the mode in force, or why there is none.
func stsText(r Report) string {
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

// page collects lines.
type page struct{ b strings.Builder }

// line writes one line. What was not escaped before is escaped here.
func (t *page) line(indent int, format string, args ...any) {
	text := strings.TrimRight(printable.Clean(fmt.Sprintf(format, args...)), " ")
	if text != "" {
		t.b.WriteString(strings.Repeat(" ", indent))
		t.b.WriteString(text)
	}
	t.b.WriteByte('\n')
}

// field writes a name and its value, which goes on in the same column when it
// is too long for one line.
func (t *page) field(indent int, name, value string) {
	const column = 18
	head := fmt.Sprintf("%-*s", column-indent, name)
	for _, part := range wrapped(value, columns-column) {
		t.line(indent, "%s%s", head, part)
		head = strings.Repeat(" ", column-indent)
	}
}

// note writes a text over as many lines as it needs.
func (t *page) note(indent int, text string) {
	for _, part := range wrapped(text, columns-indent) {
		t.line(indent, "%s", part)
	}
}

// wrapped breaks a text at spaces; a word that is too long stays whole.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), word
			continue
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// cut shortens a text of ASCII.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// distinct returns the different non-empty strings in a list.
func distinct(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}
