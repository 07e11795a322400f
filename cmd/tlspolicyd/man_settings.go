package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// writeSettingsPage writes tlspolicyd.toml(5) without its title line. The
// settings come out of the configuration itself, so that none is missing.
func writeSettingsPage(w io.Writer) error {
	// The paths of a daemon that the system runs, whoever writes the page.
	c := config.Default()
	c.Listen.Socketmap = []string{config.SystemSocketmap}
	c.Listen.Admin = "unix:/run/tlspolicyd/admin.sock"
	c.Cache.Path = "/var/lib/tlspolicyd/policies.db"
	var toml bytes.Buffer
	if err := c.WriteTOML(&toml); err != nil {
		return err
	}
	var page strings.Builder
	page.WriteString(settingsBefore)
	writeSettings(&page, toml.String())
	page.WriteString(settingsAfter)
	_, err := io.WriteString(w, page.String())
	return err
}

// writeSettings turns the lines of a configuration file, as WriteTOML writes
// them, into a subsection for each section and a paragraph for each key.
func writeSettings(page *strings.Builder, toml string) {
	var comment []string
	flush := func() {
		for _, line := range comment {
			page.WriteString(roffLine(line) + "\n")
		}
		comment = nil
	}
	for line := range strings.Lines(toml) {
		line = strings.TrimSuffix(line, "\n")
		text, isComment := strings.CutPrefix(line, "# ")
		key, value, isSetting := strings.Cut(line, " = ")
		switch {
		case isComment:
			comment = append(comment, text)
		case strings.HasPrefix(line, "["):
			flush()
			fmt.Fprintf(page, ".SS %s\n", roffLine(line))
		case isSetting:
			fmt.Fprintf(page, ".TP\n\\fB%s\\fP = %s\n", roffText(key), roffText(value))
			flush()
		default:
			flush() // a section without keys has a comment of its own
		}
	}
	flush()
}

// roffText escapes a text for roff, so that quotes and dashes can be copied
// from the page into the file.
func roffText(s string) string {
	return strings.NewReplacer(`\`, `\e`, `-`, `\-`, `"`, `\(dq`, `'`, `\(aq`, "`", `\(ga`, `^`, `\(ha`, `~`, `\(ti`).Replace(s)
}

// roffLine escapes a line of its own, which must not be taken for a request.
func roffLine(s string) string {
	if strings.HasPrefix(s, ".") {
		return `\&` + roffText(s)
	}
	return roffText(s)
}

const settingsBefore = `.SH NAME
tlspolicyd.toml \- configuration of tlspolicyd
.SH SYNOPSIS
.I /etc/tlspolicyd/tlspolicyd.toml
.SH DESCRIPTION
The file is TOML 1.0. Every key has a default, so that an empty or an absent file
is a good one. An unknown key or a bad value is an error with line and column.
.PP
.B tlspolicyd config check
tells the first mistake,
.B tlspolicyd config show
prints every setting in force.
.PP
After a change,
.B systemctl reload tlspolicyd
puts it in force. A file with a mistake is refused, and the old settings stay.
A few settings, such as the sockets and the path of the database, take a restart;
the log names them.
.PP
Durations are numbers with a unit: 500ms, 5s, 10m, 24h.
.SH SETTINGS
Each with its default.
`

const settingsAfter = `.SH EXCEPTIONS
The keys of
.B [override]
are domains, or parents with a leading dot. They are held against the host of the
next hop, without brackets and port:
.PP
.EX
  [override]
  \(dqbroken.example\(dq     = \(dqskip\(dq
  \(dq.partner.example\(dq   = \(dqsecure match=mx.partner.example servername=hostname\(dq
  \(dqok.partner.example\(dq = \(dqlookup\(dq
.EE
.SH UNDER SYSTEMD
The unit tlspolicyd.socket holds the sockets for lookups, and
.B listen.socketmap
then only says where
.B tlspolicyd lookup
asks. Other sockets, their mode and their group are set with
.BR "systemctl edit tlspolicyd.socket" .
.PP
The service may write below /var/lib/tlspolicyd and /run/tlspolicyd only. For a
.B cache.path
elsewhere, add
.B ReadWritePaths=
with
.BR "systemctl edit tlspolicyd.service" ;
for
.B listen.http
with a port below 1024, add the capability CAP_NET_BIND_SERVICE.
.SH SEE ALSO
.BR tlspolicyd (8),
.BR tlspolicyd\-config (8),
.BR tlspolicyd\-explain (8),
.BR systemd.socket (5)
`
