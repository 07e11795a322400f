package explain

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/printable"
)

// The types below are what `explain --json` prints, and what the text is made
// of. docs/explain.md documents every field: they may be added to, but none may
// change its name or meaning. Untrusted text in them is escaped to printable
// ASCII and of bounded length.

// Report is what is shown of an Explanation.
type Report struct {
	Key      string   `json:"key"`
	NextHop  *NextHop `json:"next_hop"`
	LookedUp bool     `json:"looked_up"`
	Override *string  `json:"override"`
	Resolver Resolver `json:"resolver"`

	DNS    []Question `json:"dns"`
	Record *Record    `json:"record"`
	Fetch  *Fetch     `json:"fetch"`
	Policy *Policy    `json:"policy"`
	DANE   *DANE      `json:"dane"`

	Decision Decision `json:"decision"`
	Replies  Replies  `json:"replies"`
	TookMS   float64  `json:"took_ms"`
}

type NextHop struct {
	Domain  string `json:"domain"`
	Literal bool   `json:"literal"`
	Port    uint16 `json:"port"`
}

type Resolver struct {
	Servers  []string `json:"servers"`
	ADCounts bool     `json:"ad_counts"`
}

type Record struct {
	Name    string   `json:"name"`
	Texts   []string `json:"texts"`
	Count   int      `json:"count"`
	Verdict string   `json:"verdict"`
	ID      string   `json:"id"`
	Error   string   `json:"error"`
}

type Fetch struct {
	URL         string       `json:"url"`
	Proxy       string       `json:"proxy"`
	Addresses   []Address    `json:"addresses"`
	Connected   string       `json:"connected"`
	TLSVersion  string       `json:"tls_version"`
	CipherSuite string       `json:"cipher_suite"`
	Certificate *Certificate `json:"certificate"`
	Status      int          `json:"status"`
	Location    string       `json:"location"`
	MediaType   string       `json:"media_type"`
	Size        int          `json:"size"`
	DNSMS       float64      `json:"dns_ms"`
	ConnectMS   float64      `json:"connect_ms"`
	TLSMS       float64      `json:"tls_ms"`
	ResponseMS  float64      `json:"response_ms"`
	TookMS      float64      `json:"took_ms"`
	FailedAt    string       `json:"failed_at"`
	Error       string       `json:"error"`
}

