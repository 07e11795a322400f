package bolt

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"tlspolicyd/store"
)

// crashChildEnv makes the test binary a process that only writes, into the
// database that it names.
const crashChildEnv = "TLSPOLICYD_TEST_CRASH_DATABASE"

// crashChild puts policies from several goroutines, and prints each domain
// once Put has returned, until it is killed.
func crashChild(path string) {
	s, err := Open(path, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				rec := policy(fmt.Sprintf("d%d-%d-%d.test", os.Getpid(), g, i))
				if i%3 == 0 {
					s.PutLater(policy("later-" + rec.Domain))
				}
				if err := s.Put(context.Background(), rec); err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				os.Stdout.WriteString(rec.Domain + "\n")
			}
		}()
	}
	select {}
}

// BEHAVIOUR §6: after SIGKILL at any moment every policy that was answered
// is still there. A seed would not make the test repeatable: when a
// kill arrives is the kernel's choice, and which pages bbolt frees and takes
// follows the order of Go's maps.
func TestKilledWhileWriting(t *testing.T) {
	path := newPath(t)
	answered := make(map[string]bool)
	for range 20 {
		for _, domain := range runAndKill(t, path, 1+rand.IntN(150)) {
			answered[domain] = true
		}
		var log logBuffer
		s := openStore(t, path, Options{Log: log.logger()})
		if aside := log.lines("set aside"); len(aside) > 0 {
			t.Fatalf("the database did not survive: %s", aside)
		}
		for domain := range answered {
			wantRecord(t, s, domain)
		}
		records, due := 0, 0
		err := s.Walk(store.Scan{}, func(store.Record) bool { records++; return true })
		if err != nil || records != s.Len() {
			t.Errorf("%d records, %d counted: %v", records, s.Len(), err)
		}
		all, err := s.Due(policy("x.test").Due, records+1)
		if due = len(all); err != nil || due != records {
			t.Errorf("%d records, %d due: %v", records, due, err)
		}
		closeStore(t, s)
	}
	t.Logf("20 rounds, %d policies answered, none lost", len(answered))
}

// runAndKill returns what a child printed that was killed after n lines.
func runAndKill(t *testing.T, path string, n int) (domains []string) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), crashChildEnv+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		domains = append(domains, lines.Text())
		if len(domains) == n {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil || child.ProcessState.Exited() {
		t.Fatalf("the child was not killed: %v after %d lines", err, len(domains))
	}
	return domains
}
