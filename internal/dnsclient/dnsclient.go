// Package dnsclient is a stub resolver. It asks the configured recursive
// resolvers and hands back what they said: the records, the response code,
// the AD bit (only where the path to the resolver is trusted) and the time
// the answer may be kept. What an answer means for mail is decided elsewhere.
package dnsclient

import (
	"context"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// Resolver is what the rest of the program needs of DNS. *Client is the one
// that asks the network.
type Resolver interface {
	// Lookup asks for the records of one type at a name (with or without the
	// final dot). Following CNAMEs is the resolver's work: Answer.Records holds
	// only records of the type asked for, at the end of the chain.
	//
	// NXDOMAIN and NOERROR without data are answers, not errors. An error is
	// always an *Error and means that nothing is known about the name.
	Lookup(ctx context.Context, name string, qtype uint16) (Answer, error)
}

// Answer is a complete answer to one question.
type Answer struct {
	Name      string // the name asked for, lower case, with the final dot
	Type      uint16
	Rcode     int      // dns.RcodeSuccess or dns.RcodeNameError
	Authentic bool     // the AD bit of every message involved, from trusted servers only (RFC 6840 §5.7, 7672 §2.1.3)
	Records   []dns.RR // of type Type, owner Final, at most 256; empty for a negative answer
	More      int      // how many records beyond those were left out
	Chain     []CNAME  // the aliases that lead from Name to Final, in order
	Final     string   // the name at the end of the chain (Name without aliases), lower case, with the final dot

	// TTL is how long the answer may be kept: the smallest TTL of the records
	// and aliases, or for a negative answer the smaller of the SOA's TTL and
	// minimum (RFC 2308 §5). Zero when a negative answer came without SOA.
	TTL    time.Duration
	Server netip.AddrPort // that answered
}

// Negative reports whether the answer proves or states that there is no such record.
func (a Answer) Negative() bool { return len(a.Records) == 0 }

// CNAME is one link of an alias chain.
type CNAME struct {
	From, To string // lower case, with the final dot
}
