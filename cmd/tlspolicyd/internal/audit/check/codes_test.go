package check_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
)

// Each situation gives exactly the findings that it should. Each code of the
// package is provoked by one of them, and there is one in which it is not.
func TestSituations(t *testing.T) {
	known := declaredCodes(t)
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
			for _, code := range known {
				if _, ok := got[code]; !ok {
					missing[code] = true
				}
			}
			for _, topic := range report.Topics {
				for _, f := range topic.Findings {
					if !slices.Contains(known, f.Code) {
						t.Errorf("%s is no constant of the package", f.Code)
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
	documented := documentedCodes(t)
	for _, code := range known {
		grades := strings.Join(slices.Sorted(maps.Keys(seen[code])), ", ")
		if grades == "" {
			t.Errorf("no situation provokes %s", code)
		}
		if documented[code] != grades {
			t.Errorf("docs/check.md says that %s is %q, but it was %q", code, documented[code], grades)
		}
		delete(documented, code)
		if !missing[code] {
			t.Errorf("every situation provokes %s", code)
		}
	}
	for code := range documented {
		t.Errorf("docs/check.md has a code %s that there is not", code)
	}
}

// wellFormed holds a finding against what package finding promises.
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
	case f.Grade != audit.OK && f.Advice == "" && f.Code != check.CodeDeliveryUnknown && f.Code != check.CodeDeliveryFails:
		t.Errorf("%s is %v and gives no advice", f.Code, f.Grade)
	case f.Code != check.CodeLineOK && !strings.ContainsAny(f.Text[len(f.Text)-1:], ".?;"):
		t.Errorf("%s: no sentence: %q", f.Code, f.Text)
	}
}

// documentedCodes are the rows of the table in docs/check.md: code to grades.
func documentedCodes(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../../../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| ((?:ok|warn|fail|unknown)[a-z, ]*) \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("docs/check.md has %s twice", m[1])
		}
		rows[m[1]] = m[2]
	}
	return rows
}

// declaredCodes reads the Code constants out of the package's source, each with
// a doc comment.
func declaredCodes(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") {
				return true
			}
			code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil || found[code] {
				t.Errorf("%s: %q, %v: twice, or no string", spec.Names[0].Name, code, err)
			}
			if spec.Doc.Text() == "" {
				t.Errorf("%s has no doc comment", spec.Names[0].Name)
			}
			found[code] = true
			return true
		})
	}
	if len(found) < 60 {
		t.Errorf("only %d codes were found", len(found))
	}
	return slices.Sorted(maps.Keys(found))
}
