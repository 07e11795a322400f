//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
)

// hostFault is one thing that can be wrong with a host.
type hostFault struct {
	name   string
	want   []string // "grade code" of what doctor finds
	spoil  func(*testing.T, *doctorHost)
	broken doctorRun // how doctor is run then
	// mend gets the lines that those findings print. nil: the host is sound, and
	// doctor was run in another way.
	mend   func(t *testing.T, h *doctorHost, lines []string)
	mended doctorRun // how doctor is run afterwards
	left   []string  // codes that stay, where doctor leaves a choice to the operator
}

// tryFaults goes through faults: doctor finds each, what it advises is done, and
// the finding is gone.
func (h *doctorHost) tryFaults(t *testing.T, list []hostFault) {
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			if a.spoil != nil {
				a.spoil(t, h)
			}
			lines := h.wantFindings(t, a)
			if a.mend != nil {
				a.mend(t, h, lines)
			}
			all := h.doctor(t, a.mended)
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

// wantFindings has doctor find what an hostFault wants, and returns the lines that
// are to mend it.
func (h *doctorHost) wantFindings(t *testing.T, a hostFault) (lines []string) {
	t.Helper()
	all := h.doctor(t, a.broken)
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
func byItsLines(t *testing.T, h *doctorHost, lines []string) {
	t.Helper()
	if len(lines) == 0 {
		t.Fatal("doctor has no line that mends it")
	}
	for _, line := range lines {
		if _, _, err := command(h.root, "/bin/sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	h.cool(t)
}

// settings is an hostFault of main.cf that doctor's own line mends.
func settings(name, want string, changed ...string) hostFault {
	return hostFault{
		name: name, want: []string{want}, mend: byItsLines,
		spoil: func(t *testing.T, h *doctorHost) { h.change(t, changed...) },
	}
}
