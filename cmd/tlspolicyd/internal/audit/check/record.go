package check

import (
	"errors"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/mtasts"
)

// judgeRecord judges the _mta-sts TXT record (RFC 8461 §3.1).
func judgeRecord(f *Facts) (found []audit.Finding) {
	if f.noMail() {
		return nil
	}
	const replace = "Replace it with:"
	r := f.Explanation.Record
	name := "_mta-sts." + f.Domain
	seen := texts(r.Texts)
	if len(r.Answer.Chain) > 0 {
		seen = strings.TrimPrefix(seen+"; "+name+" CNAME "+oneLine(strings.TrimSuffix(r.Answer.Final, ".")), "; ")
	}
	right := name + `. TXT "v=STSv1; id=` + f.At.UTC().Format("20060102150405") + `;"`
	switch {
	case r.Found:
		found = append(found, audit.Passed("sts-record-ok", "", "Exactly one MTA-STS record, and it is valid; its id is "+r.Record.ID+".", seen))
		if len(r.Texts) > 1 {
			found = append(found, audit.Warned("sts-record-extra-txt", "", "There are other TXT records at "+name+", which do not belong there.",
				seen, "Remove them; a second one that begins like the first would switch MTA-STS off.", ""))
		}
	case r.Failed:
		failed := f.dnsFailure("the MTA-STS record", "senders get no policy", r.Err)
		failed.Code = "sts-record-lookup-failed"
		found = append(found, failed)
	case errors.Is(r.Err, mtasts.ErrManyRecords):
		found = append(found, audit.Failed("sts-record-multiple", "", "There is more than one MTA-STS record, so senders use none (RFC 8461 section 3.1).",
			seen, "Keep one, with a new id:", right))
	case errors.Is(r.Err, mtasts.ErrNoRecord) && len(r.Texts) > 0:
		found = append(found, audit.Failed("sts-record-unrecognized", "", "The TXT record at "+name+" is not an MTA-STS record: it does not begin with v=STSv1;", seen, replace, right))
	case errors.Is(r.Err, mtasts.ErrNoRecord):
		absent := audit.Warned("sts-record-missing", "", "There is no MTA-STS record, so senders that do not use DANE, large providers among them, do not require TLS.",
			"no TXT record at "+name, "Publish a policy file first and then the record (RFC 8461); begin with mode testing.", "")
		if f.policyAlone() {
			absent.Advice, absent.Fix = "The policy file exists; publish the record:", right
		}
		found = append(found, absent)
	default:
		found = append(found, audit.Failed("sts-record-invalid", "", sentence(errorText(r.Err)+": senders ignore it"), seen, replace, right))
	}
	return found
}

// texts shows TXT records.
func texts(records [][]byte) string {
	var quoted []string
	for _, r := range records[:min(len(records), maxList)] {
		quoted = append(quoted, `"`+oneLine(r)+`"`)
	}
	return strings.Join(quoted, ", ")
}
