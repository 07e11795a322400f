//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reportPath is smtp_tlsrpt_socket_name as the host sees it.
const reportPath = workDir + "/postfix310/queue/run/tlsrpt/tlsrpt.sock"

// reportSocket stands where a TLSRPT daemon would: Postfix's TLSRPT library
// sends it one datagram for each TLS session.
type reportSocket struct {
	conn *net.UnixConn
}

// report is what libtlsrpt sends, as far as it concerns a policy.
type report struct {
	Domain   string `json:"d"`
	Policies []struct {
		Type    int      `json:"policy-type"`
		Domain  string   `json:"policy-domain"`
		Strings []string `json:"policy-string"`
		MXHosts []string `json:"mx-host"`
		Failed  int      `json:"f"`
		Details []struct {
			Code int `json:"c"`
		} `json:"failure-details"`
	} `json:"policies"`
}

// Numbers of libtlsrpt for the names of RFC 8460 §4.2 and §4.3.
const (
	reportTLSA = 1
	reportSTS  = 2

	reportHostMismatch = 202
	reportFetchError   = 301
)

func listenReports(path string) (*reportSocket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	return &reportSocket{conn: conn}, os.Chmod(path, 0o666)
}

// drain forgets reports of earlier sessions. The kernel keeps a few only, and
// while they lie there Postfix cannot send another. A read with a deadline that
// is over would return without a look, so the descriptor itself is read.
func (r *reportSocket) drain(t *testing.T) {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Time{})
	raw, err := r.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<17)
	var last error
	err = raw.Read(func(fd uintptr) (done bool) {
		for last == nil {
			_, last = unix.Read(int(fd), buf)
		}
		return true
	})
	if err != nil || !errors.Is(last, unix.EAGAIN) {
		t.Fatalf("drain the TLSRPT socket: %v, %v", err, last)
	}
}

// next waits for the report about a domain; others are passed over.
func (r *reportSocket) next(t *testing.T, domain string) report {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<17)
	for {
		n, err := r.conn.Read(buf)
		if err != nil {
			t.Fatalf("no TLSRPT report about %s: %v", domain, err)
		}
		var rep report
		if err := json.Unmarshal(buf[:n], &rep); err != nil {
			t.Fatalf("TLSRPT report %q: %v", buf[:n], err)
		}
		if rep.Domain != domain {
			continue
		}
		if err := rep.complete(); err != nil {
			t.Fatalf("TLSRPT report %q: %v", buf[:n], err)
		}
		return rep
	}
}

func (r report) complete() error {
	if len(r.Policies) != 1 {
		return fmt.Errorf("%d policies, want 1", len(r.Policies))
	}
	if p := r.Policies[0]; p.Failed != 0 && len(p.Details) == 0 {
		return errors.New("a failure without details")
	}
	return nil
}
