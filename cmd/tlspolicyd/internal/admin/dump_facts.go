package admin

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/printable"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/store"
)

// This file is a domain in a dump, and which facts are believed.

// Record is one domain in a dump: the facts of store.Record.
type Record struct {
	Domain   string    `json:"domain"`
	STS      *STS      `json:"mta_sts,omitempty"`
	DANE     []DANE    `json:"dane,omitempty"`
	LastUsed time.Time `json:"last_used,omitzero"`
}

// STS are the MTA-STS facts.
type STS struct {
	Policy    *string   `json:"policy,omitempty"`        // the file
	PolicyRaw []byte    `json:"policy_base64,omitempty"` // the same, where it is no UTF-8
	PolicyID  string    `json:"policy_id,omitempty"`
	FetchedAt time.Time `json:"fetched_at,omitzero"`
	TXTID     string    `json:"txt_id,omitempty"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
	TXTTTL    int64     `json:"txt_ttl_ms,omitempty"`
	TXTError  string    `json:"txt_error,omitempty"`
	TXTGone   bool      `json:"txt_gone,omitempty"` // proved by DNSSEC
	FailedID  string    `json:"failed_id,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// DANE is the evidence about DANE for one way of asking for the domain. State and
// Detail are what it comes to, for the reader; an import reads State only where
// MX is missing, as in exports of older versions.
type DANE struct {
	Literal     bool      `json:"literal,omitempty"`
	Port        uint16    `json:"port"`
	State       string    `json:"state"`
	SomeTLSA    bool      `json:"some_tlsa,omitempty"`
	NullMX      bool      `json:"null_mx,omitempty"`
	Unvalidated bool      `json:"ad_not_trusted,omitempty"`
	Detail      string    `json:"detail,omitempty"`
	KnownAt     time.Time `json:"known_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	MX          string    `json:"mx,omitempty"` // "secure", "insecure", "not-asked"
	NoDomain    bool      `json:"no_domain,omitempty"`
	Omitted     int       `json:"hosts_omitted,omitempty"`
	Hosts       []Host    `json:"hosts,omitempty"`
}

// Host is the evidence about one mail host.
type Host struct {
	Name       string    `json:"name"`
	Preference uint16    `json:"preference"`
	Verdict    string    `json:"verdict"`           // of the last proof; without one that of the failure
	KnownAt    time.Time `json:"known_at,omitzero"` // when it was proved; absent: never
	Failure    string    `json:"failure,omitempty"` // verdict of the lookup that fails now
	Error      string    `json:"error,omitempty"`   // why
}

func recordOf(r store.Record) Record {
	out := Record{Domain: r.Domain, LastUsed: r.LastUsed.UTC()}
	if s := r.STS; s != nil {
		out.STS = &STS{
			PolicyID: s.PolicyID, FetchedAt: s.FetchedAt.UTC(),
			TXTID: s.TXTID, CheckedAt: s.CheckedAt.UTC(), TXTTTL: s.TXTTTL.Milliseconds(), TXTError: s.TXTError, TXTGone: s.TXTGone,
			FailedID: s.FailedID, FailedAt: s.FailedAt.UTC(), Failures: s.Failures, Error: s.Error,
		}
		if text := string(s.Policy); s.Policy != nil && utf8.ValidString(text) {
			out.STS.Policy = &text
		} else {
			out.STS.PolicyRaw = s.Policy
		}
	}
	names := map[uint8]string{}
	for name, state := range daneStates() {
		names[uint8(state)] = name
	}
	for i := range r.DANE {
		out.DANE = append(out.DANE, daneOf(&r.DANE[i], names))
	}
	return out
}

func daneOf(d *store.DANE, states map[uint8]string) DANE {
	out := DANE{
		Literal: d.Literal, Port: d.Port, State: states[uint8(policy.StateOfDANE(d, d.KnownAt))], SomeTLSA: policy.HasTLSA(d),
		NullMX: d.NullMX, Unvalidated: d.Unvalidated, Detail: policy.Evidence(d, d.KnownAt),
		KnownAt: d.KnownAt.UTC(), ExpiresAt: d.ExpiresAt.UTC(),
		MX: mxAnswers()[d.MX], NoDomain: d.NoDomain, Omitted: d.Omitted,
	}
	for _, h := range d.Hosts {
		host := Host{
			Name: printable.Line(h.Name, 300), Preference: h.Preference, Verdict: verdicts()[h.Verdict],
			KnownAt: h.KnownAt.UTC(), Error: h.Error,
		}
		if h.Error != "" {
			host.Failure = verdicts()[h.Failure]
		}
		out.Hosts = append(out.Hosts, host)
	}
	return out
}

// mxAnswers and verdicts are what stored evidence is called in a dump.
func mxAnswers() map[uint8]string {
	return map[uint8]string{uint8(dane.MXSecure): "secure", uint8(dane.MXInsecure): "insecure", uint8(dane.MXNotAsked): "not-asked"}
}

func verdicts() map[uint8]string {
	return map[uint8]string{
		uint8(dane.TLSAFailed): "tlsa-failed", uint8(dane.AddressFailed): "address-failed", uint8(dane.NoAddress): "no-address",
		uint8(dane.Insecure): "insecure", uint8(dane.NoTLSA): "no-tlsa", uint8(dane.Unusable): "unusable",
		uint8(dane.PartlyInsecure): "partly-insecure", uint8(dane.Usable): "usable",
	}
}

// valueOf returns the stored value of a name.
func valueOf(names map[uint8]string, name string) (uint8, bool) {
	for value, n := range names {
		if n == name {
			return value, true
		}
	}
	return 0, false
}

// What a record has at most. The daemon itself writes no more.
const (
	maxEndpoints = 16             // ways of asking
	maxLifetime  = 24 * time.Hour // of a DANE state: docs/behaviour.md §6
	maxReason    = 200            // bytes of an error's text
	maxHosts     = 32             // of an MX answer
)

// facts returns the record as it is stored, or what is wrong with it. The
// error is one printable line of bounded length.
func (r Record) facts() (store.Record, error) {
	hop, ok := policy.ParseNextHop(r.Domain)
	if !ok || hop.String() != r.Domain {
		return store.Record{}, fmt.Errorf("domain %s: want a domain in A-labels, lower case", quoted(r.Domain))
	}
	out := store.Record{Domain: r.Domain, LastUsed: r.LastUsed}
	if r.STS == nil && len(r.DANE) == 0 {
		return out, errors.New("no facts: want mta_sts or dane")
	}
	if r.STS != nil {
		sts, err := r.STS.facts()
		if err != nil {
			return out, fmt.Errorf("mta_sts: %w", err)
		}
		out.STS = &sts
	}
	if len(r.DANE) > maxEndpoints {
		return out, fmt.Errorf("dane: %d entries: want at most %d", len(r.DANE), maxEndpoints)
	}
	for i, d := range r.DANE {
		fact, err := d.facts()
		if err != nil {
			return out, fmt.Errorf("dane: entry %d: %w", i+1, err)
		}
		for _, other := range out.DANE {
			if other.Port == fact.Port && other.Literal == fact.Literal {
				return out, fmt.Errorf("dane: entry %d: port %d is there twice", i+1, fact.Port)
			}
		}
		out.DANE = append(out.DANE, fact)
	}
	if _, err := store.EncodeRecord(out); err != nil {
		return out, err
	}
	return out, nil
}

func (s *STS) facts() (store.STS, error) {
	out := store.STS{
		PolicyID: s.PolicyID, FetchedAt: s.FetchedAt,
		TXTID: s.TXTID, CheckedAt: s.CheckedAt, TXTTTL: time.Duration(s.TXTTTL) * time.Millisecond, TXTError: s.TXTError, TXTGone: s.TXTGone,
		FailedID: s.FailedID, FailedAt: s.FailedAt, Failures: s.Failures, Error: s.Error,
	}
	switch {
	case s.Policy != nil && s.PolicyRaw != nil:
		return out, errors.New("both policy and policy_base64")
	case s.Policy != nil:
		out.Policy = []byte(*s.Policy)
	default:
		out.Policy = s.PolicyRaw
	}
	for name, id := range map[string]string{"policy_id": s.PolicyID, "txt_id": s.TXTID, "failed_id": s.FailedID} {
		// 8461 §3.1: 1 to 32 letters or digits.
		if len(id) > 32 || strings.ContainsFunc(id, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return out, fmt.Errorf("%s %s: want up to 32 letters or digits", name, quoted(id))
		}
	}
	for name, text := range map[string]string{"txt_error": s.TXTError, "error": s.Error} {
		if len(text) > maxReason || !printable.Is(text) {
			return out, fmt.Errorf("%s: want up to %d printable ASCII characters", name, maxReason)
		}
	}
	if s.TXTTTL < 0 || s.TXTTTL > (1<<32)*1000 || s.Failures < 0 || s.Failures > 1<<30 {
		return out, errors.New("txt_ttl_ms or failures out of range")
	}
	if out.Policy == nil {
		return out, nil
	}
	if len(out.Policy) > mtasts.MaxPolicySize {
		return out, fmt.Errorf("policy of %d bytes: want at most %d", len(out.Policy), mtasts.MaxPolicySize)
	}
	if out.FetchedAt.IsZero() {
		return out, errors.New("a policy without fetched_at")
	}
	// A policy that says something else than it did would be worse than none.
	if _, err := mtasts.ParsePolicy(out.Policy); err != nil {
		return out, err
	}
	return out, nil
}

func (d *DANE) facts() (store.DANE, error) {
	switch {
	case d.Port == 0:
		return store.DANE{}, errors.New("port 0")
	case d.KnownAt.IsZero() || d.ExpiresAt.Before(d.KnownAt):
		return store.DANE{}, errors.New("want known_at, and an expires_at that is not before it")
	case d.ExpiresAt.Sub(d.KnownAt) > maxLifetime:
		return store.DANE{}, fmt.Errorf("expires_at: want at most %v after known_at", maxLifetime)
	}
	out := store.DANE{
		Literal: d.Literal, Port: d.Port, NullMX: d.NullMX, Unvalidated: d.Unvalidated, KnownAt: d.KnownAt, ExpiresAt: d.ExpiresAt,
	}
	if d.MX == "" {
		state, ok := daneStates()[d.State]
		switch {
		case !ok:
			return out, fmt.Errorf("state %s: want full, partial, insecure-mx, none or unknown", quoted(d.State))
		case state == dane.Unknown && !d.SomeTLSA:
			return out, errors.New("state unknown without some_tlsa: it teaches nothing")
		}
		out.State, out.SomeTLSA = uint8(state), d.SomeTLSA && state == dane.Unknown
		return out, nil
	}
	var ok bool
	switch out.MX, ok = valueOf(mxAnswers(), d.MX); {
	case !ok:
		return out, fmt.Errorf("mx %s: want secure, insecure or not-asked", quoted(d.MX))
	case d.Omitted < 0 || d.Omitted > 1<<30:
		return out, errors.New("hosts_omitted out of range")
	case len(d.Hosts) > maxHosts:
		return out, fmt.Errorf("%d hosts: want at most %d", len(d.Hosts), maxHosts)
	}
	out.NoDomain, out.Omitted = d.NoDomain, d.Omitted
	for i := range d.Hosts {
		h, err := d.Hosts[i].facts(d.KnownAt)
		if err != nil {
			return out, fmt.Errorf("host %d: %w", i+1, err)
		}
		out.Hosts = append(out.Hosts, h)
	}
	return out, nil
}

// facts returns the evidence as it is stored, or what is wrong with it. learned is
// when the MX answer was.
func (h *Host) facts(learned time.Time) (store.Host, error) {
	out := store.Host{Name: h.Name, Preference: h.Preference, KnownAt: h.KnownAt, Error: h.Error}
	var ok bool
	if out.Verdict, ok = valueOf(verdicts(), h.Verdict); !ok {
		return out, fmt.Errorf("verdict %s is unknown", quoted(h.Verdict))
	}
	switch failed := dane.Verdict(out.Verdict).Failed(); {
	case h.Name == "" || len(h.Name) > store.MaxDomain || !printable.Is(h.Name):
		return out, errors.New("want a name")
	case len(h.Error) > maxReason || !printable.Is(h.Error):
		return out, fmt.Errorf("error: want up to %d printable ASCII characters", maxReason)
	case failed != h.KnownAt.IsZero():
		return out, errors.New("want known_at for a proof, and none without")
	case failed && h.Error == "":
		return out, errors.New("a failure without error")
	case h.KnownAt.After(learned):
		return out, errors.New("known_at is after that of the MX answer")
	}
	if h.Error == "" {
		return out, nil
	}
	out.Failure, ok = valueOf(verdicts(), h.Failure)
	if !ok || !dane.Verdict(out.Failure).Failed() {
		return out, fmt.Errorf("failure %s: want tlsa-failed or address-failed", quoted(h.Failure))
	}
	return out, nil
}
