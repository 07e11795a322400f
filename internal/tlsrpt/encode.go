package tlsrpt

import (
	"encoding/json"
	"errors"

	"tlspolicyd/internal/mtasts"
)

// MaxDatagram bounds a datagram, in bytes. Sockets take some 200 KiB by default.
const MaxDatagram = 64 << 10

var errTooLarge = errors.New("the report is too large for a datagram")

// Failure is a fetch that failed.
type Failure struct {
	Domain  string         // A-labels, lower case
	Err     error          // of the fetch
	InForce *mtasts.Policy // the cached policy that goes on applying; nil: none
}

// The datagram of libtlsrpt. The collector counts policies as different where the
// order of their members is, so it is that of the library.
type datagram struct {
	Version  string    `json:"dpv"`
	Domain   string    `json:"d"`
	Record   string    `json:"pr"`
	Policies [1]policy `json:"policies"`
}

type policy struct {
	Type     int       `json:"policy-type"`
	Domain   string    `json:"policy-domain"`
	Strings  []string  `json:"policy-string,omitempty"`
	MXHosts  []string  `json:"mx-host,omitempty"`
	Details  [1]detail `json:"failure-details"`
	Failures int       `json:"t"` // length of Details
	Result   int       `json:"f"` // 1: failure
}

type detail struct {
	Code   Code   `json:"c"`
	Info   string `json:"a,omitempty"` // a URI (8460 §4.4)
	Reason string `json:"f"`
}

const (
	typeSTS = 2

	usedCached = "; the cached policy was used"
)

// Encode makes the datagram about a failure, for a domain with this TLSRPT record.
// It returns nil for a failure that is not reported, and errTooLarge where the
// record alone is.
//
// The policy is written as Postfix passes it on from our reply, so that the
// collector counts both under one policy.
func Encode(f Failure, record string) ([]byte, error) {
	code, reason := Classify(f.Err)
	if code == 0 {
		return nil, nil
	}
	p := policy{Type: typeSTS, Domain: f.Domain, Failures: 1, Result: 1}
	if f.InForce != nil {
		reason += usedCached
		p.Strings = f.InForce.Lines
		seen := make(map[string]bool)
		for _, mx := range f.InForce.MX {
			if !seen[mx] {
				seen[mx] = true
				p.MXHosts = append(p.MXHosts, mx)
			}
		}
	}
	failed, _ := errors.AsType[*mtasts.FetchError](f.Err) // Classify has seen one
	p.Details[0] = detail{Code: code, Info: failed.Exchange.URL, Reason: reason}
	d := datagram{Version: "1", Domain: f.Domain, Record: record, Policies: [1]policy{p}}
	for _, shorten := range []func(*policy){
		func(*policy) {},
		func(p *policy) { p.Strings = p.Strings[:min(1, len(p.Strings))] }, // as our reply to Postfix does
		func(p *policy) { p.MXHosts = nil },
	} {
		shorten(&d.Policies[0])
		text, err := json.Marshal(d)
		if err != nil || len(text) <= MaxDatagram {
			return text, err
		}
	}
	return nil, errTooLarge
}
