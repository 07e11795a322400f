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
	r := f.Explanation.Record
	name := "_mta-sts." + f.Domain
	seen := ""
	if len(r.Texts) > 0 {
		seen = texts(r.Texts)
	}
	right := name + `. TXT "v=STSv1; id=` + f.At.UTC().Format("20060102150405") + `;"`
	if len(r.Answer.Chain) > 0 {
		seen += "; " + name + " CNAME " + oneLine(strings.TrimSuffix(r.Answer.Final, "."))
	}
	switch {
	case r.Found:
		found = append(found, audit.Finding{Code: "sts-record-ok", Grade: audit.OK, Text: "Exactly one MTA-STS record, and it is valid; its id is " + r.Record.ID + ".", Evidence: seen})
		if len(r.Texts) > 1 {
			found = append(found, audit.Finding{
				Code: "sts-record-extra-txt", Grade: audit.Warn, Text: "There are other TXT records at " + name + ", which have no business there.",
				Evidence: seen, Advice: "Remove them; a second one that begins like the first would switch MTA-STS off.",
			})
		}
	case r.Failed:
		failed := f.dnsFailure("the MTA-STS record", "senders learn no policy", r.Err)
		failed.Code = "sts-record-lookup-failed"
		found = append(found, failed)
	case errors.Is(r.Err, mtasts.ErrManyRecords):
		found = append(found, audit.Finding{
			Code: "sts-record-multiple", Grade: audit.Fail, Text: "There is more than one MTA-STS record, so senders take none (RFC 8461 section 3.1).",
			Evidence: seen, Advice: "Keep one, with a new id:", Fix: right,
		})
	case errors.Is(r.Err, mtasts.ErrNoRecord) && len(r.Texts) > 0:
		found = append(found, audit.Finding{
			Code: "sts-record-unrecognized", Grade: audit.Fail, Text: "What stands at " + name + " is no MTA-STS record: it does not begin with v=STSv1;",
			Evidence: seen, Advice: "Put this in its place:", Fix: right,
		})
	case errors.Is(r.Err, mtasts.ErrNoRecord):
		absent := audit.Finding{
			Code: "sts-record-missing", Grade: audit.Warn, Text: "There is no MTA-STS record, so large providers, which look at nothing else, do not insist on TLS.",
			Evidence: "no TXT record at " + name, Advice: "Publish a policy file first and then the record (RFC 8461); begin with mode testing.",
		}
		if f.policyAlone() {
			absent.Advice, absent.Fix = "The policy file is there; publish the record:", right
		}
		found = append(found, absent)
	default:
		found = append(found, audit.Finding{
			Code: "sts-record-invalid", Grade: audit.Fail, Text: sentence(errorText(r.Err) + ": senders ignore it"),
			Evidence: seen, Advice: "Put this in its place:", Fix: right,
		})
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
