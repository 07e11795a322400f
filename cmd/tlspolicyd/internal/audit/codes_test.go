package audit

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// docs/check.md and docs/doctor.md list exactly the registered codes, each with
// its grades and its meaning.
func TestDocumentsListTheCodes(t *testing.T) {
	for path, grades := range map[string]func(Code) string{
		"check.md":  func(c Code) string { return c.Check },
		"doctor.md": func(c Code) string { return c.Doctor },
	} {
		var want []string
		for _, c := range Codes() {
			if grades(c) != "" {
				want = append(want, fmt.Sprintf("| `%s` | %s | %s |", c.Name, grades(c), c.Meaning))
			}
		}
		text, err := os.ReadFile("../../../../docs/" + path)
		if err != nil {
			t.Fatal(err)
		}
		got := regexp.MustCompile("(?m)^\\| `[a-z0-9-]+` \\| (?:ok|warn|fail|unknown)\\b.*$").FindAllString(string(text), -1)
		slices.Sort(want) // one that both audits have is registered once
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("docs/%s (-registered +listed):\n%s", path, d)
		}
	}
}

func TestCodesAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Codes() {
		if seen[c.Name] || !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`).MatchString(c.Name) {
			t.Errorf("%q is registered twice, or is not a code", c.Name)
		}
		seen[c.Name] = true
		for _, g := range strings.FieldsFunc(c.Check+", "+c.Doctor, func(r rune) bool { return r == ',' || r == ' ' }) {
			if !slices.Contains(gradeNames[:], g) {
				t.Errorf("%s: %q is not a grade", c.Name, g)
			}
		}
	}
}
