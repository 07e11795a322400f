package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"net/netip"
	"time"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
)

// The types below are what `explain --json` prints, and what the text is made
// of. docs/explain.md documents every field: they may be added to, but none may
// change its name or meaning. Foreign text in them is escaped to printable
// ASCII and of bounded length.

type explainReport struct {
	Key      string          `json:"key"`
	NextHop  *explainNextHop `json:"next_hop"`
	LookedUp bool            `json:"looked_up"`
	Override *string         `json:"override"`
	Resolver explainResolver `json:"resolver"`

	DNS    []explainQuestion `json:"dns"`
	Record *explainRecord    `json:"record"`
	Fetch  *explainFetch     `json:"fetch"`
	Policy *explainPolicy    `json:"policy"`
	DANE   *explainDANE      `json:"dane"`

	Decision explainDecision `json:"decision"`
	Replies  explainReplies  `json:"replies"`
	TookMS   float64         `json:"took_ms"`
}

type explainNextHop struct {
	Domain  string `json:"domain"`
	Literal bool   `json:"literal"`
	Port    uint16 `json:"port"`
}

type explainResolver struct {
	Servers  []string `json:"servers"`
	ADCounts bool     `json:"ad_counts"`
}

type explainRecord struct {
	Name    string   `json:"name"`
	Texts   []string `json:"texts"`
	Count   int      `json:"count"`
	Verdict string   `json:"verdict"`
	ID      string   `json:"id"`
	Error   string   `json:"error"`
}

type explainFetch struct {
	URL         string              `json:"url"`
	Proxy       string              `json:"proxy"`
	Addresses   []explainAddress    `json:"addresses"`
	Connected   string              `json:"connected"`
	TLSVersion  string              `json:"tls_version"`
	CipherSuite string              `json:"cipher_suite"`
	Certificate *explainCertificate `json:"certificate"`
	Status      int                 `json:"status"`
	Location    string              `json:"location"`
	MediaType   string              `json:"media_type"`
	Size        int                 `json:"size"`
	DNSMS       float64             `json:"dns_ms"`
	ConnectMS   float64             `json:"connect_ms"`
	TLSMS       float64             `json:"tls_ms"`
	ResponseMS  float64             `json:"response_ms"`
	TookMS      float64             `json:"took_ms"`
	FailedAt    string              `json:"failed_at"`
	Error       string              `json:"error"`
}

type explainAddress struct {
	Address string `json:"address"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
}

type explainCertificate struct {
	Names     []string  `json:"names"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DaysLeft  int       `json:"days_left"`
}

type explainPolicy struct {
	Valid         bool          `json:"valid"`
	Mode          string        `json:"mode"`
	MaxAgeSeconds int64         `json:"max_age_seconds"`
	MX            []string      `json:"mx"`
	MXCount       int           `json:"mx_count"`
	Lines         []explainLine `json:"lines"`
	LineCount     int           `json:"line_count"`
	ErrorLine     int           `json:"error_line"`
	Error         string        `json:"error"`
}

type explainLine struct {
	Number int    `json:"number"`
	Text   string `json:"text"`
}

type explainDANE struct {
	State        string        `json:"state"`
	MX           string        `json:"mx"`
	TTLSeconds   int64         `json:"ttl_seconds"`
	Hosts        []explainHost `json:"hosts"`
	HostsOmitted int           `json:"hosts_omitted"`
	Error        string        `json:"error"`
}

type explainHost struct {
	Name       string        `json:"name"`
	Preference uint16        `json:"preference"`
	Implicit   bool          `json:"implicit"`
	Addresses  []string      `json:"addresses"`
	Secure     bool          `json:"secure"`
	Verdict    string        `json:"verdict"`
	TLSABase   string        `json:"tlsa_base"`
	TLSA       []explainTLSA `json:"tlsa"`
	TLSACount  int           `json:"tlsa_count"`
	Error      string        `json:"error"`
}

type explainTLSA struct {
	Usage        uint8  `json:"usage"`
	Selector     uint8  `json:"selector"`
	MatchingType uint8  `json:"matching_type"`
	Data         string `json:"data"`
	DataSize     int    `json:"data_size"`
	Usable       bool   `json:"usable"`
	Reason       string `json:"reason"`
}

type explainDecision struct {
	Row    string `json:"row"`
	Level  string `json:"level"`
	MTASTS string `json:"mta_sts"`
	Why    string `json:"why"`
	Reason string `json:"reason"`
}

type explainReplies struct {
	Postfix string `json:"postfix"`
	TLSRPT  string `json:"postfix_tlsrpt"`
}

// What of a list, and of a text, is shown at most.
const (
	explainItems     = 20  // records of one kind
	explainLines     = 30  // lines of a policy file, beside those around the one at fault
	explainTextBytes = 200 // bytes of a record or a line
	explainDataBytes = 64  // bytes of TLSA data: a SHA2-512 digest
)

func newExplainReport(e explain.Explanation, servers []netip.AddrPort, trusted bool, now time.Time) explainReport {
	r := explainReport{
		Key: e.Key, LookedUp: e.LookedUp,
		Resolver: explainResolver{Servers: []string{}, ADCounts: trusted},
		DNS:      []explainQuestion{},
		Decision: explainDecision{
			Row: string(e.Decision.Row), Level: e.Decision.Level.String(), MTASTS: e.STS.String(),
			Why: cleaned(e.Decision.Why), Reason: cleaned(e.Decision.Reason),
		},
		Replies: explainReplies{Postfix: e.Postfix, TLSRPT: e.TLSRPT},
		TookMS:  milliseconds(e.Took),
	}
	for _, s := range servers {
		r.Resolver.Servers = append(r.Resolver.Servers, s.String())
	}
	if e.NextHop.Domain != "" {
		r.NextHop = &explainNextHop{e.NextHop.Domain, e.NextHop.Literal, e.NextHop.Port}
	}
	if e.Override != "" {
		r.Override = &e.Override
	}
	if !e.LookedUp {
		return r
	}
	r.DNS = explainQuestions(e.DNS, e.NextHop.Domain, e.DANE.Hosts)
	r.Record = newExplainRecord("_mta-sts."+e.NextHop.Domain, e.Record)
	r.Fetch = newExplainFetch(e.Exchange, e.FetchErr, now)
	r.Policy = newExplainPolicy(e.Exchange, e.Policy, e.FetchErr)
	r.DANE = newExplainDANE(e.DANE, e.NextHop.Literal)
	return r
}

