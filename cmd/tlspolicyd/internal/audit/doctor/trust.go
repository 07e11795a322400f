package doctor

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Trust is who may sign certificates: for the daemon, which fetches policies,
// and for Postfix, which delivers.
type Trust struct {
	Ours Bundle

	CAFile   *Bundle // smtp_tls_CAfile; nil: not set
	CAPath   *Bundle // smtp_tls_CApath as smtp(8) sees it; nil: not set
	Default  bool    // tls_append_default_CA
	Chrooted bool    // a client of Postfix is, and reads CApath inside
}

// Bundle is a file or a directory with certificates.
type Bundle struct {
	Path  string
	Err   string // why it cannot be read; ""
	CAs   []fingerprint
	Shown string // the path as configured
}

type fingerprint [sha256.Size]byte

const maxBundle = 16 << 20

func gatherTrust(caFile string, p Postfix) Trust {
	t := Trust{}
	if caFile != "" {
		t.Ours = readBundle(caFile)
	} else {
		t.Ours = systemBundle()
	}
	if !p.known() {
		return t
	}
	t.Default = p.Params["tls_append_default_CA"] == "yes"
	t.Chrooted = len(p.chrooted()) > 0
	if file := p.Params["smtp_tls_CAfile"]; file != "" {
		b := readBundle(file)
		t.CAFile = &b
	}
	if dir := p.Params["smtp_tls_CApath"]; dir != "" {
		where := dir
		if t.Chrooted {
			where = filepath.Join(p.queue(), dir)
		}
		b := readDirectory(where)
		b.Shown = dir
		t.CAPath = &b
	}
	return t
}

// systemBundle is where Go looks (crypto/x509, root_linux.go): the first file
// that there is, and the first directory.
func systemBundle() Bundle {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt",
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
		"/etc/ssl/cert.pem",
		"/usr/local/etc/ssl/cert.pem",
	}
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		files = []string{file}
	}
	for _, file := range files {
		if b := readBundle(file); b.Err == "" {
			return b
		}
	}
	dirs := []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
	if list := os.Getenv("SSL_CERT_DIR"); list != "" {
		dirs = strings.Split(list, ":")
	}
	for _, dir := range dirs {
		if b := readDirectory(dir); len(b.CAs) > 0 {
			return b
		}
	}
	return Bundle{Path: "the system's trust store", Shown: "the system's trust store", Err: "there is none"}
}

func readBundle(path string) Bundle {
	b := Bundle{Path: path, Shown: path}
	f, err := openFile(path)
	if err != nil {
		b.Err = reason(err)
		return b
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBundle))
	if err != nil {
		b.Err = reason(err)
		return b
	}
	b.add(text)
	return b
}

// readDirectory reads what OpenSSL would find: names of a hash and a number,
// as c_rehash makes them.
func readDirectory(dir string) Bundle {
	b := Bundle{Path: dir, Shown: dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		b.Err = reason(err)
		return b
	}
	for _, e := range entries {
		hash, number, found := strings.Cut(e.Name(), ".")
		if !found || len(hash) != 8 || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(dir, e.Name())); err == nil {
			b.add(text)
		}
	}
	return b
}

func (b *Bundle) add(text []byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return
		}
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil && block.Type == "CERTIFICATE" {
			continue
		}
		sum := fingerprint(sha256.Sum256(block.Bytes))
		if !slices.Contains(b.CAs, sum) {
			b.CAs = append(b.CAs, sum)
		}
	}
}

// common counts the certificates of b that one of the others has as well.
func (b Bundle) common(others ...*Bundle) int {
	n := 0
	for _, ca := range b.CAs {
		if slices.ContainsFunc(others, func(o *Bundle) bool { return o != nil && slices.Contains(o.CAs, ca) }) {
			n++
		}
	}
	return n
}
