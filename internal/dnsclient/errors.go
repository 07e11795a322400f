package dnsclient

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/printable"
)

// Kind says how a lookup failed.
type Kind uint8

const (
	Timeout   Kind = iota + 1 // no usable answer in time
	ServFail                  // SERVFAIL; also how a validating resolver says bogus
	Refused                   // REFUSED or another rcode that is no answer
	Malformed                 // an answer that cannot be right: loops, wrong question, unparsable
	Network                   // the server could not be reached at all
	Canceled                  // the caller canceled the lookup
)

// Error says which lookup failed and how. It is temporary by nature: nothing
// is known about the name, neither presence nor absence (RFC 7672 §2.1.2).
type Error struct {
	Name   string // as asked, without the final dot
	Type   uint16
	Kind   Kind
	Rcode  int // for ServFail and Refused
	Server netip.AddrPort
	Err    error // the cause, may be nil

	// Wait is how long the last try was given, for Timeout; 0 when the caller's
	// deadline ended it earlier.
	Wait time.Duration
	// Extended is the registered name of the server's extended error (RFC
	// 8914), such as "DNSSEC Bogus"; empty when there was none.
	Extended string
}

// Error names the lookup, the failure and the server in one printable line.
func (e *Error) Error() string {
	s := e.Reason()
	if e.Kind == Timeout && e.Wait > 0 {
		s += " within " + e.Wait.String()
	}
	if e.Server.IsValid() {
		s += " from " + e.Server.String()
	}
	if e.Err != nil {
		s += ": " + printable.Line(e.Err.Error(), 200)
	}
	return s
}

// Reason is the short form for a reply to Postfix, such as "MX lookup of
// example.com: SERVFAIL": one printable line of at most 200 bytes.
func (e *Error) Reason() string {
	return fmt.Sprintf("%s lookup of %s: %s", typeName(e.Type), printable.Line(e.Name, 120), e.cause())
}

func (e *Error) cause() string {
	var s string
	switch e.Kind {
	case Timeout:
		return "no answer"
	case ServFail, Refused:
		s = rcodeName(e.Rcode)
	case Malformed:
		s = "malformed answer"
	case Network:
		s = "server unreachable"
		if errno, ok := localFault(e.Err); ok {
			s = errno.Error()
		}
	case Canceled:
		s = "canceled"
	default:
		s = "failed"
	}
	if e.Extended != "" {
		s += " (" + e.Extended + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// LocalFault reports whether a lookup or a connection failed because this host is
// short of file descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM). Such a
// failure says nothing about the other side: the caller must not record an absence
// or a failed fetch because of it.
func LocalFault(err error) bool {
	_, ok := localFault(err)
	return ok
}

func localFault(err error) (syscall.Errno, bool) {
	errno, ok := errors.AsType[syscall.Errno](err)
	return errno, ok && (errno == syscall.EMFILE || errno == syscall.ENFILE || errno == syscall.ENOBUFS || errno == syscall.ENOMEM)
}

// Timeout reports whether the lookup failed because no answer came in time.
func (e *Error) Timeout() bool { return e.Kind == Timeout }

// rank orders failures by how much they say: SERVFAIL is more than silence.
func (e *Error) rank() int {
	switch e.Kind {
	case ServFail:
		return 5
	case Refused:
		return 4
	case Malformed:
		return 3
	case Network:
		return 2
	case Timeout:
		return 1
	}
	return 0
}

func typeName(t uint16) string {
	if s, ok := dns.TypeToString[t]; ok {
		return s
	}
	return fmt.Sprintf("TYPE%d", t) // RFC 3597 §5
}

func rcodeName(rc int) string {
	if s, ok := dns.RcodeToString[rc]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", rc)
}
