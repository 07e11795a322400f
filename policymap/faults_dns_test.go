package policymap

import "tlspolicyd/testing/lab"

// dnsOutages are the ways in which a resolver, or somebody in its place, can
// fail. Where nothing else is said the fault holds for every question.
func dnsOutages() []outage {
	const noAnswer, malformed = "TEMP MX lookup of plain.test: no answer", "TEMP MX lookup of plain.test: malformed answer"
	all := []outage{
		{name: "no answer", dns: lab.Drop, reply: noAnswer, wait: dnsWait, bytes: 0},
		{name: "SERVFAIL", dns: lab.ServFail, reply: "TEMP MX lookup of plain.test: SERVFAIL"},
		{name: "SERVFAIL, bad signature", dns: lab.Bogus, reply: "TEMP MX lookup of plain.test: SERVFAIL (DNSSEC Bogus)"},
		{name: "REFUSED", dns: lab.Refused, reply: "TEMP MX lookup of plain.test: REFUSED"},
		{name: "FORMERR, also without EDNS", dns: lab.FormErr, reply: "TEMP MX lookup of plain.test: FORMERR"},

		{name: "answers with the wrong id", dns: lab.WrongID, reply: noAnswer, wait: dnsWait},
		{name: "a forged id first, then the right answer", dns: lab.SpoofFirst, reply: "right"},
		{name: "answers with wrong ids without end", dns: lab.Flood, reply: noAnswer, wait: dnsWait, bytes: 16 << 20},
		{name: "answers to another question", dns: lab.WrongQuestion, reply: noAnswer, wait: dnsWait},
		{name: "a denial from another address and port first", dns: lab.WrongAddress, real: true, reply: "right"},

		{name: "bytes that are no message", dns: lab.Garbage, reply: noAnswer, wait: dnsWait},
		{name: "fewer records than the header says", dns: lab.CountLies, reply: malformed},
		{name: "a compression pointer to itself", dns: lab.PointerLoop, reply: malformed},
		{name: "truncated, rubbish behind the question", dns: lab.TruncateRubbish, reply: "right"},
		{name: "truncated, right over TCP", dns: lab.Truncate, reply: "right"},
		{name: "truncated over UDP and TCP", dns: lab.TruncateAll, reply: malformed},

		{name: "TCP: a length longer than the message", dns: lab.LengthTooLong, reply: noAnswer, wait: dnsWait},
		{name: "TCP: a length that cuts the message", dns: lab.LengthTooShort, reply: malformed},
		{name: "TCP: no answer", dns: lab.StreamSilent, reply: noAnswer, wait: dnsWait},
		{name: "TCP: closed without an answer", dns: lab.StreamHangsUp, reply: "TEMP MX lookup of plain.test: server unreachable"},
		{name: "TCP: closed in the middle of the answer", dns: lab.StreamBreaks, reply: "TEMP MX lookup of plain.test: server unreachable"},

		{name: "two aliases that point to each other", dns: lab.CNAMELoop, reply: malformed},
		{name: "an alias to an alias, without end", dns: lab.EndlessCNAMEs, reply: malformed},
		{name: "48 aliases in one answer", dns: lab.LongChain, reply: malformed},
		{name: "64 KiB of MX records", dns: lab.Huge, only: "plain.test", reply: "right", bytes: 256 * kib},
		{name: "64 KiB of records for every name, TLSA too", dns: lab.Huge, reply: "OK dane", known: "OK dane", bytes: 16 << 20, back: ttlBack},
		{name: "64 KiB of compressed names", dns: lab.Expanding, reply: malformed, bytes: 512 * kib},

		{name: "TXT: no answer", dns: lab.Drop, only: "_mta-sts.plain.test", reply: "NOTFOUND ", wait: fetchWait, back: txtBack},
		{name: "TXT: SERVFAIL", dns: lab.ServFail, only: "_mta-sts.plain.test", reply: "NOTFOUND ", back: txtBack},
		{name: "TXT: 64 KiB in one record", dns: lab.Huge, only: "_mta-sts.plain.test", reply: "NOTFOUND ", bytes: 256 * kib, back: ttlBack},
		{name: "TXT: aliases without end", dns: lab.EndlessCNAMEs, only: "_mta-sts.plain.test", reply: "NOTFOUND ", back: txtBack},
		{name: "policy host: no answer", dns: lab.Drop, only: "mta-sts.plain.test", reply: "NOTFOUND ", wait: fetchWait, back: httpsBack},
		{name: "policy host: SERVFAIL", dns: lab.ServFail, only: "mta-sts.plain.test", reply: "NOTFOUND ", back: httpsBack},
		{name: "policy host: aliases in a loop", dns: lab.CNAMELoop, only: "mta-sts.plain.test", reply: "NOTFOUND ", back: httpsBack},
		{name: "MX host: no address answered", dns: lab.Drop, only: "mx.plain.test", reply: "TEMP A lookup of mx.plain.test: no answer", wait: dnsWait, back: dnsBack},
		{name: "MX host: addresses malformed", dns: lab.PointerLoop, only: "mx.plain.test", reply: "TEMP A lookup of mx.plain.test: malformed answer", back: dnsBack},
	}
	for i := range all {
		o := &all[i]
		if o.back == 0 {
			o.back = txtBack // the TXT record's lookup fails, too
		}
		if o.bytes == 0 {
			o.bytes = 64 * kib
		}
		if o.reply == "right" {
			o.back = noWait
		}
	}
	return all
}
