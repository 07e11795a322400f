package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/mtasts"
)

// Trust are the certificate authorities of the daemon, which fetches policies,
// and of Postfix, which delivers.
type Trust struct {
	CAFile string         // fetch.ca_file; "": the system's
	Roots  *x509.CertPool // the daemon's
	Err    string         // why there are none; ""

	PostfixFile *Bundle // smtp_tls_CAfile; nil: not set
	PostfixPath *Bundle // smtp_tls_CApath as smtp(8) sees it; nil: not set
	Default     bool    // tls_append_default_CA
	Chrooted    bool    // a client of Postfix is, and reads the directory inside
	Best        string  // a file that Postfix could use
}

// Bundle is a file or a directory with certificates.
type Bundle struct {
	Shown string // the path as configured
	Path  string // the path as the host sees it
	Err   string // why it cannot be read; ""
	CAs   []*x509.Certificate
}

const maxBundle = 16 << 20

func gatherTrust(caFile string, p Postfix) Trust {
	t := Trust{CAFile: caFile}
	if caFile == "" {
		roots, err := new(mtasts.SystemRoots).Pool()
		if t.Roots = roots; err != nil {
			t.Err = oneLine(err.Error())
		}
	} else {
		b := readBundle(caFile)
		t.Roots = x509.NewCertPool()
		for _, ca := range b.CAs {
			t.Roots.AddCert(ca)
		}
		if len(b.CAs) == 0 {
			t.Err = b.state()
		}
	}
	if t.Best = caFile; caFile == "" || t.Err != "" {
		t.Best = systemFile()
	}
	if !p.known() {
		return t
	}
	t.Default = p.Params["tls_append_default_CA"] == "yes"
	t.Chrooted = len(p.chrooted()) > 0
	if file := p.Params["smtp_tls_CAfile"]; file != "" {
		b := readBundle(file)
		t.PostfixFile = &b
	}
	if dir := p.Params["smtp_tls_CApath"]; dir != "" {
		b := Bundle{Shown: dir, Path: dir}
		if t.Chrooted {
			b.Path = filepath.Join(p.queue(), dir)
		}
		b.readDirectory()
		t.PostfixPath = &b
	}
	return t
}

// systemFile is the file that holds the system's authorities.
func systemFile() string {
	files := []string{
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora
		"/etc/ssl/ca-bundle.pem",             // openSUSE
		"/etc/ssl/cert.pem",                  // the BSDs
	}
	for _, file := range files {
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return files[0]
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

// readDirectory reads what OpenSSL finds: names of a hash and a number, as
// c_rehash makes them.
func (b *Bundle) readDirectory() {
	entries, err := os.ReadDir(b.Path)
	if err != nil {
		b.Err = reason(err)
		return
	}
	for _, e := range entries {
		hash, number, found := strings.Cut(e.Name(), ".")
		if !found || len(hash) != 8 || strings.Trim(number, "0123456789") != "" {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(b.Path, e.Name())); err == nil {
			b.add(text)
		}
	}
}

func (b *Bundle) add(text []byte) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err == nil && block.Type == "CERTIFICATE" && !slices.ContainsFunc(b.CAs, ca.Equal) {
			b.CAs = append(b.CAs, ca)
		}
	}
}

func (b Bundle) state() string {
	if b.Err != "" {
		return b.Err
	}
	return "no certificate in it"
}

// common counts the authorities of Postfix, and those that the daemon has too.
func (t Trust) common() (all, shared int) {
	var seen Bundle
	for _, b := range []*Bundle{t.PostfixFile, t.PostfixPath} {
		for i := 0; b != nil && i < len(b.CAs); i++ {
			ca := b.CAs[i]
			if slices.ContainsFunc(seen.CAs, ca.Equal) {
				continue // in the file and in the directory
			}
			seen.CAs = append(seen.CAs, ca)
			all++
			_, err := ca.Verify(x509.VerifyOptions{Roots: t.Roots, CurrentTime: ca.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			if t.Roots != nil && err == nil {
				shared++
			}
		}
	}
	return all, shared
}

func judgeTrust(f Facts) []audit.Finding {
	t, p := f.Trust, f.Postfix
	all := []audit.Finding{audit.Passed("trust-store-ok", oneLine(t.CAFile), "tlspolicyd has certificate authorities.", "")}
	if t.Err != "" {
		all[0] = audit.Failed("trust-store-empty", oneLine(t.CAFile), "tlspolicyd has no certificate authorities, so no MTA-STS policy can be fetched.",
			t.Err, "Install the package ca-certificates, or set fetch.ca_file.", "")
	}
	if !p.known() {
		return all
	}
	return append(all, judgePostfixCAs(t, p)...)
}

func judgePostfixCAs(t Trust, p Postfix) []audit.Finding {
	const deferred = "no certificate is trusted, and all mail to domains with MTA-STS is deferred."
	fix := p.set("smtp_tls_CAfile", t.Best)
	file, path := t.PostfixFile, t.PostfixPath
	switch {
	case file == nil && path == nil && t.Default && !t.Chrooted:
		return []audit.Finding{audit.Passed("postfix-ca-ok", "", "Postfix uses the certificate authorities that OpenSSL has by default.", "tls_append_default_CA = yes")}
	case file == nil && path == nil:
		return []audit.Finding{audit.Failed("postfix-ca-none", "", "Postfix has no certificate authorities: "+deferred,
			"smtp_tls_CAfile and smtp_tls_CApath are empty", "Set the file with the public authorities. smtp(8) reads it before it enters its chroot.", fix)}
	case file != nil && len(file.CAs) == 0:
		return []audit.Finding{audit.Failed("postfix-ca-missing", "", "Postfix cannot load the file with certificate authorities: it turns TLS off, or "+deferred,
			"smtp_tls_CAfile = "+oneLine(file.Shown)+": "+file.state(), "Set a file that exists.", fix)}
	case file == nil && len(path.CAs) == 0:
		code, text := "postfix-ca-missing", "Postfix finds no certificate authority in its directory: "+deferred
		if t.Chrooted {
			code, text = "postfix-ca-chroot", "Postfix runs chrooted and reads its directory of certificate authorities inside the chroot, where there is none: "+deferred
		}
		return []audit.Finding{audit.Failed(code, "", text, "smtp_tls_CApath = "+oneLine(path.Shown)+", that is "+oneLine(path.Path)+": "+path.state(),
			"Use smtp_tls_CAfile, which is read before the chroot.", fix)}
	}
	var settings []string
	if file != nil {
		settings = append(settings, "smtp_tls_CAfile = "+oneLine(file.Shown))
	}
	if path != nil {
		settings = append(settings, "smtp_tls_CApath = "+oneLine(path.Shown))
	}
	seen := strings.Join(settings, ", ")
	count, shared := t.common()
	if shared == 0 && t.Err == "" {
		return []audit.Finding{audit.Warned("postfix-ca-differs", "", "No certificate authority of Postfix is one that tlspolicyd has: policies are fetched, and mail under them is deferred.",
			seen, "Use the same file for both.", fix)}
	}
	return []audit.Finding{audit.Passed("postfix-ca-ok", "", fmt.Sprintf("Postfix has %d certificate authorities.", count), seen)}
}
