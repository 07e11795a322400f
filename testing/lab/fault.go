package lab

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// Fault is what goes wrong with the answer to a question. The zero value is
// none.
type Fault uint32

const (
	ServFail        Fault = iota + 1 // SERVFAIL
	Bogus                            // SERVFAIL as of a bad signature, with the extended error "DNSSEC Bogus" (RFC 8914 §4.7)
	Refused                          // REFUSED
	FormErr                          // FORMERR, as servers that know no EDNS say
	NXDomain                         // NXDOMAIN, whatever records there are
	Drop                             // no answer
	WrongID                          // the right answer under another message ID
	SpoofFirst                       // first an answer under another message ID, then the right one
	WrongQuestion                    // the answer to another name's question
	Garbage                          // bytes that are no DNS message, under the right ID
	Truncate                         // TC and no records over UDP; TCP works
	TruncateAll                      // TC and no records over UDP and TCP
	CNAMELoop                        // two aliases that point to each other
	EndlessCNAMEs                    // an alias to a name that is itself an alias to a new name, and so on
	Huge                             // as many MX, A, AAAA or TLSA records as 64 KiB hold, or one TXT record of that size
	NoSOA                            // a negative answer without SOA (RFC 2308 §5: it has no TTL)
	WrongAddress                     // first a denial from another address and port, then the right answer; the network in memory drops the first, as a connected socket does
	Flood                            // answers under another message ID without end, a millisecond apart
	CountLies                        // more records promised in the header than there are
	PointerLoop                      // a compression pointer to itself
	LongChain                        // 48 aliases in one answer
	TruncateRubbish                  // TC over UDP, with bytes that are no records; TCP works
	LengthTooLong                    // TC over UDP; over TCP a length that promises more than comes
	LengthTooShort                   // TC over UDP; over TCP a length that cuts the answer
	StreamSilent                     // TC over UDP; TCP is never answered
	StreamHangsUp                    // TC over UDP; TCP ends without an answer
	StreamBreaks                     // TC over UDP; TCP ends in the middle of the answer
	Expanding                        // TC over UDP; over TCP 64 KiB of compressed names that are a megabyte unpacked
	NoAD                             // the right answer without the AD bit, such as an AAAA record that DNS64 makes up

	faultMask Fault = 0xff
)

const (
	ServFailOnce = ServFail | 1<<8 // the first answer only
	DropOnce     = Drop | 1<<8     // the first answer only
)

// Times returns a fault that f ends by itself after n answers (1 to 2^24-1).
func (f Fault) Times(n int) Fault { return f&faultMask | Fault(n)<<8 }

// Fault sets what goes wrong when the name is asked for. A qtype of "" or
// "ANY" stands for every type, the name "*" for every name; the nearest match
// wins. The zero Fault clears what was set with the same name and type.
// ServFail, Bogus and Refused also hit questions that reach the name by an
// alias.
func (w *World) Fault(name, qtype string, f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := question{faultName(name), typeCode(qtype)}
	if f == 0 {
		delete(w.faults, q)
		return
	}
	w.faults[q] = f
}

func faultName(name string) string {
	if name == "*" {
		return name
	}
	return canonical(name)
}

// takeFault returns the fault for a question and counts it. w.mu is held.
func (w *World) takeFault(name string, qtype uint16) Fault {
	for _, q := range []question{{name, qtype}, {name, 0}, {"*", qtype}, {"*", 0}} {
		f, ok := w.faults[q]
		if !ok {
			continue
		}
		switch left := f >> 8; left {
		case 0: // for good
		case 1:
			delete(w.faults, q)
		default:
			w.faults[q] = f.Times(int(left - 1))
		}
		return f & faultMask
	}
	return 0
}

// endless is the domain whose names are all aliases to the next.
const endless = ".endless.invalid."

// nextAlias returns the name that follows in an endless chain of aliases.
func nextAlias(name string) string {
	n := 0
	if label, ok := strings.CutSuffix(name, endless); ok {
		fmt.Sscanf(label, "c%d", &n) // zero for a name of another kind: the chain begins anew
	}
	return fmt.Sprintf("c%d%s", n+1, endless)
}

// expandingRecords is as many MX or CNAME records as 64 KiB hold, each with two
// names of 250 bytes that compression makes two bytes of.
func expandingRecords(name string, qtype uint16) []dns.RR {
	long := strings.Repeat(strings.Repeat("x", 62)+".", 4)
	head := dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: defaultTTL}
	first := dns.RR(&dns.CNAME{Hdr: head, Target: long})
	if qtype == dns.TypeMX {
		head.Rrtype = dns.TypeMX
		first = &dns.MX{Hdr: head, Mx: long}
	}
	rrs := []dns.RR{first}
	for size := 1024; size < dns.MaxMsgSize-1024; size += 16 {
		rr := dns.Copy(first)
		rr.Header().Name = long
		if mx, ok := rr.(*dns.MX); ok && len(rrs)%8 != 0 {
			mx.Hdr.Name, mx.Preference = name, uint16(len(rrs))
		}
		rrs = append(rrs, rr)
	}
	return rrs
}

// hugeRecords fills a message of 64 KiB with records of the type, where it is
// one that mail policy is made of.
func hugeRecords(name string, qtype uint16) []dns.RR {
	const room = dns.MaxMsgSize - 1024 // header, question, OPT, RRSIG
	head := func(t uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: defaultTTL}
	}
	if qtype == dns.TypeTXT {
		txt := &dns.TXT{Hdr: head(dns.TypeTXT), Txt: []string{"v=STSv1; id=huge; "}}
		for size := 512; size < room; size += 256 {
			txt.Txt = append(txt.Txt, strings.Repeat("x", 255))
		}
		return []dns.RR{txt}
	}
	var rrs []dns.RR
	for i, size := 0, 0; ; i++ {
		var rr dns.RR
		switch qtype {
		case dns.TypeMX:
			rr = &dns.MX{Hdr: head(qtype), Preference: 10, Mx: fmt.Sprintf("mx%d.huge.invalid.", i)}
		case dns.TypeA:
			rr = &dns.A{Hdr: head(qtype), A: []byte{10, 21, byte(i >> 8), byte(i)}}
		case dns.TypeAAAA:
			rr = &dns.AAAA{Hdr: head(qtype), AAAA: []byte{0x20, 1, 0xd, 0xb8, 14: byte(i >> 8), 15: byte(i)}}
		case dns.TypeTLSA:
			rr = &dns.TLSA{Hdr: head(qtype), Usage: 3, Selector: 1, MatchingType: 1, Certificate: fmt.Sprintf("%064x", i)}
		default:
			return nil
		}
		if size += dns.Len(rr); size > room {
			return rrs
		}
		rrs = append(rrs, rr)
	}
}
