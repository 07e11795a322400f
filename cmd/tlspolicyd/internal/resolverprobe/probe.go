// Package resolverprobe asks the questions that show whether a resolver works
// and whether it validates (DNSSEC). The daemon's health, check and doctor have
// them in common.
package resolverprobe

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/dnsclient"
)

// Root is signed, and every resolver has it.
const Root = "."

// Outcome is what a resolver made of one question.
type Outcome struct {
	Name    string
	Rcode   int
	AD      bool // as far as the resolver is trusted (RFC 7672 §2.1.3)
	Records int
	Took    time.Duration
	Err     error // nil: there was an answer, which may be negative
}

// Signed asks for the SOA record of a name that is signed. A validating resolver
// sets the AD bit (RFC 6840 §5.8).
func Signed(ctx context.Context, r dnsclient.Resolver, name string) Outcome {
	return ask(ctx, r, name, dns.TypeSOA)
}

// Missing asks for a name that does not exist and that no cache can have, so
// that the answer comes from outside: NXDOMAIN.
func Missing(ctx context.Context, r dnsclient.Resolver, parent string) Outcome {
	return ask(ctx, r, strings.ToLower(rand.Text()[:16])+"."+strings.TrimSuffix(parent, "."), dns.TypeA)
}

// Bogus asks for a name whose signature is wrong. A validating resolver answers
// SERVFAIL.
func Bogus(ctx context.Context, r dnsclient.Resolver, name string) Outcome {
	return ask(ctx, r, name, dns.TypeA)
}

func ask(ctx context.Context, r dnsclient.Resolver, name string, qtype uint16) Outcome {
	began := time.Now()
	answer, err := r.Lookup(ctx, name, qtype)
	return Outcome{Name: name, Rcode: answer.Rcode, AD: answer.Authentic, Records: len(answer.Records), Took: time.Since(began), Err: err}
}

// Kind is that of the failure; 0: there was an answer.
func (o Outcome) Kind() dnsclient.Kind {
	if failed, ok := errors.AsType[*dnsclient.Error](o.Err); ok {
		return failed.Kind
	}
	if o.Err != nil {
		return dnsclient.Network
	}
	return 0
}

// Silent reports that nothing answered.
func (o Outcome) Silent() bool {
	return o.Kind() == dnsclient.Timeout || o.Kind() == dnsclient.Network
}

// Denied reports an answer that the name does not exist, without a proof; for
// Root there is none. A resolver that denies Root does not see the Internet.
func (o Outcome) Denied() bool {
	return o.Err == nil && o.Rcode == dns.RcodeNameError && (o.Name == Root || !o.AD)
}

// String is one line: the name, and the answer or the failure.
func (o Outcome) String() string {
	if o.Err != nil {
		return o.Err.Error()
	}
	name, ad := o.Name, "no AD bit"
	if name == Root {
		name = "the root"
	}
	if o.AD {
		ad = "AD bit"
	}
	return fmt.Sprintf("%s: %s, %s, %d ms", name, dns.RcodeToString[o.Rcode], ad, o.Took.Milliseconds())
}
