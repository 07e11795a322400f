package main

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
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
neither. Files may be compressed with gzip or bzip2; others are decompressed
first: 'xz -dc mail.log.2.xz | tlspolicyd why --log -'. What Postfix logs at
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
	if len(y.logs) == 0 && !y.journal {
		for _, path := range []string{"/var/log/mail.log", "/var/log/maillog"} {
			if _, err := os.Stat(path); err == nil {
				y.logs = []string{path}
				break
			}
		}
	}
	if len(y.logs) == 0 {
		if err := y.readJournal(cmd); err != nil {
			return unknownError(err)
		}
	}
	for _, path := range y.logs {
		if err := y.readFile(cmd, path); err != nil {
			return unknownError(fmt.Errorf("read the mail log: %w", err))
		}
	}
	r := whyReport{Logs: y.logs, Report: y.collector.Report()}
	if len(y.logs) == 0 {
		r.Logs = []string{"journal"}
	}
	y.askDaemon(cmd.Context(), &r)
	var err error
	if y.json {
		err = writeJSON(printable.JSON(cmd.OutOrStdout()), r)
	} else {
		err = r.writeText(cmd.OutOrStdout())
	}
	if err == nil && len(r.Causes) > 0 {
		return &exitError{status: exitNo}
	}
	return outputError(err)
}

