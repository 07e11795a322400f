package check

import (
	"errors"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
)

const week = 7 * 24 * time.Hour

// judgeMode judges mode and max_age, and whether a policy comes or goes as it
// should (RFC 8461 §5, §8.3, §10.2).
func judgeMode(f *Facts) []audit.Finding {
	r := f.Explanation.Record
	switch {
	case f.noMail() || r.Failed || f.policyDark():
		return nil
	case f.policyAlone():
		return []audit.Finding{{
			Code: "policy-unannounced", Grade: audit.Fail, Text: "There is a policy, but no valid record announces it: senders that do not know it yet never will, and the others forget it.",
			Evidence: f.Exchange.URL + ", mode " + string(f.Policy.Mode),
			Advice:   "Publish the record; or, to be rid of the policy, publish mode none with a new id, wait until the old max_age is over, and remove record and file then (RFC 8461 section 8.3).",
		}}
	case f.Announced && f.policyGone():
		return []audit.Finding{{
			Code: "sts-record-without-policy", Grade: audit.Fail, Text: "The record announces a policy, but there is none: new senders deliver unprotected, while those that learned an older policy go on enforcing it.",
			Advice: "Put the policy file back; to be rid of MTA-STS, publish mode none with a new id instead, and remove it only when the old max_age is over (RFC 8461 section 8.3).",
		}}
	case !f.Announced || f.Policy == nil:
		return nil // said of the record, or of the policy file
	}
	return f.judgePolicyMode()
}

// policyAlone reports whether there is a policy, but nothing that could be meant
// to announce it.
func (f *Facts) policyAlone() bool {
	r := f.Explanation.Record
	return f.Policy != nil && f.Policy.Mode != mtasts.None && errors.Is(r.Err, mtasts.ErrNoRecord) && len(r.Texts) == 0
}

// policyGone reports whether there is nothing at the policy's place, as when it
// was taken away.
func (f *Facts) policyGone() bool {
	if f.FetchErr == nil {
		return false
	}
	switch f.FetchErr.Stage {
	case mtasts.StageDNS:
		_, failed := errors.AsType[*dnsclient.Error](f.FetchErr.Err)
		return !failed
	case mtasts.StageConnect, mtasts.StageTimeout, mtasts.StageStatus, mtasts.StageRedirect:
		return true
	}
	return false
}

func (f *Facts) judgePolicyMode() (found []audit.Finding) {
	p := f.Policy
	seen := "max_age " + ageText(p.MaxAge)
	switch p.Mode {
	case mtasts.Enforce:
		found = append(found, audit.Finding{Code: "mode-enforce", Grade: audit.OK, Text: "Mode enforce: senders insist on the policy.", Evidence: seen})
		if p.MaxAge < week {
			found = append(found, audit.Finding{
				Code: "max-age-short", Grade: audit.Warn, Text: "The max_age is under a week: whoever can block the policy host for that long switches the policy off.",
				Evidence: seen, Advice: "Raise it to some weeks once the policy works (RFC 8461 section 3.2):", Fix: "max_age: 2592000",
			})
		}
	case mtasts.Testing:
		found = append(found, audit.Finding{
			Code: "mode-testing", Grade: audit.Warn, Text: "Mode testing: senders report failures but deliver all the same, so mail is not protected yet.",
			Evidence: seen, Advice: "Read the TLSRPT reports for some weeks, then publish mode enforce with a new id.",
		})
	case mtasts.None:
		found = append(found, audit.Finding{
			Code: "mode-none", Grade: audit.Warn, Text: "Mode none: the policy says that there is none, as when MTA-STS is being removed.", Evidence: seen,
			Advice: "Remove the record and the file when the max_age of the policy before it is over, or go on to mode testing.",
		})
	}
	return found
}
