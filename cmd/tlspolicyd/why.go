package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit/output"
	"tlspolicyd/cmd/tlspolicyd/internal/maillog"
	"tlspolicyd/internal/printable"
	"tlspolicyd/policymap/policy"
)

const (
	hopsShown  = 10   // next hops of a cause, in text
	hopsAsked  = 1000 // next hops of which the daemon is asked, in JSON
	maxLogLine = 64 << 10
	mebibyte   = 1 << 20
)

func newWhy(o *options) *cobra.Command {
	y := &why{socket: cacheSocket{options: o}}
	var since age
	c := &cobra.Command{
		Use:   "why [QUEUE-ID | DOMAIN | RECIPIENT]",
		Short: "Print why mail waits, from the mail log",
		Long: `why reads the mail log for messages that Postfix deferred or bounced because of
TLS policy. By cause and next hop it prints how many there are, since when, how
many still wait, what Postfix logged, on which side the cause is, and what to do
next. Beside it is what the running daemon knows of the next hop now; without a
daemon the rest is printed all the same.

It reads /var/log/mail.log or /var/log/maillog, or the journal where there is
neither. Files may be compressed with gzip; others are decompressed first:
'xz -dc mail.log.2.xz | tlspolicyd why --log -'. What Postfix logs at
smtp_tls_loglevel = 0 is enough. A message waits until the log says that it was
delivered, returned or removed.

A domain is that of the recipient, the next hop of a relay, or a mail host.

With --json the output is one JSON object; ` + docs + `/why.md
lists its fields and all causes.

Exit status: 0 nothing was held back by TLS policy, 1 at least one message was,
2 wrong usage, 3 the log could not be read.`,
		Example: `  tlspolicyd why
  tlspolicyd why example.com --since 2d
  tlspolicyd why 4cX1yz2Qk3z5 --log mail.log.1 --log mail.log
  tlspolicyd why --journal --json | jq '.causes[] | {code, waiting}'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(y.logs) > 0 && y.journal {
				return usageError("--log or --journal: one of them")
			}
			if len(args) == 1 {
				var err error
				if y.collector.Filter, err = mailFilter(args[0]); err != nil {
					return err
				}
			}
			y.collector.Now = time.Now()
			if since > 0 {
				y.collector.Filter.Since = y.collector.Now.Add(-time.Duration(since))
			}
			return y.run(cmd)
		},
	}
	c.Flags().StringArrayVar(&y.logs, "log", nil, "read this `FILE`, - for stdin; several are read in the order given")
	c.Flags().BoolVar(&y.journal, "journal", false, "read the systemd journal")
	c.Flags().Var(&since, "since", "only what was held back in the last `AGE`, e.g. 2d or 6h")
	c.Flags().BoolVar(&y.json, "json", false, "print JSON")
	c.Flags().StringVar(&y.socket.address, "socket", "", "`ADDRESS` of the control socket, unix:/path (default as configured)")
	completeFlag(c, "since", "6h", "2d")
	c.ValidArgsFunction = y.socket.completeOne
	return c
}

// why is one run of the command.
type why struct {
	logs          []string
	journal, json bool
	socket        cacheSocket
	collector     maillog.Collector
}

var queueIDForm = regexp.MustCompile(`^[0-9A-Za-z]{6,20}$`)

// mailFilter reads the argument. A domain has a dot, and an address an @.
func mailFilter(arg string) (f maillog.Filter, err error) {
	hop, isHop := policy.ParseNextHop(arg)
	switch {
	case strings.Contains(arg, "@"):
		f.Recipient = strings.Trim(arg, "<>")
	case queueIDForm.MatchString(arg):
		f.QueueID = arg
	case isHop:
		f.Domain = hop.Domain
	default:
		return f, usageError("%q: want a queue id, a domain or a recipient", arg)
	}
	return f, nil
}

// whyReport is the JSON.
type whyReport struct {
	Logs []string `json:"logs"`
	maillog.Report
	DaemonError string `json:"daemon_error,omitempty"` // why the daemon was not asked
}

func (y *why) run(cmd *cobra.Command) error {
	for _, path := range []string{"/var/log/mail.log", "/var/log/maillog"} {
		if _, err := os.Stat(path); err == nil && len(y.logs) == 0 && !y.journal {
			y.logs = []string{path}
		}
	}
	for _, path := range y.logs {
		if err := y.readFile(cmd, path); err != nil {
			return unknownError(fmt.Errorf("read the mail log: %w", err))
		}
	}
	r := whyReport{Logs: y.logs}
	if len(y.logs) == 0 {
		r.Logs = []string{"journal"}
		if err := y.readJournal(cmd); err != nil {
			return unknownError(fmt.Errorf("read the journal: %w; --log names another log", err))
		}
	}
	r.Report = y.collector.Report()
	y.askDaemon(cmd.Context(), &r)
	write := r.writeText
	if y.json {
		write = func(w io.Writer) error { return writeJSON(printable.JSON(w), r) }
	}
	err := write(cmd.OutOrStdout())
	if err == nil && len(r.Causes) > 0 {
		return &exitError{status: exitNo}
	}
	return outputError(err)
}

func (y *why) readFile(cmd *cobra.Command, path string) error {
	if path == "-" {
		return y.read(cmd, cmd.InOrStdin(), path, 0)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return y.read(cmd, f, path, info.Size())
}

// readJournal has journalctl print what was logged with the facility "mail".
func (y *why) readJournal(cmd *cobra.Command) error {
	args := []string{"--no-pager", "--output=short-iso-precise", "SYSLOG_FACILITY=2"}
	if since := y.collector.Filter.Since; !since.IsZero() {
		args = append(args, fmt.Sprintf("--since=@%d", since.Unix()))
	}
	journal := exec.CommandContext(cmd.Context(), "journalctl", args...)
	var complaint bytes.Buffer
	journal.Stderr = &complaint
	out, err := journal.StdoutPipe()
	if err == nil {
		err = journal.Start()
	}
	if err != nil {
		return err
	}
	err = y.read(cmd, out, "journalctl", 0)
	if waitErr := journal.Wait(); err == nil {
		err = waitErr
	}
	// Users that may not read the system's journal get a hint, and nothing else.
	why := printable.Line(bytes.Join(bytes.Fields(complaint.Bytes()), []byte(" ")), 200)
	if r := y.collector.Report(); err == nil && why != "" && r.Lines == r.Unparsed {
		return errors.New(why)
	}
	if err != nil {
		err = fmt.Errorf("journalctl: %w: %s", err, why)
	}
	return err
}

// read gives each line to the collector; of a line that is too long, its
// beginning.
func (y *why) read(cmd *cobra.Command, from io.Reader, name string, size int64) error {
	bar := newProgress(cmd.ErrOrStderr(), "MiB read")
	bar.total(int(size / mebibyte))
	defer bar.hide()
	in, err := decompressed(bufio.NewReaderSize(&progressReader{in: from, bar: bar}, maxLogLine), name)
	for cut := false; err == nil || cut; {
		var text []byte
		was := cut
		text, err = in.ReadSlice('\n')
		if len(text) > 0 && !was {
			y.collector.Add(bytes.TrimRight(text, "\r\n"))
		}
		cut = errors.Is(err, bufio.ErrBufferFull)
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return err
	}
	if err != io.EOF {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// decompressed finds out how a log is compressed by its first bytes.
func decompressed(in *bufio.Reader, path string) (*bufio.Reader, error) {
	head, _ := in.Peek(6) // an error comes again with the first line
	for magic, program := range map[string]string{"\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd", "BZh": "bzip2"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return nil, fmt.Errorf("compressed with %s, which tlspolicyd does not read: %[1]s -dc %s | tlspolicyd why --log -", program, path)
		}
	}
	if !bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		return in, nil
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, err
	}
	return bufio.NewReaderSize(z, maxLogLine), nil
}

type progressReader struct {
	in   io.Reader
	bar  *progress
	read int
}

func (r *progressReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	r.read += n
	r.bar.set(r.read / mebibyte)
	return n, err
}

// askDaemon adds what the daemon knows now of the next hops that are printed.
func (y *why) askDaemon(ctx context.Context, r *whyReport) {
	most, asked := hopsShown, 0
	if y.json {
		most = hopsAsked
	}
	if len(r.Causes) == 0 {
		return
	}
	err := y.socket.with(ctx, func(client *admin.Client) error {
		for _, cause := range r.Causes {
			for _, g := range cause.NextHops[:min(most, len(cause.NextHops))] {
				hop, ok := policy.ParseNextHop(g.NextHop)
				if asked++; !ok || asked > hopsAsked {
					continue
				}
				d, err := client.Show(ctx, hop.Domain)
				refused, ok := errors.AsType[*admin.StatusError](err)
				switch {
				case err == nil:
					g.Daemon = d
				case !ok || refused.Status != http.StatusNotFound:
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		r.DaemonError = err.Error()
	}
}

//go:embed why.tmpl
var whyText string

// writeText writes the report for people. Texts of the log are printable already.
func (r whyReport) writeText(w io.Writer) error {
	text := output.TextFor(w)
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"at":      func(t time.Time) string { return t.Local().Format(time.DateTime) },
		"clean":   cleaned,
		"counted": counted,
		"first":   func(hops []*maillog.Group) []*maillog.Group { return hops[:min(hopsShown, len(hops))] },
		"more":    func(hops []*maillog.Group) int { return max(len(hops)-hopsShown, 0) },
		"advice": func(c maillog.CauseFound) string {
			advice := c.Advice
			// The next hop is text of the log, and this ends up in a shell.
			if hop, ok := policy.ParseNextHop(c.NextHops[0].NextHop); ok && len(c.NextHops) == 1 {
				advice = strings.ReplaceAll(advice, "DOMAIN", hop.Domain)
			}
			var b strings.Builder
			text.Wrap(&b, "  ->    ", advice)
			return b.String()
		},
	}).Parse(whyText))
	var b bytes.Buffer
	if err := t.Execute(&b, r); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}
