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
	case f.noMail() || r.Failed || f.policyInconclusive():
		return nil
	case f.policyAlone():
		return []audit.Finding{audit.Failed("policy-unannounced", "", "There is a policy, but no valid record announces it: senders that do not know it never will, and the others forget it.",
			f.Exchange.URL+", mode "+string(f.Policy.Mode),
			"Publish the record; or, to remove the policy, publish mode none with a new id, wait until the old max_age is over, and then remove record and file (RFC 8461 section 8.3).", "")}
	case f.Announced && f.policyGone():
		return []audit.Finding{audit.Failed("sts-record-without-policy", "", "The record announces a policy, but there is none: new senders deliver unprotected, while those that know an older policy go on enforcing it.", "",
			"Restore the policy file; to remove MTA-STS, publish mode none with a new id instead, and remove it only when the old max_age is over (RFC 8461 section 8.3).", "")}
	case !f.Announced || f.Policy == nil:
		return nil // the findings about the record or the policy file say why
	}
	return f.judgePolicyMode()
}

// policyAlone reports whether there is a policy, but nothing that could be meant
// to announce it.
func (f *Facts) policyAlone() bool {
	r := f.Explanation.Record
	return f.Policy != nil && f.Policy.Mode != mtasts.None && errors.Is(r.Err, mtasts.ErrNoRecord) && len(r.Texts) == 0
}

// policyGone reports whether there is no policy file, as when it was removed.
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
		found = append(found, audit.Passed("policy-mode-enforce", "", "Mode enforce: senders enforce the policy.", seen))
		if p.MaxAge < week {
			found = append(found, audit.Warned("policy-max-age-short", "", "The max_age is under a week: an attacker who can block the policy host for that long switches the policy off.",
				seen, "Raise it to some weeks once the policy works (RFC 8461 section 3.2):", "max_age: 2592000"))
		}
	case mtasts.Testing:
		found = append(found, audit.Warned("policy-mode-testing", "", "Mode testing: senders report failures but deliver, so mail is not protected yet.",
			seen, "Read the TLSRPT reports for some weeks, then publish mode enforce with a new id.", ""))
	case mtasts.None:
		found = append(found, audit.Warned("policy-mode-none", "", "Mode none: the policy says that there is none, as when MTA-STS is being removed.",
			seen, "Remove the record and the file when the max_age of the policy before it is over, or go on to mode testing.", ""))
	}
	return found
}
