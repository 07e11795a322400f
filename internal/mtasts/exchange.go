package mtasts

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/printable"
)

// Stage is the step of a fetch that failed: a short, stable name, fit for a
// metric.
type Stage string

const (
	StageDNS         Stage = "dns"         // the policy host's addresses could not be found
	StageAddress     Stage = "address"     // it has only addresses that are not public
	StageConnect     Stage = "connect"     // no TCP connection
	StageProxy       Stage = "proxy"       // the proxy did not open the connection
	StageTLS         Stage = "tls"         // no TLS session, for a reason other than the certificate
	StageCertificate Stage = "certificate" // the certificate is not valid for the policy host
	StageHTTP        Stage = "http"        // no complete HTTP response
	StageRedirect    Stage = "redirect"    // status 3xx
	StageStatus      Stage = "status"      // another status than 200
	StageMediaType   Stage = "media_type"  // not text/plain
	StageEncoding    Stage = "encoding"    // a content coding that was not asked for
	StageSize        Stage = "size"        // more than MaxPolicySize bytes
	StageTimeout     Stage = "timeout"     // not finished in time, in any step
	StageCanceled    Stage = "canceled"    // the caller canceled it: says nothing about the policy host
	StagePolicy      Stage = "policy"      // the policy file is not valid
)

// FetchError says why there is no policy. Treat the fetch as failed whatever
// the stage (8461 §3.3), but StageCanceled, or one of which LocalFault is true, as
// though it had not been tried.
type FetchError struct {
	Host     string // mta-sts.DOMAIN
	Stage    Stage
	Reason   string    // one line of printable ASCII
	Exchange *Exchange // how far it came; never nil
	Err      error     // the cause, may be nil: *PolicyError, *dnsclient.Error, …
}

func (e *FetchError) Error() string {
	return fmt.Sprintf("policy host %s: %s", printable.Line(e.Host, maxHostLength), e.Reason)
}

// LocalFault reports whether this host is at fault: it has no certificate
// authorities (ErrNoRoots), or is short of file descriptors or memory.
func (e *FetchError) LocalFault() bool {
	return errors.Is(e.Err, ErrNoRoots) || dnsclient.LocalFault(e.Err)
}

func (e *FetchError) Unwrap() error { return e.Err }

// Fetched is a policy and how it was fetched.
type Fetched struct {
	Policy   Policy
	Body     []byte // the policy file, byte for byte
	Exchange *Exchange
}

// Exchange is what happened during one fetch, for the operator. All text in it
// is one line of printable ASCII, except Body.
type Exchange struct {
	URL       string
	Lookups   [2]dnsclient.AddressLookup // A and AAAA; zero when the fetch ended before
	Addresses []AddressReport            // what they gave, at most 8 of each
	Proxy     string                     // scheme, host and port of the proxy, without its password; empty: none
	Connected netip.AddrPort             // the address that was connected to; zero: none

	TLSVersion  string // "TLS 1.3"; empty: no session
	CipherSuite string
	Certificate *Certificate // the policy host's, valid or not; nil: none seen

	Status    int    // of the HTTP response; 0: none
	Location  string // of a redirect, which is never followed
	MediaType string // the Content-Type field as sent
	Size      int    // bytes of the body that were read
	Body      []byte // at most MaxPolicySize bytes of a body of the right status and type

	// How long each step took; 0 for one that was not reached.
	DNS, Connect, TLS, Response, Total time.Duration

	start time.Time
}

// AddressReport is one address of the policy host.
type AddressReport struct {
	Addr    netip.Addr
	Refused string // why it was not tried: the address is not public
	Failed  string // why the TCP connection or the TLS session failed
}

// Certificate is the part of an X.509 certificate that is reported.
type Certificate struct {
	Names     []string // DNS names of subjectAltName, at most 20
	Issuer    string
	NotBefore time.Time
	NotAfter  time.Time
}
