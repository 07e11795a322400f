//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// doctorFinding is what "tlspolicyd doctor --json" prints of one finding.
type doctorFinding struct {
	Code, Grade, Subject, Text, Evidence, Advice, Fix string
}

// doctorHost is a sending host that doctor checks.
type doctorHost struct {
	*sender
	w    *world
	seen *tally
}

// tally counts the runs of doctor, and those that found each code.
type tally struct {
	runs  int
	found map[string]int
}

// doctorRun is one way to run doctor; zero is that of an admin of a host with the
// names of this world.
type doctorRun struct {
	flags  []string     // more of them; of two that are the same the last counts
	user   uint32       // who runs it
	kernel *kernelClock // what the kernel says of the clock; nil: what it says
}

func (h *doctorHost) doctorArgs(more ...string) []string {
	return append([]string{
		"doctor", "--config", daemonDir + "/tlspolicyd.toml", "--postfix-config", h.config(),
		"--signed-name", "dane.signed.test", "--broken-name", "expired.test",
	}, more...)
}

// visited runs doctor in the folder of the sender's Debian.
func (h *doctorHost) visited(v doctorRun, more ...string) (stdout, stderr string, status int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.w.daemon.binary, h.doctorArgs(append(v.flags, more...)...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: h.root}
	if v.user != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: v.user, Gid: v.user}
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	start := cmd.Start
	if v.kernel != nil {
		start = func() error { return v.kernel.start(cmd) }
	}
	if err = start(); err == nil {
		err = cmd.Wait()
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) && ended.Exited() {
		status, err = ended.ExitCode(), nil
	}
	return out.String(), errOut.String(), status, err
}

// doctor checks the sender's host.
func (h *doctorHost) doctor(t *testing.T, v doctorRun) (all []doctorFinding) {
	t.Helper()
	began := time.Now()
	stdout, stderr, status, err := h.visited(v, "--json")
	if took := time.Since(began); took > patience { // its limit is 18 s on a machine that is not overloaded
		t.Errorf("doctor took %v", took)
	}
	var report struct {
		Topics []struct{ Findings []doctorFinding }
	}
	if jsonErr := json.Unmarshal([]byte(stdout), &report); err != nil || jsonErr != nil {
		t.Fatalf("doctor: %v, %v: %s", err, jsonErr, stderr)
	}
	for _, topic := range report.Topics {
		all = append(all, topic.Findings...)
	}
	h.seen.count(all)
	if want := statusOf(all); status != want {
		t.Errorf("doctor ends with %d, want %d: %+v", status, want, troubles(all))
	}
	return all
}

// statusOf is the exit status by docs/doctor.md.
func statusOf(all []doctorFinding) int {
	has := func(grade string) bool {
		return slices.ContainsFunc(all, func(f doctorFinding) bool { return f.Grade == grade })
	}
	switch {
	case has("fail"):
		return 1
	case has("unknown"):
		return 3
	}
	return 0
}

func (c *tally) count(all []doctorFinding) {
	c.runs++
	for _, code := range slices.Compact(slices.Sorted(slices.Values(codesOf(all)))) {
		c.found[code]++
	}
}

// troubles are the findings that are not ok. The clock of the machine is not part
// of this world.
func troubles(all []doctorFinding) (list []doctorFinding) {
	for _, f := range all {
		if f.Grade != "ok" && f.Code != "clock-unsynchronized" {
			list = append(list, f)
		}
	}
	return list
}

func codesOf(all []doctorFinding) (codes []string) {
	for _, f := range all {
		codes = append(codes, f.Code)
	}
	return codes
}

func want(t *testing.T, all []doctorFinding, code string) doctorFinding {
	t.Helper()
	i := slices.IndexFunc(all, func(f doctorFinding) bool { return f.Code == code })
	if i < 0 {
		t.Fatalf("got %+v, want %s", troubles(all), code)
	}
	return all[i]
}

// testDoctor breaks the hosts in one way after another, reads what doctor reports,
// and fixes them as it advises.
func testDoctor(t *testing.T, w *world) {
	seen := &tally{found: map[string]int{}}
	for _, s := range []*sender{w.postfix37, w.postfix310} {
		h := &doctorHost{sender: s, w: w, seen: seen}
		t.Run(filepath.Base(s.dir), func(t *testing.T) {
			if bad := troubles(h.doctor(t, doctorRun{})); len(bad) > 0 {
				t.Fatalf("a healthy host has %+v", bad)
			}
			h.tryFaults(t, postfixFaults(h))
			t.Run("delivery", func(t *testing.T) { testDoctorDelivery(t, h) })
			t.Run("one script fixes it all", func(t *testing.T) { testDoctorScript(t, h) })
		})
	}
	h := &doctorHost{sender: w.postfix37, w: w, seen: seen}
	t.Run("socket", func(t *testing.T) { h.tryFaults(t, socketFaults(h)) })
	t.Run("collector", func(t *testing.T) {
		(&doctorHost{sender: w.postfix310, w: w, seen: seen}).tryFaults(t, collectorFaults())
	})
	t.Run("resolver", func(t *testing.T) { h.tryFaults(t, resolverFaults(t, h)) })
	t.Run("instances", func(t *testing.T) { h.tryFaults(t, instanceFaults(h)) })
	t.Run("database", func(t *testing.T) { testDoctorDatabase(t, h) })
	t.Run("daemon", func(t *testing.T) { testDoctorDaemon(t, h) })
	t.Run("host", func(t *testing.T) { h.tryFaults(t, hostFaults(t)) })
	t.Run("every code", func(t *testing.T) { testDoctorPlaces(t, seen) })
}