// readFile reads one log, compressed or not.
func (y *why) readFile(cmd *cobra.Command, path string) error {
	var size int64
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		in = f
	}
	bar := newProgress(cmd.ErrOrStderr(), "MiB read")
	bar.total(int(size / mebibyte))
	counted := &progressReader{in: in, bar: bar}
	buffered := bufio.NewReaderSize(counted, maxLogLine)
	text, err := decompressed(buffered, path)
	if err == nil {
		err = y.readLines(text)
	}
	bar.hide()
	if _, ok := errors.AsType[*fs.PathError](err); err == nil || ok {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// decompressed finds out how a log is compressed by its first bytes.
func decompressed(in *bufio.Reader, path string) (*bufio.Reader, error) {
	head, _ := in.Peek(6) // an error comes again with the first line
	for _, other := range []struct{ magic, name string }{
		{"\xfd7zXZ\x00", "xz"}, {"\x28\xb5\x2f\xfd", "zstd"}, {"\x04\x22\x4d\x18", "lz4"},
	} {
		if bytes.HasPrefix(head, []byte(other.magic)) {
			return nil, fmt.Errorf("compressed with %s, which tlspolicyd does not read: %[1]s -dc %s | tlspolicyd why --log -", other.name, path)
		}
	}
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		return bufio.NewReaderSize(z, maxLogLine), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bufio.NewReaderSize(bzip2.NewReader(in), maxLogLine), nil
	}
	return in, nil
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

// readLines gives each line to the collector; of a line that is too long, its
// beginning.
func (y *why) readLines(in *bufio.Reader) error {
	for cut := false; ; {
		text, err := in.ReadSlice('\n')
		if len(text) > 0 && !cut {
			y.collector.Add(bytes.TrimRight(text, "\r\n"))
		}
		cut = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !cut {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// readJournal has journalctl print what was logged with the facility "mail".
func (y *why) readJournal(cmd *cobra.Command) error {
	args := []string{"--quiet", "--no-pager", "--output=short-iso-precise", "SYSLOG_FACILITY=2"}
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
		return fmt.Errorf("there is no /var/log/mail.log, and the journal cannot be read: %w; name the log with --log", err)
	}
	bar := newProgress(cmd.ErrOrStderr(), "MiB read")
	err = y.readLines(bufio.NewReaderSize(&progressReader{in: out, bar: bar}, maxLogLine))
	bar.hide()
	if waitErr := journal.Wait(); err == nil {
		err = waitErr
	}
	if err != nil {
		return fmt.Errorf("journalctl: %w: %s", err, printable.Line(bytes.TrimSpace(complaint.Bytes()), 200))
	}
	return nil
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

func (r whyReport) writeText(w io.Writer) error {
	out := bufio.NewWriter(w)
	at := func(t time.Time) string { return t.Local().Format(time.DateTime) }
	fmt.Fprintf(out, "%s: %s", cleaned(strings.Join(r.Logs, ", ")), counted(r.Lines, "line"))
	if !r.From.IsZero() {
		fmt.Fprintf(out, " from %s to %s", at(r.From), at(r.To))
	}
	fmt.Fprintln(out)
	if r.Unparsed > 0 {
		fmt.Fprintf(out, "not in the form of a mail log: %s\n", counted(r.Unparsed, "line"))
	}
	if r.Messages == 0 {
		fmt.Fprintln(out, "no message was held back by TLS policy")
	} else {
		fmt.Fprintf(out, "%s held back by TLS policy, %d still waiting\n", counted(r.Messages, "message"), r.Waiting)
	}
	if r.Truncated {
		fmt.Fprintln(out, "there are more messages or next hops than are counted: these are lower bounds")
	}
	if n := r.Other; n.Deliveries > 0 {
		fmt.Fprintf(out, "other deliveries that failed: %d, the last: %s\n", n.Deliveries, n.Last)
	}
	if n := r.Unrecognized; n.Deliveries > 0 {
		fmt.Fprintf(out, "deliveries that failed for a reason about TLS that is not recognized: %d, the last: %s\n", n.Deliveries, n.Last)
	}
	if r.DaemonError != "" {
		fmt.Fprintf(out, "the daemon was not asked: %s\n", cleaned(r.DaemonError))
	}
	for _, c := range r.Causes {
		fmt.Fprintf(out, "\n== %s: %s, %d waiting\n%s (%s)\n", c.Code, counted(c.Messages, "message"), c.Waiting, c.Meaning,
			map[string]string{"remote": "to be fixed on the remote side", "local": "to be fixed on this host", "either": "to be fixed on the remote side or on this host"}[c.Side])
		for _, g := range c.NextHops[:min(hopsShown, len(c.NextHops))] {
			writeGroup(out, g, at)
		}
		if more := len(c.NextHops) - hopsShown; more > 0 {
			fmt.Fprintf(out, "  and %d more next hops: --json prints them\n", more)
		}
		advice := c.Advice
		// It is text of the log, and ends up in a shell.
		if hop, ok := policy.ParseNextHop(c.NextHops[0].NextHop); ok && len(c.NextHops) == 1 {
			advice = strings.ReplaceAll(advice, "DOMAIN", hop.Domain)
		}
		fmt.Fprintf(out, "  -> %s\n", advice)
	}
	return out.Flush()
}

func writeGroup(out io.Writer, g *maillog.Group, at func(time.Time) string) {
	name := g.NextHop
	if name == "" {
		name = "other next hops"
	}
	fmt.Fprintf(out, "  %s: %s", name, counted(g.Messages, "message"))
	for _, part := range []struct {
		n    int
		what string
	}{{g.Waiting, "waiting"}, {g.Delivered, "delivered later"}, {g.Returned, "returned"}} {
		if part.n > 0 {
			fmt.Fprintf(out, ", %d %s", part.n, part.what)
		}
	}
	fmt.Fprintf(out, ", since %s, last %s (%s)\n", at(g.Since), at(g.Last), g.QueueID)
	fmt.Fprintf(out, "    Postfix  %s\n", g.Reason)
	for _, h := range g.Hosts {
		if text := strings.Trim(h.Host+": "+h.Evidence, ": "); text != "" {
			fmt.Fprintf(out, "             %s\n", text)
		}
	}
	d, ok := g.Daemon.(admin.Details)
	if !ok {
		return
	}
	for _, a := range d.Answers {
		fmt.Fprintf(out, "    daemon   %s: %s; %s\n", visible(a.NextHop), cleaned(a.Postfix), cleaned(a.Why))
	}
	if d.LastError != "" {
		fmt.Fprintf(out, "             last error: %s\n", cleaned(d.LastError))
	}
}
