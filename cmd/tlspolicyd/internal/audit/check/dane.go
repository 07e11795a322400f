package check

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dane"
)

// judgeDANE compares TLSA records with the certificates that the hosts present
// (RFC 7672 §3, RFC 7671), and says what DNSSEC has to do with it.
func judgeDANE(f *Facts) (found []audit.Finding) {
	if f.noMail() || f.Explanation.DANE.MX.Answer == dane.MXFailed {
		return nil
	}
	if f.port25Dark() && f.anyTLSA() {
		return []audit.Finding{{
			Code: "dane-inconclusive", Grade: audit.Unknown, Text: "There are TLSA records, but no certificate was seen to hold against them.",
			Advice: "See what is said of this host.",
		}}
	}
	with, without := 0, ""
	for _, h := range f.Hosts {
		switch h.Verdict {
		case dane.Usable, dane.PartlyInsecure, dane.Unusable:
			with++
		case dane.NoTLSA, dane.Insecure:
			without = h.Name
		}
		found = append(found, f.judgeHostDANE(h)...)
	}
	res := f.Explanation.DANE
	switch {
	case with > 0 && !res.MX.Answer.Secure():
		found = append(found, audit.Finding{
			Code: "dane-insecure-mx", Grade: audit.Warn, Text: "The mail hosts have TLSA records, but the MX answer is not signed: an attacker can name other hosts.",
			Advice: "Sign the zone of " + f.Domain + " (DNSSEC), or rely on MTA-STS for this domain.",
		})
	case with > 0 && without != "":
		found = append(found, audit.Finding{
			Code: "dane-partial", Grade: audit.Warn, Subject: without, Text: "This host has no signed TLSA record while others have: who wants to read the mail leads it there.",
			Advice: "Publish TLSA records for every mail host.",
		})
	case with == 0 && len(found) == 0:
		found = append(found, audit.Finding{Code: "dane-absent", Grade: audit.OK, Text: "No mail host has TLSA records: nobody expects DANE of this domain."})
	}
	return found
}

func (f *Facts) anyTLSA() bool {
	for _, h := range f.Hosts {
		if h.Verdict.HasUsable() {
			return true
		}
	}
	return false
}

func (f *Facts) judgeHostDANE(h Host) (found []audit.Finding) {
	switch h.Verdict {
	case dane.TLSAFailed:
		one := f.dnsFailure("its TLSA records", "senders that use DANE do not deliver to it", h.Err)
		one.Code, one.Subject = "dane-lookup-failed", h.Name
		return append(found, one)
	case dane.Insecure, dane.NoTLSA:
		if h.UnsignedTLSA == 0 {
			return nil
		}
		if !f.Trusted {
			return append(found, audit.Finding{
				Code: "resolver-untrusted", Grade: audit.Unknown, Subject: h.Name, Text: "It has TLSA records, but the resolver of this host is not on loopback, so its word that they are signed does not count (RFC 7672 section 2.1.3).",
				Evidence: f.servers(), Advice: "Check with a validating resolver on this host (dns.servers), or set dns.trust_ad = true if the path to it is safe.",
			})
		}
		return append(found, audit.Finding{
			Code: "dane-unsigned", Grade: audit.Warn, Subject: h.Name, Text: "It has TLSA records, but its zone is not signed (DNSSEC), so no sender believes them.",
			Evidence: number(h.UnsignedTLSA, "TLSA record"), Advice: "Sign the zone of the host, or remove the records.",
		})
	case dane.Unusable:
		return append(found, audit.Finding{
			Code: "dane-unusable", Grade: audit.Fail, Subject: h.Name, Text: "None of its TLSA records can be used for SMTP, so senders encrypt without knowing to whom.",
			Evidence: unusableText(h.TLSA), Advice: "Publish a record with usage 3, selector 1 and matching type 1 (RFC 7672 section 3.1):",
			Fix: h.tlsaRecord(),
		})
	case dane.Usable, dane.PartlyInsecure:
		return f.judgeUsable(h)
	}
	return nil
}

func (f *Facts) judgeUsable(h Host) (found []audit.Finding) {
	var bad *audit.Finding
	var badAt, goodAt []string
	var good dane.Match
	for _, a := range h.done() {
		m := a.Match
		if m.OK {
			good, goodAt = m, append(goodAt, a.Addr.String())
			continue
		}
		badAt = append(badAt, a.Addr.String())
		bad = &audit.Finding{
			Code: "dane-mismatch", Grade: audit.Fail, Subject: h.Name, Text: "It does not present what its TLSA records name, so senders that use DANE refuse to deliver to it.",
			Evidence: m.Reason, Advice: "Publish the record of the new key beside the old one, and change the key only after its TTL (RFC 7671 section 8.1):",
			Fix: h.tlsaRecord(),
		}
	}
	if bad != nil {
		bad.Evidence = list(badAt) + ": " + bad.Evidence
		found = append(found, *bad)
	}
	if len(goodAt) > 0 {
		found = append(found, audit.Finding{
			Code: "dane-ok", Grade: audit.OK, Subject: h.Name, Text: "It presents what its TLSA record names.",
			Evidence: list(goodAt) + ": " + tlsaText(good.Record) + ", at " + base(h),
		})
	}
	if bad == nil && len(goodAt) == 0 {
		found = append(found, audit.Finding{
			Code: "dane-inconclusive", Grade: audit.Unknown, Subject: h.Name, Text: "It has TLSA records, but presented no certificate to hold against them.",
			Evidence: number(len(h.TLSA), "TLSA record") + " at " + base(h), Advice: "See what is said of this mail host.",
		})
	}
	if slices.ContainsFunc(h.TLSA, dane.TLSA.DigestOfNothing) {
		empty := audit.Finding{
			Code: "dane-empty-digest", Grade: audit.Fail, Subject: h.Name, Text: "A TLSA record is the digest of no data, which no certificate matches: the command that made it failed.",
			Evidence: base(h), Advice: "Replace it with the record of the key:", Fix: h.tlsaRecord(),
		}
		if bad == nil && len(goodAt) > 0 {
			empty.Grade, empty.Advice = audit.Warn, "Remove it; another record matches."
			empty.Fix = ""
		}
		found = append(found, empty)
	}
	if why := unusableText(h.TLSA); why != "" {
		found = append(found, audit.Finding{
			Code: "dane-partly-unusable", Grade: audit.Warn, Subject: h.Name, Text: "Not all of its TLSA records can be used for SMTP.", Evidence: why,
			Advice: "Remove those; others do the work.",
		})
	}
	return found
}

func base(h Host) string { return "_25._tcp." + cmp.Or(h.Base, h.Name) }

// unusableText says which records cannot be used, and why.
func unusableText(records []dane.TLSA) string {
	var why []string
	for _, t := range records {
		if t.Unusable != "" {
			why = append(why, fmt.Sprintf("%d %d %d: %s", t.Usage, t.Selector, t.MatchingType, strings.ReplaceAll(t.Unusable, "§", "section ")))
		}
	}
	return list(why)
}

func tlsaText(t dane.TLSA) string {
	data := hex.EncodeToString(t.Data[:min(len(t.Data), 8)])
	return fmt.Sprintf("TLSA %d %d %d %s...", t.Usage, t.Selector, t.MatchingType, data)
}

// tlsaRecord is the record for the key that a host presents now, or "".
func (h Host) tlsaRecord() string {
	for _, a := range h.done() {
		return fmt.Sprintf("%s. TLSA 3 1 1 %x", base(h), sha256.Sum256(a.Probe.Chain[0].RawSubjectPublicKeyInfo))
	}
	return ""
}