type Address struct {
	Address string `json:"address"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

type Certificate struct {
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
}

type Policy struct {
	Valid         bool     `json:"valid"`
	Mode          string   `json:"mode"`
	MaxAgeSeconds int64    `json:"max_age_seconds"`
	MX            []string `json:"mx"`
	MXCount       int      `json:"mx_count"`
	Lines         []Line   `json:"lines"`
	LineCount     int      `json:"line_count"`
	ErrorLine     int      `json:"error_line"`
	Error         string   `json:"error"`
}

type Line struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

type DANE struct {
	State        string `json:"state"`
	MX           string `json:"mx"`
	TTLSeconds   int64  `json:"ttl_seconds"`
	Hosts        []Host `json:"hosts"`
	HostsOmitted int    `json:"hosts_omitted"`
	Error        string `json:"error"`
}

type Host struct {
	Name       string   `json:"name"`
	Preference uint16   `json:"preference"`
	Implicit   bool     `json:"implicit"`
	Addresses  []string `json:"addresses"`
	Secure     bool     `json:"secure"`
	Verdict    string   `json:"verdict"`
	TLSABase   string   `json:"tlsa_base"`
	TLSA       []TLSA   `json:"tlsa"`
	TLSACount  int      `json:"tlsa_count"`
	Error      string   `json:"error"`
}

type TLSA struct {
	Usage        uint8  `json:"usage"`
	Selector     uint8  `json:"selector"`
	MatchingType uint8  `json:"matching_type"`
	Data         string `json:"data"`
	DataSize     int    `json:"data_size"`
	Usable       bool   `json:"usable"`
	Reason       string `json:"reason"`
}

type Decision struct {
	Row    string `json:"row"`
	Level  string `json:"level"`
	MTASTS string `json:"mta_sts"`
	Why    string `json:"why"`
	Reason string `json:"reason"`
}

type Replies struct {
	Postfix string `json:"postfix"`
	TLSRPT  string `json:"postfix_tlsrpt"`
}

// What of a list, and of a text, is shown at most.
const (
	maxItems = 20  // records of one kind
	maxLines = 30  // lines of a policy file, beside those around the one at fault
	maxText  = 200 // bytes of a record or a line
	maxData  = 64  // bytes of TLSA data: a SHA2-512 digest
)

func newReport(e Explanation, servers []netip.AddrPort, trusted bool, now time.Time) Report {
	r := Report{
		Key: e.Key, LookedUp: e.LookedUp,
		Resolver: Resolver{Servers: []string{}, ADCounts: trusted},
		DNS:      []Question{},
		Decision: Decision{
			Row: string(e.Decision.Row), Level: e.Decision.Level.String(), MTASTS: e.STS.String(),
			Why: printable.Clean(e.Decision.Why), Reason: printable.Clean(e.Decision.Reason),
		},
		Replies: Replies{Postfix: e.Postfix, TLSRPT: e.TLSRPT},
		TookMS:  milliseconds(e.Took),
	}
	for _, s := range servers {
		r.Resolver.Servers = append(r.Resolver.Servers, s.String())
	}
	if e.NextHop.Domain != "" {
		r.NextHop = &NextHop{e.NextHop.Domain, e.NextHop.Literal, e.NextHop.Port}
	}
	if e.Override != "" {
		r.Override = &e.Override
	}
	if !e.LookedUp {
		return r
	}
	r.DNS = questions(e.DNS, e.NextHop.Domain, e.DANE.Hosts)
	r.Record = newRecord("_mta-sts."+e.NextHop.Domain, e.Record)
	r.Fetch = newFetch(e.Exchange, e.FetchErr, now)
	r.Policy = newPolicy(e.Exchange, e.Policy, e.FetchErr)
	r.DANE = newDANE(e.DANE, e.NextHop.Literal)
	return r
}

// WriteJSON writes the report as one line of ASCII.
func (r Report) WriteJSON(out io.Writer) error {
	e := json.NewEncoder(printable.JSON(out))
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

func newRecord(name string, res mtasts.RecordResult) *Record {
	r := &Record{Name: name, Texts: []string{}, Count: len(res.Texts), ID: res.Record.ID, Error: errorText(res.Err)}
	for _, text := range res.Texts[:min(len(res.Texts), maxItems)] {
		r.Texts = append(r.Texts, escaped(text, maxText))
	}
	switch {
	case res.Found:
		r.Verdict = "valid"
	case res.Failed:
		r.Verdict = "failed"
	case errors.Is(res.Err, mtasts.ErrNoRecord):
		r.Verdict = "absent"
	case errors.Is(res.Err, mtasts.ErrManyRecords):
		r.Verdict = "several"
	default:
		r.Verdict = "invalid"
	}
	return r
}

// newFetch shows the exchange with the policy host; nil when there
// was none.
func newFetch(x *mtasts.Exchange, err error, now time.Time) *Fetch {
	if x == nil {
		return nil
	}
	f := &Fetch{
		URL: x.URL, Proxy: x.Proxy, Addresses: []Address{},
		TLSVersion: x.TLSVersion, CipherSuite: x.CipherSuite,
		Status: x.Status, Location: printable.Clean(x.Location), MediaType: printable.Clean(x.MediaType), Size: x.Size,
		DNSMS: milliseconds(x.DNS), ConnectMS: milliseconds(x.Connect), TLSMS: milliseconds(x.TLS),
		ResponseMS: milliseconds(x.Response), TookMS: milliseconds(x.Total),
	}
	if x.Connected.IsValid() {
		f.Connected = x.Connected.String()
	}
	for _, a := range x.Addresses {
		line := Address{Address: a.Addr.String(), Outcome: "untried"}
		switch {
		case a.Addr == x.Connected.Addr():
			line.Outcome = "connected"
		case a.Refused != "":
			line.Outcome, line.Reason = "refused", printable.Clean(a.Refused)
		case a.Failed != "":
			line.Outcome, line.Reason = "failed", printable.Clean(a.Failed)
		}
		f.Addresses = append(f.Addresses, line)
	}
	if c := x.Certificate; c != nil {
		names := []string{}
		for _, name := range c.Names {
			names = append(names, printable.Clean(name))
		}
		f.Certificate = &Certificate{
			Names: names, Issuer: printable.Clean(c.Issuer),
			NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
			DaysLeft: int(math.Floor(c.NotAfter.Sub(now).Hours() / 24)),
		}
	}
	if fe, ok := errors.AsType[*mtasts.FetchError](err); ok {
		f.FailedAt, f.Error = string(fe.Stage), printable.Clean(fe.Reason)
	}
	return f
}

// newPolicy shows the policy file; nil when none was received whole.
func newPolicy(x *mtasts.Exchange, policy *mtasts.Policy, err error) *Policy {
	p := &Policy{MX: []string{}, Lines: []Line{}}
	if policy != nil {
		p.Valid, p.Mode, p.MaxAgeSeconds = true, string(policy.Mode), int64(policy.MaxAge/time.Second)
		p.MXCount = len(policy.MX)
		for _, mx := range policy.MX[:min(len(policy.MX), maxItems)] {
			p.MX = append(p.MX, printable.Clean(mx))
		}
	} else {
		fault, ok := errors.AsType[*mtasts.PolicyError](err)
		if !ok {
			return nil
		}
		p.ErrorLine, p.Error = fault.Line, printable.Clean(fault.Reason)
	}
	for line := range bytes.Lines(x.Body) {
		p.LineCount++
		if p.LineCount > maxLines && (p.ErrorLine == 0 || p.LineCount < p.ErrorLine-2 || p.LineCount > p.ErrorLine+2) {
			continue
		}
		if text, ended := bytes.CutSuffix(line, []byte("\n")); ended {
			line = bytes.TrimSuffix(text, []byte("\r"))
		}
		p.Lines = append(p.Lines, Line{p.LineCount, escaped(line, maxText)})
	}
	return p
}

func newDANE(res dane.Result, literal bool) *DANE {
	d := &DANE{
		State: res.State.String(), TTLSeconds: int64(res.TTL / time.Second),
		Hosts: []Host{}, HostsOmitted: res.MX.Omitted, Error: errorText(res.Err),
	}
	switch {
	case literal:
		d.MX = "not-asked"
	case res.MX.Answer == dane.MXFailed:
		d.MX = "failed"
	case res.MX.NoDomain:
		d.MX = "no-domain"
	case res.MX.Null:
		d.MX = "null"
	case res.MX.Answer.Secure():
		d.MX = "secure"
	default:
		d.MX = "insecure"
	}
	for _, h := range res.Hosts {
		host := Host{
			Name: printable.Clean(h.Name), Preference: h.Preference, Implicit: h.Implicit,
			Addresses: append([]string{}, h.Addresses...), Secure: h.Secure,
			Verdict: hostVerdict(h.Verdict), TLSABase: printable.Clean(h.Base),
			TLSA: []TLSA{}, TLSACount: len(h.TLSA), Error: errorText(h.Err),
		}
		for _, t := range h.TLSA[:min(len(h.TLSA), maxItems)] {
			reason := t.Unusable
			if t.DigestOfNothing() {
				reason = "a digest of no data: no certificate matches it"
			}
			host.TLSA = append(host.TLSA, TLSA{
				Usage: t.Usage, Selector: t.Selector, MatchingType: t.MatchingType,
				Data: hex.EncodeToString(t.Data[:min(len(t.Data), maxData)]), DataSize: len(t.Data),
				Usable: t.Unusable == "", Reason: printable.Clean(reason),
			})
		}
		d.Hosts = append(d.Hosts, host)
	}
	return d
}

func hostVerdict(v dane.Verdict) string {
	switch v {
	case dane.NoAddress:
		return "no-address"
	case dane.Insecure:
		return "insecure"
	case dane.NoTLSA:
		return "no-tlsa"
	case dane.Unusable:
		return "unusable"
	case dane.PartlyInsecure:
		return "partly-insecure"
	case dane.Usable:
		return "usable"
	}
	return "failed"
}
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// escaped returns untrusted text in printable ASCII, everything else escaped as
// in a Go string; a backslash is doubled.
func escaped[T ~string | ~[]byte](text T, limit int) string {
	more := ""
	if len(text) > limit {
		more = fmt.Sprintf("... (%d bytes)", len(text))
		text = text[:limit]
	}
	quoted := strconv.QuoteToASCII(string(text))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) + more
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return printable.Clean(err.Error())
}

// trimmed returns a name as people write it, without the final dot.
func trimmed(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}
