//go:build e2e

package e2e

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// systemdDir is there where systemd runs the host.
const systemdDir = "/run/systemd/system"

// hostAilments are about what Postfix and the daemon have in common with
// everything else on the host.
func hostAilments(t *testing.T) []ailment {
	empty := variant(t, "no-authority", workDir+"/ca.pem", workDir+"/empty.pem")
	return []ailment{
		{
			name: "no certificate authority", want: []string{"fail trust-store-empty"},
			spoil: func(t *testing.T, _ *patient) {
				if err := write(workDir+"/empty.pem", ""); err != nil {
					t.Fatal(err)
				}
			},
			ill: visit{flags: []string{"--config", empty}},
		},
		{
			name: "a systemd that nobody can ask", want: []string{"unknown unit-untold"},
			spoil: func(t *testing.T, _ *patient) {
				if err := os.MkdirAll(systemdDir, 0o755); err != nil {
					t.Fatal(err)
				}
			},
			mend: func(t *testing.T, _ *patient, _ []string) {
				if err := os.RemoveAll("/run/systemd"); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "an ordinary user", want: []string{"unknown daemon-untold", "unknown database-untold"},
			ill: visit{user: lp},
		},
		{
			name: "a clock that nobody keeps right", want: []string{"warn clock-unsynchronised"},
			ill: visit{kernel: &kernelClock{state: timeError}}, well: visit{kernel: &kernelClock{}},
		},
		{
			name: "a clock that somebody keeps right", want: []string{"ok clock-right"},
			ill: visit{kernel: &kernelClock{}}, well: visit{kernel: &kernelClock{state: timeError}},
		},
		{
			name: "a kernel that may not be asked", want: []string{"unknown clock-untold"},
			ill: visit{kernel: &kernelClock{errno: unix.EPERM}}, well: visit{kernel: &kernelClock{}},
		},
	}
}

// testDoctorDaemon has a daemon that is older than the program that looks at it.
func testDoctorDaemon(t *testing.T, p *patient) {
	older := os.Getenv("TLSPOLICYD_E2E_OTHER")
	if older == "" {
		t.Fatal("TLSPOLICYD_E2E_OTHER is not set: run it with make e2e")
	}
	program, err := os.ReadFile(older)
	if err != nil {
		t.Fatal(err)
	}
	s := newSecond(t)
	binary := s.dir + "/older"
	if err := errors.Join(write(binary, string(program)), os.Chmod(binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	as := visit{flags: []string{"--config", s.config}}
	p.treat(t, []ailment{{
		name: "upgraded and not restarted", want: []string{"warn daemon-other-version"}, ill: as, well: as,
		spoil: func(t *testing.T, _ *patient) { s.start(t, binary, s.config) },
		mend: func(t *testing.T, p *patient, _ []string) {
			s.stop(t)
			s.start(t, p.w.daemon.binary, s.config)
		},
	}})
}

// cover puts something else in the place of a path of the sender's Debian, until
// the end of the test at most.
func (p *patient) cover(t *testing.T, source, path string) {
	t.Helper()
	if err := unix.Mount(source, p.root+path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(p.root+path, 0); err != nil && !errors.Is(err, unix.EINVAL) { // uncovered
			t.Error(err)
		}
	})
}

func (p *patient) uncover(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(p.root+path, 0); err != nil {
		t.Fatal(err)
	}
}
