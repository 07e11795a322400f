// Package audit is the vocabulary of an audit: what was looked at, how bad it
// is, what shows it, and what to do next. The audits of a mail domain
// (cmd/tlspolicyd/internal/audit/check) and of a host (cmd/tlspolicyd/internal/audit/doctor) both speak it, so that
// people and scripts learn it once.
package audit

import "fmt"

// Grade says how bad a finding is. Its zero value is not a grade.
type Grade uint8

const (
	OK      Grade = iota + 1 // as it should be
	Warn                     // works today, and somebody should look at it
	Fail                     // mail is held back or goes out unprotected
	Unknown                  // could not tell, and not the audited side's fault
)

var gradeNames = [...]string{OK: "ok", Warn: "warn", Fail: "fail", Unknown: "unknown"}

// String returns the grade as it stands in JSON: "ok", "warn", "fail" or
// "unknown".
func (g Grade) String() string {
	if g < OK || g > Unknown {
		return fmt.Sprintf("grade %d", uint8(g))
	}
	return gradeNames[g]
}

// MarshalText writes the grade as String does.
func (g Grade) MarshalText() ([]byte, error) {
	if g < OK || g > Unknown {
		return nil, fmt.Errorf("audit: %s is none", g)
	}
	return []byte(g.String()), nil
}

// Finding is one thing that an audit saw. Texts are one line each and come from
// the audit; what they quote of foreign bytes is escaped to printable ASCII.
type Finding struct {
	Code     string `json:"code"` // stable: "policy-unreachable"; scripts rely on it
	Grade    Grade  `json:"grade"`
	Subject  string `json:"subject"`  // what it is about where a topic has several: a host, a line; "" for none
	Text     string `json:"text"`     // what is so, one sentence
	Evidence string `json:"evidence"` // what shows it, as it was seen; may be ""
	Advice   string `json:"advice"`   // what to do next, one sentence; "" where nothing is to be done
	Fix      string `json:"fix"`      // the exact line or command that mends it; "" where there is none
}

// Topic is a block of findings that belong together.
type Topic struct {
	Name     string    `json:"name"` // stable, lower case: "policy file"
	Findings []Finding `json:"findings"`
}

// Worst returns the grade that the findings come to: Fail before Unknown
// before Warn before OK. No findings are OK.
func Worst(topics []Topic) Grade {
	worst := OK
	for _, t := range topics {
		for _, f := range t.Findings {
			if rank(f.Grade) > rank(worst) {
				worst = f.Grade
			}
		}
	}
	return worst
}

func rank(g Grade) int {
	switch g {
	case Fail:
		return 3
	case Unknown:
		return 2
	case Warn:
		return 1
	}
	return 0
}
