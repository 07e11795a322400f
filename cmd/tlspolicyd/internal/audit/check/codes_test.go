package check_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// Each situation gives exactly the findings that it should. Each code of the
// audit is provoked by one of them, and there is one in which it is not.
func TestSituations(t *testing.T) {
	registered := map[string]string{} // code to grades
	for _, c := range audit.Codes() {
		if c.Check != "" {
			registered[c.Name] = c.Check
		}
	}
	ran, missing := 0, map[string]bool{}
	seen := map[string]map[string]bool{} // code to the grades that it had
	for _, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			ran++
			name := s.domain
			if name == "" {
				name = domain
			}
			report := examine(t, name, s.arrange)
			got := codes(report)
			var bad []string
			for code, grade := range got {
				if grade != audit.OK {
					bad = append(bad, grade.String()+" "+code)
				}
			}
			slices.Sort(bad)
			want := slices.Clone(s.want)
			slices.Sort(want)
			if d := cmp.Diff(want, bad); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			for _, code := range s.ok {
				if got[code] != audit.OK {
					t.Errorf("%s is %v, want ok", code, got[code])
				}
			}
			for code := range registered {
				if _, ok := got[code]; !ok {
					missing[code] = true
				}
			}
			for _, topic := range report.Topics {
				for _, f := range topic.Findings {
					if registered[f.Code] == "" {
						t.Errorf("%s is not registered", f.Code)
					}
					if seen[f.Code] == nil {
						seen[f.Code] = map[string]bool{}
					}
					seen[f.Code][f.Grade.String()] = true
					wellFormed(t, f)
				}
			}
		})
	}
	if ran < len(situations()) {
		return // some were asked for with -run
	}
	for code, want := range registered {
		grades := strings.Split(want, ", ")
		slices.Sort(grades)
		if got := slices.Sorted(maps.Keys(seen[code])); !slices.Equal(got, grades) {
			t.Errorf("%s is registered with %q, but the situations give it %q", code, grades, got)
		}
		if !missing[code] {
			t.Errorf("every situation provokes %s", code)
		}
	}
}

// wellFormed checks what package audit promises of a finding.
func wellFormed(t *testing.T, f audit.Finding) {
	t.Helper()
	for _, text := range []string{f.Code, f.Subject, f.Text, f.Evidence, f.Advice, f.Fix} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%s: not a line of printable ASCII: %q", f.Code, text)
		}
	}
	switch {
	case f.Text == "":
		t.Errorf("%s has no text", f.Code)
	case f.Grade != audit.OK && f.Advice == "" && f.Code != "delivery-inconclusive" && f.Code != "delivery-failed":
		t.Errorf("%s is %v and gives no advice", f.Code, f.Grade)
	case f.Code != "policy-line-ok" && !strings.ContainsAny(f.Text[len(f.Text)-1:], ".?;"):
		t.Errorf("%s: no sentence: %q", f.Code, f.Text)
	}
}
