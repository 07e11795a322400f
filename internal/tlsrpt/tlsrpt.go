// Package tlsrpt reports fetches of MTA-STS policies that failed to this host's
// TLSRPT collector (8460 §4.3). Postfix 3.10 and later reports each TLS session to
// the same collector, by the library libtlsrpt, but does not see why a domain has
// no policy. The collector makes the daily reports of both.
//
// encode.go says what is reported and makes the datagram; record.go finds the
// record that asks for reports; sender.go sends.
package tlsrpt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"tlspolicyd/internal/mtasts"
)

// Code is a result type of 8460 §4.3.2.2 by libtlsrpt's number.
type Code int

// The failures of a fetch. The zero Code stands for one that is not reported.
const (
	FetchError   Code = 301 // sts-policy-fetch-error
	Invalid      Code = 302 // sts-policy-invalid
	WebPKIFailed Code = 303 // sts-webpki-invalid
)

// Classify returns the code of a failed fetch and a reason without names and
// addresses: each different reason is a row of the report. The code is 0 for what
// is no fault of the domain: of the resolver, of the network or the proxy of this
// host, of its files, or our own rules.
func Classify(err error) (code Code, reason string) {
	f, ok := errors.AsType[*mtasts.FetchError](err)
	if !ok || f.Exchange == nil || f.LocalFault() {
		return 0, ""
	}
	x := f.Exchange
	proxied := x.Proxy != "" && !x.Connected.IsValid() // what fails is between us and the proxy
	switch f.Stage {
	case mtasts.StageCertificate:
		if _, theirs := errors.AsType[*tls.CertificateVerificationError](f.Err); theirs {
			return WebPKIFailed, "the certificate of the policy host is not valid"
		}
	case mtasts.StagePolicy:
		return Invalid, "the policy file is not valid"
	case mtasts.StageDNS:
		if f.Err == nil && x.URL != "" {
			return FetchError, "the policy host has no address"
		}
	case mtasts.StageConnect:
		if !proxied && !noRoute(x) {
			return FetchError, "no connection to the policy host"
		}
	case mtasts.StageTimeout:
		if !proxied && len(x.Addresses) > 0 { // else the resolver was silent
			return FetchError, "the policy host did not answer in time"
		}
	case mtasts.StageTLS:
		return FetchError, "no TLS session with the policy host"
	case mtasts.StageHTTP:
		return FetchError, "no complete HTTP response"
	case mtasts.StageRedirect, mtasts.StageStatus:
		return FetchError, fmt.Sprintf("HTTP status %d", x.Status)
	case mtasts.StageMediaType:
		return FetchError, "the media type of the policy file is not text/plain"
	case mtasts.StageEncoding:
		return FetchError, "the policy file has a content coding"
	case mtasts.StageSize:
		return FetchError, fmt.Sprintf("the policy file is larger than %d bytes", mtasts.MaxPolicySize)
	}
	return 0, ""
}

// noRoute reports a connection that failed because this host has no route, as to
// IPv6 addresses where it has none.
func noRoute(x *mtasts.Exchange) bool {
	for _, a := range x.Addresses {
		if a.Failed != "" && !strings.Contains(a.Failed, syscall.ENETUNREACH.Error()) {
			return false
		}
	}
	return true
}
