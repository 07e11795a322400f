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
	cause  func(*testing.T, *doctorHost)
	broken doctorRun // how doctor is run then
	// repair gets the lines that those findings print. nil: nothing is wrong with the
	// host, and doctor was run in another way.
	repair   func(t *testing.T, h *doctorHost, lines []string)
	repaired doctorRun // how doctor is run afterwards
	left     []string  // codes that stay, where doctor leaves a choice to the operator
}

// tryFaults goes through faults: doctor finds each, its advice is followed, and the
// finding is gone.
func (h *doctorHost) tryFaults(t *testing.T, list []hostFault) {
	for _, a := range list {
		t.Run(a.name, func(t *testing.T) {
			if a.cause != nil {
				a.cause(t, h)
			}
			lines := h.wantFindings(t, a)
			if a.repair != nil {
				a.repair(t, h, lines)
			}
			all := h.doctor(t, a.repaired)
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

// wantFindings has doctor find what a hostFault wants, and returns the lines that
// fix it.
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
		t.Fatal("doctor has no line that fixes it")
	}
	for _, line := range lines {
		if _, _, err := command(h.root, "/bin/sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	h.cool(t)
}

// settings is a hostFault of main.cf that doctor's own line fixes.
func settings(name, want string, changed ...string) hostFault {
	return hostFault{
		name: name, want: []string{want}, repair: byItsLines,
		cause: func(t *testing.T, h *doctorHost) { h.change(t, changed...) },
	}
}
