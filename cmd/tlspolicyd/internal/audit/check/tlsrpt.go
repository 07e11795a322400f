package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strings"

	"github.com/miekg/dns"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dnsclient"
)

var (
	errNoTLSRPT    = errors.New("no TLSRPT record")
	errManyTLSRPTs = errors.New("more than one TLSRPT record")
)

// TLSRPT is the TXT records at _smtp._tls.DOMAIN.
type TLSRPT struct {
	Asked        bool
	Texts        [][]byte
	Alias        string // the name it was found at, if another
	Destinations []string
	Err          error // why there is no valid record
	Failed       bool  // the lookup itself failed
}

func lookupTLSRPT(ctx context.Context, r dnsclient.Resolver, domain string) TLSRPT {
	out := TLSRPT{Asked: true}
	name := "_smtp._tls." + domain
	if !dnsclient.Askable(name) {
		out.Err = errNoTLSRPT
		return out
	}
	answer, err := r.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		out.Err, out.Failed = err, true
		return out
	}
	if len(answer.Chain) > 0 {
		out.Alias = strings.TrimSuffix(answer.Final, ".")
	}
	for _, rr := range answer.Records {
		if txt, ok := rr.(*dns.TXT); ok {
			out.Texts = append(out.Texts, dnsclient.TXT(txt))
		}
	}
	out.Destinations, out.Err = ParseTLSRPT(out.Texts)
	return out
}

// ParseTLSRPT finds the one TLSRPT record among the TXT records at
// "_smtp._tls.DOMAIN" and returns where reports go (8460 §3). Its error is one
// printable line.
func ParseTLSRPT(texts [][]byte) (destinations []string, err error) {
	const version, blanks = "v=TLSRPTv1", " \t"
	var fields []byte
	found := 0
	for _, text := range texts {
		rest, ok := bytes.CutPrefix(text, []byte(version))
		if !ok {
			continue
		}
		if rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, blanks), []byte(";")); ok {
			fields = rest
			found++
		}
	}
	switch {
	case found > 1:
		return nil, fmt.Errorf("%w: %d TXT records begin with %s;", errManyTLSRPTs, found, version)
	case found == 0 && len(texts) > 0:
		return nil, fmt.Errorf("%w: no TXT record (of %d) begins with %s;", errNoTLSRPT, len(texts), version)
	case found == 0:
		return nil, errNoTLSRPT
	}
	for field := range bytes.SplitSeq(fields, []byte(";")) {
		field = bytes.Trim(field, blanks)
		name, value, ok := bytes.Cut(field, []byte("="))
		switch {
		case len(field) == 0: // after the last delimiter; harmless elsewhere
		case !ok:
			return nil, fmt.Errorf("field %q: want name=value", oneLine(field))
		case string(name) == "rua" && destinations == nil:
			if destinations, err = parseRUA(string(value)); err != nil {
				return nil, err
			}
		}
	}
	if destinations == nil {
		return nil, errors.New("no rua field: it names no destination")
	}
	return destinations, nil
}

// parseRUA reads tlsrpt-uri *(*WSP "," *WSP tlsrpt-uri). Reports go to mailto:
// and https: (8460 §3).
func parseRUA(value string) (list []string, err error) {
	for uri := range strings.SplitSeq(value, ",") {
		uri = strings.Trim(uri, " \t")
		if fault := uriFault(uri); fault != "" {
			return nil, fmt.Errorf("rua %q: %s", oneLine(uri), fault)
		}
		list = append(list, oneLine(uri))
	}
	return list, nil
}

func uriFault(uri string) string {
	if strings.Contains(uri, "!") {
		return "an exclamation mark must be written as %21"
	}
	u, err := url.Parse(uri)
	if err != nil {
		return "not a URI"
	}
	switch strings.ToLower(u.Scheme) {
	case "mailto":
		to, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return "not a mail address"
		}
		if a, err := mail.ParseAddress(to); err != nil || a.Address != to {
			return "not a mail address"
		}
		return ""
	case "https":
		if u.Host == "" {
			return "no host"
		}
		return ""
	case "":
		return "want mailto: or https: in front"
	}
	return "want mailto: or https:"
}

// word is its name in reports.
func (t TLSRPT) word() string {
	switch {
	case !t.Asked || t.Failed:
		return "unknown"
	case t.Err == nil:
		return "valid"
	case errors.Is(t.Err, errNoTLSRPT) && len(t.Texts) == 0:
		return "absent"
	}
	return "invalid"
}

// judgeTLSRPT judges the TLSRPT record (RFC 8460 §3). Mail does not depend on it,
// so nothing here is worse than a warning.
func judgeTLSRPT(f *Facts) []audit.Finding {
	if f.noMail() {
		return nil
	}
	t := f.TLSRPT
	seen := texts(t.Texts)
	right := "_smtp._tls." + f.Domain + `. TXT "v=TLSRPTv1; rua=mailto:tls-reports@` + f.Domain + `"`
	var out audit.Finding
	switch {
	case t.Err == nil:
		if t.Alias != "" {
			seen += "; found at " + oneLine(t.Alias)
		}
		out = audit.Passed("tlsrpt-ok", "", "One valid TLSRPT record; reports go to "+list(t.Destinations)+".", seen)
	case t.Failed:
		out = f.dnsFailure("the TLSRPT record", "senders send no reports", t.Err)
		out.Code = "tlsrpt-lookup-failed"
		if out.Grade == audit.Fail {
			out.Grade = audit.Warn
		}
	case errors.Is(t.Err, errNoTLSRPT) && len(t.Texts) == 0:
		out = audit.Warned("tlsrpt-missing", "", "There is no TLSRPT record: senders do not report that mail to the domain fails because of TLS.",
			"no TXT record at _smtp._tls."+f.Domain, "Publish one:", right)
	case errors.Is(t.Err, errManyTLSRPTs):
		out = audit.Warned("tlsrpt-multiple", "", "There is more than one TLSRPT record, so senders send no reports.", seen,
			"Keep one; it may name several destinations, with commas between them.", "")
	default:
		out = audit.Warned("tlsrpt-invalid", "", sentence("senders send no reports: "+t.Err.Error()), seen, "Replace it with:", right)
	}
	return []audit.Finding{out}
}
