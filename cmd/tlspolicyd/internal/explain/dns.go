package explain

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/printable"
)

type Question struct {
	Name        string   `json:"name"`
	Type        string   `json:"type"`
	Rcode       string   `json:"rcode"`
	AD          bool     `json:"ad"`
	TTLSeconds  int64    `json:"ttl_seconds"`
	Aliases     []string `json:"aliases"`
	Records     []string `json:"records"`
	RecordCount int      `json:"record_count"`
	Server      string   `json:"server"`
	TookMS      float64  `json:"took_ms"`
	Failure     string   `json:"failure"`
	Error       string   `json:"error"`
}

// questions puts the lookups into the order in which they matter. That
// in which they were asked says little and is another one each time: most of
// them run side by side.
func questions(lookups []dnsclient.Recorded, domain string, hosts []dane.Host) []Question {
	places := make(map[string]int, 2*len(hosts))
	for i := range slices.Backward(hosts) {
		for _, name := range []string{hosts[i].Base, hosts[i].Name} {
			if name != "" {
				places[name] = i
			}
		}
	}
	lookups = slices.Clone(lookups)
	slices.SortStableFunc(lookups, func(a, b dnsclient.Recorded) int {
		x, y := questionPlace(a, domain, places), questionPlace(b, domain, places)
		return cmp.Or(slices.Compare(x[:], y[:]), strings.Compare(a.Name, b.Name), a.Start.Compare(b.Start))
	})
	list := make([]Question, 0, len(lookups))
	for _, l := range lookups {
		list = append(list, newQuestion(l))
	}
	return list
}

// questionPlace is the place of a question: MX, then each mail host with its
// addresses, aliases and TLSA records, the policy record, the policy host.
func questionPlace(l dnsclient.Recorded, domain string, places map[string]int) [3]int {
	name := trimmed(strings.ToLower(l.Name))
	switch l.Type {
	case dns.TypeMX:
		return [3]int{0}
	case dns.TypeTXT:
		return [3]int{2}
	case dns.TypeTLSA: // _PORT._tcp.HOST
		if parts := strings.SplitN(name, ".", 3); len(parts) == 3 {
			name = parts[2]
		}
	}
	host, known := places[name]
	switch {
	case known:
	case name == "mta-sts."+domain:
		return [3]int{3, 0, typePlace(l.Type)}
	default:
		host = len(places)
	}
	return [3]int{1, host, typePlace(l.Type)}
}

func typePlace(qtype uint16) int {
	return slices.Index([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeTLSA}, qtype)
}

func newQuestion(l dnsclient.Recorded) Question {
	q := Question{
		Name: printable.Clean(trimmed(l.Name)), Type: dns.TypeToString[l.Type],
		Aliases: []string{}, Records: []string{}, TookMS: milliseconds(l.Duration),
	}
	if l.Err != nil {
		q.Failure, q.Error = "network", errorText(l.Err)
		if e, ok := errors.AsType[*dnsclient.Error](l.Err); ok {
			q.Failure = failureWord(e.Kind)
			if e.Kind == dnsclient.ServFail || e.Kind == dnsclient.Refused {
				q.Rcode = dns.RcodeToString[e.Rcode]
			}
			if e.Server.IsValid() {
				q.Server = e.Server.String()
			}
		}
		return q
	}
	a := l.Answer
	q.Rcode, q.AD, q.TTLSeconds = dns.RcodeToString[a.Rcode], a.Authentic, int64(a.TTL/time.Second)
	q.Server = a.Server.String()
	for _, link := range a.Chain {
		q.Aliases = append(q.Aliases, printable.Clean(trimmed(link.To)))
	}
	q.RecordCount = len(a.Records)
	records := slices.Clone(a.Records)
	slices.SortFunc(records, compareRecords)
	for _, rr := range records[:min(len(records), maxItems)] {
		q.Records = append(q.Records, recordText(rr))
	}
	return q
}

// compareRecords orders a record set, which resolvers rotate: MX records by
// preference, others by their text.
func compareRecords(a, b dns.RR) int {
	x, ok := a.(*dns.MX)
	y, also := b.(*dns.MX)
	if ok && also && x.Preference != y.Preference {
		return cmp.Compare(x.Preference, y.Preference)
	}
	return strings.Compare(a.String(), b.String())
}

func failureWord(k dnsclient.Kind) string {
	switch k {
	case dnsclient.Timeout:
		return "timeout"
	case dnsclient.ServFail:
		return "servfail"
	case dnsclient.Refused:
		return "refused"
	case dnsclient.Malformed:
		return "malformed"
	case dnsclient.Canceled:
		return "canceled"
	}
	return "network"
}

// recordText is a record's data as in a zone file. TXT strings are joined.
func recordText(rr dns.RR) string {
	if txt, ok := rr.(*dns.TXT); ok {
		return `"` + escaped(dnsclient.TXT(txt), maxText) + `"`
	}
	text := strings.TrimPrefix(rr.String(), rr.Header().String())
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return printable.Clean(text)
}
