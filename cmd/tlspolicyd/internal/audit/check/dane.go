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
	if f.port25Blocked() && slices.ContainsFunc(f.Hosts, func(h Host) bool { return h.Verdict.HasUsable() }) {
		return []audit.Finding{audit.Inconclusive("dane-inconclusive", "", "There are TLSA records, but no host presented a certificate to compare with them.", "", "See the findings about this host.")}
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
	switch {
	case with > 0 && !f.Explanation.DANE.MX.Answer.Secure():
		found = append(found, audit.Warned("dane-insecure-mx", "", "The mail hosts have TLSA records, but the MX answer is not signed: an attacker can name other hosts.", "",
			"Sign the zone of "+f.Domain+" (DNSSEC), or rely on MTA-STS for this domain.", ""))
	case with > 0 && without != "":
		found = append(found, audit.Warned("dane-partial", without, "This host has no signed TLSA record while others have: an attacker can divert mail to this unprotected host.", "",
			"Publish TLSA records for every mail host.", ""))
	case with == 0 && len(found) == 0:
		found = append(found, audit.Passed("dane-absent", "", "No mail host has TLSA records: senders do not use DANE for this domain.", ""))
	}
	return found
}

func (f *Facts) judgeHostDANE(h Host) []audit.Finding {
	switch h.Verdict {
	case dane.TLSAFailed:
		one := f.dnsFailure("its TLSA records", "senders that use DANE do not deliver to it", h.Err)
		one.Code, one.Subject = "dane-lookup-failed", h.Name
		return []audit.Finding{one}
	case dane.Insecure, dane.NoTLSA:
		switch {
		case h.UnsignedTLSA == 0:
			return nil
		case !f.Trusted:
			return []audit.Finding{audit.Inconclusive("resolver-untrusted", h.Name, "It has TLSA records, but the resolver of this host is not on loopback, so its AD bits do not count (RFC 7672 section 2.1.3).",
				f.servers(), "Check with a validating resolver on this host (dns.servers), or set dns.trust_ad = true if the path to it is safe.")}
		}
		return []audit.Finding{audit.Warned("dane-unsigned", h.Name, "It has TLSA records, but its zone is not signed (DNSSEC), so senders ignore them.",
			number(h.UnsignedTLSA, "TLSA record"), "Sign the zone of the host, or remove the records.", "")}
	case dane.Unusable:
		return []audit.Finding{audit.Failed("dane-unusable", h.Name, "None of its TLSA records can be used for SMTP, so senders encrypt without authentication.",
			unusableText(h.TLSA), "Publish a record with usage 3, selector 1 and matching type 1 (RFC 7672 section 3.1):", h.tlsaRecord())}
	case dane.Usable, dane.PartlyInsecure:
		return f.judgeUsable(h)
	}
	return nil
}

func (f *Facts) judgeUsable(h Host) (found []audit.Finding) {
	var badAt, goodAt []string
	var good dane.Match
	reason := ""
	for _, a := range h.done() {
		if a.Match.OK {
			good, goodAt = a.Match, append(goodAt, a.Addr.String())
		} else {
			reason, badAt = a.Match.Reason, append(badAt, a.Addr.String())
		}
	}
	if len(badAt) > 0 {
		found = append(found, audit.Failed("dane-mismatch", h.Name, "It does not present what its TLSA records name, so senders that use DANE refuse to deliver to it.",
			list(badAt)+": "+reason, "Publish the record of the new key beside the old one, and change the key only after its TTL (RFC 7671 section 8.1):", h.tlsaRecord()))
	}
	if len(goodAt) > 0 {
		found = append(found, audit.Passed("dane-ok", h.Name, "It presents what its TLSA record names.", list(goodAt)+": "+tlsaText(good.Record)+", at "+base(h)))
	}
	if len(badAt)+len(goodAt) == 0 {
		found = append(found, audit.Inconclusive("dane-inconclusive", h.Name, "It has TLSA records, but presented no certificate to compare with them.",
			number(len(h.TLSA), "TLSA record")+" at "+base(h), "See the findings about this mail host."))
	}
	if slices.ContainsFunc(h.TLSA, dane.TLSA.DigestOfNothing) {
		const text = "A TLSA record is the digest of no data, which no certificate matches: the command that made it failed."
		if len(badAt) == 0 && len(goodAt) > 0 {
			found = append(found, audit.Warned("dane-empty-digest", h.Name, text, base(h), "Remove it; another record matches.", ""))
		} else {
			found = append(found, audit.Failed("dane-empty-digest", h.Name, text, base(h), "Replace it with the record of the key:", h.tlsaRecord()))
		}
	}
	if why := unusableText(h.TLSA); why != "" {
		found = append(found, audit.Warned("dane-partly-unusable", h.Name, "Not all of its TLSA records can be used for SMTP.", why, "Remove those that cannot.", ""))
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