func newExplainRecord(name string, res mtasts.RecordResult) *explainRecord {
	r := &explainRecord{Name: name, Texts: []string{}, Count: len(res.Texts), ID: res.Record.ID, Error: errorText(res.Err)}
	for _, text := range res.Texts[:min(len(res.Texts), explainItems)] {
		r.Texts = append(r.Texts, escaped(text, explainTextBytes))
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

// newExplainFetch tells of the exchange with the policy host; nil when there
// was none.
func newExplainFetch(x *mtasts.Exchange, err error, now time.Time) *explainFetch {
	if x == nil {
		return nil
	}
	f := &explainFetch{
		URL: x.URL, Proxy: x.Proxy, Addresses: []explainAddress{},
		TLSVersion: x.TLSVersion, CipherSuite: x.CipherSuite,
		Status: x.Status, Location: cleaned(x.Location), MediaType: cleaned(x.MediaType), Size: x.Size,
		DNSMS: milliseconds(x.DNS), ConnectMS: milliseconds(x.Connect), TLSMS: milliseconds(x.TLS),
		ResponseMS: milliseconds(x.Response), TookMS: milliseconds(x.Total),
	}
	if x.Connected.IsValid() {
		f.Connected = x.Connected.String()
	}
	for _, a := range x.Addresses {
		line := explainAddress{Address: a.Addr.String(), Outcome: "untried"}
		switch {
		case a.Addr == x.Connected.Addr():
			line.Outcome = "connected"
		case a.Refused != "":
			line.Outcome, line.Reason = "refused", cleaned(a.Refused)
		case a.Failed != "":
			line.Outcome, line.Reason = "failed", cleaned(a.Failed)
		}
		f.Addresses = append(f.Addresses, line)
	}
	if c := x.Certificate; c != nil {
		names := []string{}
		for _, name := range c.Names {
			names = append(names, cleaned(name))
		}
		f.Certificate = &explainCertificate{
			Names: names, Issuer: cleaned(c.Issuer),
			NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
			DaysLeft: int(math.Floor(c.NotAfter.Sub(now).Hours() / 24)),
		}
	}
	if fe, ok := errors.AsType[*mtasts.FetchError](err); ok {
		f.FailedAt, f.Error = string(fe.Stage), cleaned(fe.Reason)
	}
	return f
}

// newExplainPolicy shows the policy file; nil when none was received whole.
func newExplainPolicy(x *mtasts.Exchange, policy *mtasts.Policy, err error) *explainPolicy {
	p := &explainPolicy{MX: []string{}, Lines: []explainLine{}}
	if policy != nil {
		p.Valid, p.Mode, p.MaxAgeSeconds = true, string(policy.Mode), int64(policy.MaxAge/time.Second)
		p.MXCount = len(policy.MX)
		for _, mx := range policy.MX[:min(len(policy.MX), explainItems)] {
			p.MX = append(p.MX, cleaned(mx))
		}
	} else {
		fault, ok := errors.AsType[*mtasts.PolicyError](err)
		if !ok {
			return nil
		}
		p.ErrorLine, p.Error = fault.Line, cleaned(fault.Reason)
	}
	for line := range bytes.Lines(x.Body) {
		p.LineCount++
		if p.LineCount > explainLines && (p.ErrorLine == 0 || p.LineCount < p.ErrorLine-2 || p.LineCount > p.ErrorLine+2) {
			continue
		}
		if text, ended := bytes.CutSuffix(line, []byte("\n")); ended {
			line = bytes.TrimSuffix(text, []byte("\r"))
		}
		p.Lines = append(p.Lines, explainLine{p.LineCount, escaped(line, explainTextBytes)})
	}
	return p
}

func newExplainDANE(res dane.Result, literal bool) *explainDANE {
	d := &explainDANE{
		State: res.State.String(), TTLSeconds: int64(res.TTL / time.Second),
		Hosts: []explainHost{}, HostsOmitted: res.MX.Omitted, Error: errorText(res.Err),
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
		host := explainHost{
			Name: cleaned(h.Name), Preference: h.Preference, Implicit: h.Implicit,
			Addresses: append([]string{}, h.Addresses...), Secure: h.Secure,
			Verdict: hostVerdict(h.Verdict), TLSABase: cleaned(h.Base),
			TLSA: []explainTLSA{}, TLSACount: len(h.TLSA), Error: errorText(h.Err),
		}
		for _, t := range h.TLSA[:min(len(h.TLSA), explainItems)] {
			reason := t.Unusable
			if t.DigestOfNothing() {
				reason = "a digest of no data: no certificate matches it"
			}
			host.TLSA = append(host.TLSA, explainTLSA{
				Usage: t.Usage, Selector: t.Selector, MatchingType: t.MatchingType,
				Data: hex.EncodeToString(t.Data[:min(len(t.Data), explainDataBytes)]), DataSize: len(t.Data),
				Usable: t.Unusable == "", Reason: cleaned(reason),
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