// testDoctorPlaces compares doctor_codes_test.go with what was seen: each code that
// is said to be provoked was found at least once, and once not.
func testDoctorPlaces(t *testing.T, seen *tally) {
	if seen.runs == 0 {
		t.Fatal("doctor was not run: run all of TestEndToEnd/Doctor")
	}
	for code, why := range doctorPlaces() {
		switch found := seen.found[code]; {
		case why != "" && found > 0:
			t.Errorf("%s was found, though it cannot be: %s", code, why)
		case why == "" && found == 0:
			t.Errorf("%s was not found in %d runs", code, seen.runs)
		case why == "" && found == seen.runs:
			t.Errorf("%s was found in each of %d runs", code, seen.runs)
		}
	}
	t.Logf("doctor was run %d times and had %d codes", seen.runs, len(seen.found))
}

// testDoctorScript breaks many settings at once, and wants the script of
// doctor --fix to fix all of them and to leave a table of the operator's alone.
func testDoctorScript(t *testing.T, h *doctorHost) {
	table := h.table(t)
	t.Cleanup(func() { h.reload(t) }) // after the files are back
	h.change(
		t,
		"smtp_tls_policy_maps="+table+", socketmap:unix:run/tlspolicyd/socketmap.sock:x",
		"smtp_dns_support_level=", "smtp_tls_CAfile=", "smtp_tls_security_level=none", "smtp_tls_dane_insecure_mx_policy=may",
	)
	script, stderr, status, err := h.visited(doctorRun{}, "--fix")
	if err != nil || status != 1 || strings.Count(script, "\npostconf -c ") != 5 {
		t.Fatalf("%v, %d, the script is\n%s%s", err, status, script, stderr)
	}
	path := h.dir + "/fix.sh"
	if err := write(path, script); err != nil {
		t.Fatal(err)
	}
	if _, _, err := command(h.root, "/bin/sh", path); err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	h.cool(t)
	if left := troubles(h.doctor(t, doctorRun{})); len(left) > 0 {
		t.Errorf("after the script:\n%s\nthere is still %+v", script, left)
	}
	got, _, err := h.run("postconf", "-h", "smtp_tls_policy_maps")
	if want := table + ", " + h.ours() + "\n"; err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// table is a table of the operator's own exceptions.
func (h *doctorHost) table(t *testing.T) string {
	t.Helper()
	path := h.dir + "/tls_policy"
	if err := write(path, "partner.invalid encrypt\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return "texthash:" + path
}

// mapName is the map for this version of Postfix, other the one that is not.
func (h *doctorHost) mapName() (right, other string) {
	if h.sender == h.w.postfix310 {
		return "postfix-tlsrpt", "postfix"
	}
	return "postfix", "postfix-tlsrpt"
}

// ours is the table that README.md recommends.
func (h *doctorHost) ours() string {
	name, _ := h.mapName()
	return "socketmap:unix:run/tlspolicyd/socketmap.sock:" + name
}

// change sets parameters, and puts both files back at the end of the test. A
// Postfix that was reloaded meanwhile is reloaded by the test that did so.
func (s *sender) change(t *testing.T, settings ...string) {
	t.Helper()
	for _, name := range []string{"main.cf", "master.cf"} {
		before, err := os.ReadFile(s.config() + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := write(s.config()+"/"+name, string(before)); err != nil {
				t.Error(err)
			}
			s.cool(t)
		})
	}
	if len(settings) == 0 {
		return
	}
	if _, _, err := s.run("postconf", append([]string{"-e"}, settings...)...); err != nil {
		t.Fatal(err)
	}
	s.cool(t)
}

// cool makes both files look a minute old: Postfix waits for a second or two
// before it reads one that was changed just now.
func (s *sender) cool(t *testing.T) {
	t.Helper()
	before := time.Now().Add(-time.Minute)
	for _, name := range []string{"main.cf", "master.cf"} {
		if err := os.Chtimes(s.config()+"/"+name, before, before); err != nil {
			t.Error(err)
		}
	}
}
