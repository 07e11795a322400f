//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
)

// ailment is one thing that can be wrong with a host.
type ailment struct {
	name  string
	want  []string // "grade code" of what doctor finds
	spoil func(*testing.T, *patient)
	ill   visit // how doctor is run then
	// mend gets the lines that those findings print. nil: the host is well, and
	// doctor was run in another way.
	mend func(t *testing.T, p *patient, lines []string)
	well visit    // how doctor is run afterwards
	left []string // codes that stay, where doctor leaves a choice to the operator
}

// treat goes through ailments: doctor finds each, what it advises is done, and
// the finding is gone.
func (p *patient) treat(t *testing.T, list []ailment) {
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			if a.spoil != nil {
				a.spoil(t, p)
			}
			lines := p.diagnosed(t, a)
			if a.mend != nil {
				a.mend(t, p, lines)
			}
			all := p.doctor(t, a.well)
			for _, f := range troubles(all) {
				if !slices.Contains(a.left, f.Code) {
					t.Errorf("afterwards there is %+v", f)
				}
			}
			for _, w := range a.want {
				if _, code, _ := strings.Cut(w, " "); slices.Contains(codesOf(all), code) {
					t.Errorf("%s is still there", code)
				}
			}
		})
	}
}

// diagnosed has doctor find what an ailment wants, and returns the lines that
// are to mend it.
func (p *patient) diagnosed(t *testing.T, a ailment) (lines []string) {
	t.Helper()
	all := p.doctor(t, a.ill)
	for _, w := range a.want {
		grade, code, _ := strings.Cut(w, " ")
		f := want(t, all, code)
		if f.Grade != grade {
			t.Errorf("%s is %s, want %s: %+v", code, f.Grade, grade, f)
		}
		if f.Grade != "ok" && f.Advice == "" {
			t.Errorf("%s has no advice", code)
		}
		if f.Fix != "" && !slices.Contains(lines, f.Fix) {
			lines = append(lines, f.Fix)
		}
	}
	return lines
}

// byItsLines runs the lines that doctor prints, as they are.
func byItsLines(t *testing.T, p *patient, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Fatal("doctor has no line that mends it")
	}
	for _, line := range lines {
		if _, _, err := command(p.root, "/bin/sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	p.cool(t)
}

// settings is an ailment of main.cf that doctor's own line mends.
func settings(name, want string, changed ...string) ailment {
	return ailment{
		name: name, want: []string{want}, mend: byItsLines,
		spoil: func(t *testing.T, p *patient) { p.change(t, changed...) },
	}
}
