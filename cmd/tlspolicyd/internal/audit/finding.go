// Package audit is the vocabulary of an audit: what was checked, how bad it is,
// what shows it, and what to do next. The audits of a mail domain (audit/check)
// and of a host (audit/doctor) share it, so that people and scripts learn it once.
package audit

import "fmt"

// Grade says how bad a finding is. Its zero value is not a grade.
type Grade uint8

const (
	OK      Grade = iota + 1 // as it should be
	Warn                     // works today, but needs attention
	Fail                     // mail is deferred or sent unprotected
	Unknown                  // could not be determined, which is not the fault of what is audited
)

var gradeNames = [...]string{OK: "ok", Warn: "warn", Fail: "fail", Unknown: "unknown"}

// String returns the grade as in JSON: "ok", "warn", "fail" or "unknown".
func (g Grade) String() string {
	if g < OK || g > Unknown {
		return fmt.Sprintf("grade %d", uint8(g))
	}
	return gradeNames[g]
}

// MarshalText writes the grade as String does.
func (g Grade) MarshalText() ([]byte, error) {
	if g < OK || g > Unknown {
		return nil, fmt.Errorf("audit: %s is not a grade", g)
	}
	return []byte(g.String()), nil
}

// Finding is one thing that an audit found. Texts are one line each and come from
// the audit; untrusted bytes in them are escaped to printable ASCII.
type Finding struct {
	Code     string `json:"code"` // one of Codes
	Grade    Grade  `json:"grade"`
	Subject  string `json:"subject"`  // what it is about where a topic has several: a host, a line; or ""
	Text     string `json:"text"`     // what is so, one sentence
	Evidence string `json:"evidence"` // what shows it, as it was seen; may be ""
	Advice   string `json:"advice"`   // what to do next, one sentence; "" where nothing is to be done
	Fix      string `json:"fix"`      // the exact command that fixes it, or what to add to a line; "" where there is none
}

// Passed is a finding of grade OK.
func Passed(code, subject, text, evidence string) Finding {
	return Finding{Code: code, Grade: OK, Subject: subject, Text: text, Evidence: evidence}
}

// Warned is a finding of grade Warn.
func Warned(code, subject, text, evidence, advice, fix string) Finding {
	return Finding{code, Warn, subject, text, evidence, advice, fix}
}

// Failed is a finding of grade Fail.
func Failed(code, subject, text, evidence, advice, fix string) Finding {
	return Finding{code, Fail, subject, text, evidence, advice, fix}
}

// Inconclusive is a finding of grade Unknown.
func Inconclusive(code, subject, text, evidence, advice string) Finding {
	return Finding{Code: code, Grade: Unknown, Subject: subject, Text: text, Evidence: evidence, Advice: advice}
}

// Topic is a block of findings that belong together.
type Topic struct {
	Name     string    `json:"name"` // stable, lower case: "policy file"
	Findings []Finding `json:"findings"`
}

// Worst returns the worst grade of the findings: Fail before Unknown before Warn
// before OK. No findings are OK.
func Worst(topics []Topic) Grade {
	rank := [...]int{OK: 0, Warn: 1, Unknown: 2, Fail: 3}
	worst := OK
	for _, t := range topics {
		for _, f := range t.Findings {
			if rank[f.Grade] > rank[worst] {
				worst = f.Grade
			}
		}
	}
	return worst
}
