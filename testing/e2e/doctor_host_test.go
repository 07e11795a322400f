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

// hostFaults are about what Postfix and the daemon have in common with
// everything else on the host.
func hostFaults(t *testing.T) []hostFault {
	empty := variant(t, "no-authority", workDir+"/ca.pem", workDir+"/empty.pem")
	closed := variant(t, "closed")
	return []hostFault{
		{
			name: "a mistake in the configuration", want: []string{"fail config-invalid"},
			broken: doctorRun{flags: []string{"--config", variant(t, "mistake", "[dns]", "[dnss]")}},
		},
		{
			name: "an ordinary user and a closed configuration", want: []string{"unknown config-inconclusive"},
			broken: doctorRun{user: lp, flags: []string{"--config", closed}},
			cause:  func(t *testing.T, _ *doctorHost) { chmod(t, closed, 0o600, 0o644) },
		},
		{
			name: "no certificate authority", want: []string{"fail trust-store-empty"},
			cause: func(t *testing.T, _ *doctorHost) {
				if err := write(workDir+"/empty.pem", ""); err != nil {
					t.Fatal(err)
				}
			},
			broken: doctorRun{flags: []string{"--config", empty}},
		},
		{
			name: "a systemd that does not answer", want: []string{"unknown unit-inconclusive"},
			cause: func(t *testing.T, _ *doctorHost) {
				if err := os.MkdirAll(systemdDir, 0o755); err != nil {
					t.Fatal(err)
				}
			},
			repair: func(t *testing.T, _ *doctorHost, _ []string) {
				if err := os.RemoveAll("/run/systemd"); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name: "an ordinary user", want: []string{"unknown daemon-inconclusive", "unknown database-inconclusive"},
			broken: doctorRun{user: lp},
		},
		{
			name: "a clock that nothing synchronizes", want: []string{"warn clock-unsynchronized"},
			broken: doctorRun{kernel: &kernelClock{state: timeError}}, repaired: doctorRun{kernel: &kernelClock{}},
		},
		{
			name: "a clock that is synchronized", want: []string{"ok clock-ok"},
			broken: doctorRun{kernel: &kernelClock{}}, repaired: doctorRun{kernel: &kernelClock{state: timeError}},
		},
		{
			name: "a kernel that does not answer", want: []string{"unknown clock-inconclusive"},
			broken: doctorRun{kernel: &kernelClock{errno: unix.EPERM}}, repaired: doctorRun{kernel: &kernelClock{}},
		},
	}
}

// testDoctorDaemon has a daemon that is older than the program that looks at it.
func testDoctorDaemon(t *testing.T, h *doctorHost) {
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
	as := doctorRun{flags: []string{"--config", s.config}}
	h.tryFaults(t, []hostFault{{
		name: "upgraded and not restarted", want: []string{"warn daemon-other-version"}, broken: as, repaired: as,
		cause: func(t *testing.T, _ *doctorHost) { s.start(t, binary, s.config) },
		repair: func(t *testing.T, h *doctorHost, _ []string) {
			s.stop(t)
			s.start(t, h.w.daemon.binary, s.config)
		},
	}})
}

// cover puts something else in the place of a path of the sender's Debian, until
// the end of the test at most.
func (h *doctorHost) cover(t *testing.T, source, path string) {
	t.Helper()
	if err := unix.Mount(source, h.root+path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.root+path, 0); err != nil && !errors.Is(err, unix.EINVAL) { // uncovered
			t.Error(err)
		}
	})
}

func (h *doctorHost) uncover(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(h.root+path, 0); err != nil {
		t.Fatal(err)
	}
}
