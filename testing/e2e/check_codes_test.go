//go:build e2e

package e2e

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notProvoked are codes that cannot occur in this world, each with the reason.
// There is none today. A new code that no audit here shows must be provoked by one of
// checkDomains, or get its reason.
func notProvoked() map[string]string { return map[string]string{} }

// codesSeen are the codes of all audits of a run.
type codesSeen struct {
	all    []string          // documented codes
	grades map[string]string // the same, with the grades that they may have
	count  map[string]int    // audits that had a code
	audits int
}

// newCodesSeen knows the codes of docs/check.md, which a test of cmd/tlspolicyd/internal/audit/check
// holds against the code. run.sh starts the tests at the root of the repository.
func newCodesSeen(t *testing.T) *codesSeen {
	t.Helper()
	text, err := os.ReadFile("docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	s := &codesSeen{count: map[string]int{}, grades: map[string]string{}}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| ((?:ok|warn|fail|unknown)[a-z, ]*) \\|").FindAllStringSubmatch(string(text), -1) {
		s.all, s.grades[m[1]] = append(s.all, m[1]), m[2]
	}
	if len(s.all) < 60 {
		t.Fatalf("docs/check.md has only %d codes", len(s.all))
	}
	return s
}

func (s *codesSeen) add(t *testing.T, a audit) {
	t.Helper()
	had := map[string]bool{}
	for _, both := range a.codes() {
		grade, code, _ := strings.Cut(both, " ")
		had[code] = true
		if !slices.Contains(strings.Split(s.grades[code], ", "), grade) {
			t.Errorf("%s: %s is %s, but docs/check.md says %q", a.Domain, code, grade, s.grades[code])
		}
	}
	for code := range had {
		s.count[code]++
	}
	s.audits++
}

// complete: each code was provoked, and there was an audit without it, or it is
// said why it cannot be.
func (s *codesSeen) complete(t *testing.T) {
	excused := notProvoked()
	provoked := 0
	for _, code := range s.all {
		reason, isExcused := excused[code]
		delete(excused, code)
		n := s.count[code]
		if n > 0 {
			provoked++
		}
		switch {
		case n == 0 && reason == "":
			t.Errorf("no audit shows %s: add a domain to checkDomains(), or its reason to notProvoked()", code)
		case n > 0 && isExcused:
			t.Errorf("%s was seen, and is in notProvoked()", code)
		case n == s.audits:
			t.Errorf("every audit shows %s", code)
		}
	}
	for code := range excused {
		t.Errorf("notProvoked() has %s, which docs/check.md does not", code)
	}
	t.Logf("%d of %d codes in %d audits", provoked, len(s.all), s.audits)
}
