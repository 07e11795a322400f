package mtasts

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// ErrNoRoots: this host has no certificate authorities, so no policy can be
// fetched. It is this host's fault and says nothing about any domain. The
// operator has to install a trust store.
var ErrNoRoots = errors.New("this host has no certificate authorities: install the package ca-certificates, or set fetch.ca_file")

const rootsInterval = time.Minute // between two checks for changes

// SystemRoots is the host's trust store, read again when it changes: crypto/x509
// reads it once in the life of a process. The zero value is ready, and safe for
// concurrent use.
type SystemRoots struct {
	mu      sync.Mutex
	checked time.Time
	stamp   string         // of what was read last
	pool    *x509.CertPool // nil: none found
}

// Pool returns the authorities as they are now, give or take a minute, or
// ErrNoRoots. A store that has become empty is taken for one that is being
// replaced: what was read before stays. A nil *SystemRoots reads them each time.
func (r *SystemRoots) Pool() (*x509.CertPool, error) {
	if r == nil {
		r = new(SystemRoots)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pool == nil || time.Since(r.checked) >= rootsInterval {
		r.checked = time.Now()
		if stamp := rootsStamp(); r.pool == nil || stamp != r.stamp {
			if pool := readRoots(); pool != nil {
				r.pool, r.stamp = pool, stamp
			}
		}
	}
	if r.pool == nil {
		return nil, fmt.Errorf("%w (looked in %s)", ErrNoRoots, strings.Join(append(rootFiles(), rootDirs()...), ", "))
	}
	return r.pool, nil
}

// rootFiles and rootDirs are where crypto/x509 looks for authorities on Linux
// and the BSDs.
func rootFiles() []string {
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		return []string{file}
	}
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL 6
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7 and later
		"/etc/ssl/cert.pem",                                 // Alpine, FreeBSD, OpenBSD
		"/usr/local/etc/ssl/cert.pem",                       // FreeBSD
		"/usr/local/share/certs/ca-root-nss.crt",            // FreeBSD
		"/etc/openssl/certs/ca-certificates.crt",            // NetBSD
	}
}

func rootDirs() []string {
	if dirs := os.Getenv("SSL_CERT_DIR"); dirs != "" {
		return filepath.SplitList(dirs)
	}
	return []string{"/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/local/share/certs", "/etc/openssl/certs"}
}

// rootsStamp differs when a file or directory was replaced, added or removed.
func rootsStamp() string {
	var b strings.Builder
	for _, path := range append(rootFiles(), rootDirs()...) {
		if info, err := os.Stat(path); err == nil {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return b.String()
}

// readRoots reads the first file that there is and all directories, as
// crypto/x509 does. It returns nil where there is no certificate.
func readRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	found := false
	for _, path := range rootFiles() {
		if pem, err := os.ReadFile(path); err == nil {
			found = pool.AppendCertsFromPEM(pem)
			break
		}
	}
	for _, dir := range rootDirs() {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			if pem, err := os.ReadFile(filepath.Join(dir, entry.Name())); err == nil {
				found = pool.AppendCertsFromPEM(pem) || found
			}
		}
	}
	if !found {
		return nil
	}
	return pool
}
