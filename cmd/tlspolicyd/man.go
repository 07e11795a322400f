package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `man writes the manual pages into a directory: tlspolicyd(8), one for each command,
and tlspolicyd.toml(5). Their date is $SOURCE_DATE_EPOCH, or that of the source,
so that the same source makes the same pages.`,
		Example: `  tlspolicyd man /tmp && man -l /tmp/tlspolicyd.toml.5`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("which DIR? One that exists, for all the pages")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b := readBuildInfo()
			date, err := sourceDate(os.Getenv("SOURCE_DATE_EPOCH"), b.Time)
			if err != nil {
				return err
			}
			if err := writeManPages(cmd.Root(), args[0], programName+" "+b.Version, date); err != nil {
				return unknownError(fmt.Errorf("write the manual pages: %w", err))
			}
			return nil
		},
	}
}

// sourceDate returns the date of the manual pages: $SOURCE_DATE_EPOCH (seconds,
// https://reproducible-builds.org/specs/source-date-epoch/), else the time of
// the source's revision, else none (the zero time).
func sourceDate(epoch, revision string) (time.Time, error) {
	if epoch != "" {
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return time.Time{}, usageError("SOURCE_DATE_EPOCH=%q: want seconds since 1970", epoch)
		}
		return time.Unix(n, 0).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, revision)
	if err != nil {
		return time.Time{}, nil
	}
	return t.UTC(), nil
}

// writeManPages writes all pages into a directory that exists.
func writeManPages(root *cobra.Command, dir, source string, date time.Time) error {
	if err := writeManCommands(root, dir, source, date); err != nil {
		return err
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, ".TH TLSPOLICYD.TOML 5 %q %q \"File formats\"\n", manDate(date), source)
	if err := writeSettingsPage(&page); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "tlspolicyd.toml.5"), page.Bytes(), 0o644)
}

// writeManCommands writes the page of a command and of those below it.
func writeManCommands(cmd *cobra.Command, dir, source string, date time.Time) error {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writeManCommands(c, dir, source, date); err != nil {
			return err
		}
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	header := &doc.GenManHeader{Section: "8", Date: &date, Source: source, Manual: "System administration"}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	text := strings.Replace(page.String(), strconv.Quote(date.Format(manMonth)), strconv.Quote(manDate(date)), 1)
	return os.WriteFile(filepath.Join(dir, name+".8"), finishManPage(nameValues(text, cmd), cmd.HasParent()), 0o644)
}

// manMonth is the form of the date that cobra uses.
const manMonth = "Jan 2006"

// manDate is empty where nothing is known: no date is better than a wrong one.
func manDate(date time.Time) string {
	if date.IsZero() {
		return ""
	}
	return date.Format(manMonth)
}

// nameValues writes "--config FILE" where cobra writes the default: an empty one
// says nothing, and the others stand in the text.
func nameValues(page string, cmd *cobra.Command) string {
	option := regexp.MustCompile(`(\\fB--([a-z-]+)\\fP)=("[^"\n]*"|[^\s\]]*)`)
	return option.ReplaceAllStringFunc(page, func(text string) string {
		m := option.FindStringSubmatch(text)
		f := cmd.Flag(m[2])
		if f == nil {
			return text
		}
		name := strings.ToUpper(f.Value.Type())
		if _, after, ok := strings.Cut(f.Usage, "`"); ok {
			name, _, _ = strings.Cut(after, "`")
		}
		return m[1] + ` \fI` + name + `\fP`
	})
}

// finishManPage puts in what cobra does not know: the sections of the main page
// about files, signals and the environment, and the pages to see beside.
func finishManPage(page string, subcommand bool) []byte {
	// A switch has no value to give.
	page = strings.ReplaceAll(page, `\fP[=false]`, `\fP`)
	body, also, ok := strings.Cut(page, "\n.SH SEE ALSO\n")
	if !ok {
		body, also = page, ""
	}
	body = strings.TrimRight(body, "\n") + "\n"
	also = strings.TrimRight(also, "\n")
	if also != "" {
		also += ", "
	}
	also += `\fBtlspolicyd.toml(5)\fP`
	if !subcommand {
		body += manSections
		also += `, \fBsocketmap_table(5)\fP, \fBpostconf(5)\fP, \fBsystemd.socket(5)\fP`
	}
	return []byte(body + "\n.SH SEE ALSO\n" + also + "\n")
}

// manSections are the sections that only the main page has.
const manSections = `
.SH POSTFIX
In main.cf, for Postfix 3.10 and later:
.PP
.EX
  smtp_dns_support_level  = dnssec
  smtp_tls_security_level = dane
  smtp_tls_CAfile         = /etc/ssl/certs/ca-certificates.crt
  smtp_tls_policy_maps    = socketmap:unix:run/tlspolicyd/socketmap.sock:postfix-tlsrpt
.EE
.PP
Before Postfix 3.10 the map is \fBpostfix\fP. The path is relative on purpose: it is
right with and without a chroot. While the daemon is down Postfix defers mail.

.SH FILES
.TP
.I /etc/tlspolicyd/tlspolicyd.toml
The configuration, see \fBtlspolicyd.toml(5)\fP. It may be absent.
.TP
.I /run/tlspolicyd/socketmap.sock
Where lookups are answered.
.TP
.I /var/spool/postfix/run/tlspolicyd/socketmap.sock
The same for a chrooted \fBsmtp(8)\fP, made by the systemd unit tlspolicyd.socket.
.TP
.I /run/tlspolicyd/admin.sock
The operator's socket, mode 0600.
.TP
.I /var/lib/tlspolicyd/policies.db
The cache.

.SH SIGNALS
.TP
.B SIGHUP
Read the configuration again. Settings that need a restart are named in the log;
a file with a mistake changes nothing.
.TP
.BR SIGTERM ", " SIGINT
Answer the lookups in flight, then stop. A second one stops at once.

.SH ENVIRONMENT
.TP
.BR RUNTIME_DIRECTORY ", " STATE_DIRECTORY
Where the sockets and the database are by default; systemd sets both. Without
them it is /run/tlspolicyd and /var/lib/tlspolicyd for root, and for other users
$XDG_RUNTIME_DIR/tlspolicyd and ~/.local/state/tlspolicyd.
.TP
.BR LISTEN_FDS ", " NOTIFY_SOCKET ", " WATCHDOG_USEC
Socket activation, readiness and watchdog, set by systemd.

.SH STANDARDS
RFC 7672 (SMTP security via DANE), RFC 8461 (MTA-STS), RFC 8460 (TLSRPT).
`
