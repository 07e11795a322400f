package doctor

import (
	"fmt"
	"path/filepath"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

func dirOf(path string) string { return filepath.Dir(path) }

const systemCAs = "/etc/ssl/certs/ca-certificates.crt"

func judgeTrust(f Facts) []audit.Finding {
	t, p := f.Trust, f.Postfix
	var all []audit.Finding
	ours := oneLine(t.Ours.Shown)
	if t.Ours.Err != "" || len(t.Ours.CAs) == 0 {
		all = append(all, fail(TrustStoreEmpty, ours, "tlspolicyd trusts no certificate authority, so no policy of MTA-STS can be fetched.",
			t.Ours.state(), "Install the package ca-certificates, or see fetch.ca_file.", ""))
	} else {
		all = append(all, ok(TrustStore, ours, fmt.Sprintf("tlspolicyd trusts %d certificate authorities.", len(t.Ours.CAs)), ""))
	}
	if !p.known() {
		return all
	}
	return append(all, judgePostfixCAs(t, p)...)
}

func (b Bundle) state() string {
	if b.Err != "" {
		return b.Err
	}
	return "no certificate in it"
}

func judgePostfixCAs(t Trust, p Postfix) []audit.Finding {
	best := t.Ours.Path
	if t.Ours.Err != "" || !filepath.IsAbs(best) {
		best = systemCAs
	}
	fix := p.set("smtp_tls_CAfile", best)
	if t.CAFile == nil && t.CAPath == nil {
		if t.Default && !t.Chrooted {
			return []audit.Finding{ok(PostfixCA, "", "Postfix trusts the authorities that OpenSSL has by default.", "tls_append_default_CA = yes")}
		}
		return []audit.Finding{fail(PostfixCANone, "", "Postfix trusts no certificate authority: no certificate passes, and all mail to domains with MTA-STS is deferred.",
			"smtp_tls_CAfile and smtp_tls_CApath are empty", "Name the file with the public authorities. smtp(8) reads it before it enters its chroot.", fix)}
	}
	var all []audit.Finding
	usable := 0
	if b := t.CAFile; b != nil {
		if b.Err != "" || len(b.CAs) == 0 {
			all = append(all, fail(PostfixCAMissing, "", "Postfix cannot load the file with certificate authorities: it turns TLS off, or no certificate passes.",
				"smtp_tls_CAfile = "+oneLine(b.Shown)+": "+b.state(), "Name a file that is there.", fix))
		}
		usable += len(b.CAs)
	}
	if b := t.CAPath; b != nil {
		if usable == 0 && len(b.CAs) == 0 && t.CAFile == nil {
			code, text := PostfixCAMissing, "Postfix finds no certificate authority in its directory: no certificate passes, and all mail to domains with MTA-STS is deferred."
			if t.Chrooted {
				code, text = PostfixCAChroot, "Postfix runs chrooted and reads its directory of certificate authorities inside, where none is: all mail to domains with MTA-STS is deferred."
			}
			all = append(all, fail(code, "", text, "smtp_tls_CApath = "+oneLine(b.Shown)+", that is "+oneLine(b.Path)+": "+b.state(),
				"Use smtp_tls_CAfile, which is read before the chroot.", fix))
		}
		usable += len(b.CAs)
	}
	if len(all) > 0 || usable == 0 {
		return all
	}
	all = append(all, ok(PostfixCA, "", fmt.Sprintf("Postfix trusts %d certificate authorities.", usable), caSettings(t)))
	// Some more or fewer are an operator's own. Half of them missing is another list.
	if n := len(t.Ours.CAs); n > 0 && 2*t.Ours.common(t.CAFile, t.CAPath) < n {
		all = append(all, warn(PostfixCADiffers, "", "Postfix does not know most of the authorities that tlspolicyd trusts: a policy may be fetched and mail under it deferred.",
			fmt.Sprintf("%d of %d in common, %s", t.Ours.common(t.CAFile, t.CAPath), n, caSettings(t)), "Use the same file for both.", fix))
	}
	return all
}

func caSettings(t Trust) string {
	text := ""
	if t.CAFile != nil {
		text = "smtp_tls_CAfile = " + oneLine(t.CAFile.Shown)
	}
	if t.CAPath != nil {
		if text != "" {
			text += ", "
		}
		text += "smtp_tls_CApath = " + oneLine(t.CAPath.Shown)
	}
	return text
}
