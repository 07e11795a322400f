package mtasts

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlspolicyd/testing/lab"
)

// inWorldWithStore is inWorld with the host's own trust store in a directory of
// the test's, empty at first.
func inWorldWithStore(t *testing.T, test func(t *testing.T, w *lab.World, f *Fetcher, store string)) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("SSL_CERT_FILE", filepath.Join(dir, "bundle.pem"))
	t.Setenv("SSL_CERT_DIR", filepath.Join(dir, "certs"))
	inWorld(t, func(t *testing.T, w *lab.World, f *Fetcher) {
		f.RootCAs, f.System = nil, new(SystemRoots)
		test(t, w, f, dir)
	})
}

func writeCA(t *testing.T, w *lab.World, path string) {
	t.Helper()
	if err := w.WriteCA(path); err != nil {
		t.Fatal(err)
	}
}

// The host's trust store is followed without a restart.
func TestFetchFollowsTheTrustStore(t *testing.T) {
	inWorldWithStore(t, func(t *testing.T, w *lab.World, f *Fetcher, store string) {
		h := w.PolicyHost(domain, goodFile)
		old := lab.New() // its CA is of another world
		defer old.Close()
		writeCA(t, old, filepath.Join(store, "bundle.pem"))
		failed(t, f, domain, StageCertificate)

		writeCA(t, w, filepath.Join(store, "new.pem"))
		// The time of a file may be no finer than a tick of the kernel.
		if err := os.Chtimes(filepath.Join(store, "new.pem"), time.Time{}, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(store, "new.pem"), filepath.Join(store, "bundle.pem")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rootsInterval) // in the bubble
		fetched(t, f, domain)

		// Being replaced: what was there stays.
		if err := os.Remove(filepath.Join(store, "bundle.pem")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rootsInterval)
		fetched(t, f, domain)

		// Another place.
		if err := os.Mkdir(filepath.Join(store, "certs"), 0o755); err != nil {
			t.Fatal(err)
		}
		writeCA(t, old, filepath.Join(store, "certs", "1.pem"))
		time.Sleep(rootsInterval)
		failed(t, f, domain, StageCertificate)
		if n := h.Connections(); n != 4 {
			t.Errorf("%d connections", n)
		}
	})
}

// Without any authority it is this host's fault, found out before anything is
// sent, and over as soon as there are some.
func TestFetchWithoutAuthorities(t *testing.T) {
	inWorldWithStore(t, func(t *testing.T, w *lab.World, f *Fetcher, store string) {
		h := w.PolicyHost(domain, goodFile)
		failure := failed(t, f, domain, StageCertificate)
		if !errors.Is(failure, ErrNoRoots) || !failure.LocalFault() || !strings.Contains(failure.Reason, "install the package ca-certificates") ||
			!strings.Contains(failure.Reason, filepath.Join(store, "bundle.pem")) {
			t.Errorf("%v", failure)
		}
		if h.Connections() != 0 || w.Count(host, "") != 0 {
			t.Errorf("%d connections, %d questions", h.Connections(), w.Count(host, ""))
		}
		writeCA(t, w, filepath.Join(store, "bundle.pem"))
		fetched(t, f, domain)
	})
}

// The authorities are those that crypto/x509 finds, on a host with some and on one
// with none.
func TestSystemRootsAreThoseOfTheStandardLibrary(t *testing.T) {
	want, err := x509.SystemCertPool()
	if err != nil {
		want = x509.NewCertPool()
	}
	got, err := new(SystemRoots).Pool()
	if errors.Is(err, ErrNoRoots) {
		got = x509.NewCertPool()
	}
	if !got.Equal(want) {
		t.Error("not the same authorities")
	}
}
