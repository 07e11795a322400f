// Command demo shows tlspolicyd at work without a network, without root and
// without Postfix: it puts a small internet into this process, starts the real
// daemon beside it, asks through the real socket what Postfix would ask, and
// prints a table of the replies. It ends with status 1 when a reply is not the
// expected one.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"tlspolicyd/socketmap"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/lab/daemon"
)

func main() {
	binary := flag.String("daemon", "bin/tlspolicyd", "the tlspolicyd to show")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, os.Stdout, os.Stderr, terminalWidth(os.Stdout))
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run shows the demo with one daemon, from start to stop.
func run(ctx context.Context, binary string, out, diag io.Writer, width int) (err error) {
	dir, err := os.MkdirTemp("", "tlspolicyd-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := lab.New()
	defer w.Close()
	questions := scenario(w)
	config, err := configOf(dir, w)
	if err != nil {
		return err
	}
	d, err := daemon.Start(binary, dir, config)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, d.Stop())
		if err != nil {
			showLog(diag, d.Log)
		}
	}()
	client, err := socketmap.NewClient("unix:" + filepath.Join(dir, "socketmap.sock"))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := d.Ready(ctx, client); err != nil {
		return err
	}
	cold, err := askAll(ctx, client, questions)
	if err != nil {
		return err
	}
	queries := w.Count("*", "")
	w.Down(true) // from here on only what was kept can answer
	cached, err := askAll(ctx, client, questions)
	if err != nil {
		return err
	}
	printTable(out, questions, cold, cached, width)
	fmt.Fprintf(out, "\n%d questions, each asked twice. FIRST cost %d DNS queries in all; for CACHED the DNS was silent.\n",
		len(questions), queries)
	return errors.Join(compare("first", questions, cold), compare("cached", questions, cached))
}

// answer is what the daemon said and how long that took.
type answer struct {
	reply string
	took  time.Duration
}

// askAll asks the questions in turn. An error is an answer that never came.
func askAll(ctx context.Context, client *socketmap.Client, questions []question) ([]answer, error) {
	var answers []answer
	for _, q := range questions {
		begin := time.Now()
		reply, err := client.Lookup(ctx, q.mapName, q.key)
		if err != nil {
			return nil, fmt.Errorf("%s in %s: %w", q.key, q.mapName, err)
		}
		answers = append(answers, answer{reply.String(), time.Since(begin)})
	}
	return answers, nil
}

// compare returns an error for each answer that is not the expected one.
func compare(pass string, questions []question, answers []answer) error {
	var wrong []error
	for i, q := range questions {
		if !q.matches(answers[i].reply) {
			wrong = append(wrong, fmt.Errorf("%s, %s in %s: got %q, want %q", pass, q.key, q.mapName, answers[i].reply, q.want))
		}
	}
	return errors.Join(wrong...)
}

// showLog copies the end of the daemon's log to diag.
func showLog(diag io.Writer, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	const most = 8 << 10
	fmt.Fprintf(diag, "demo: the daemon's log:\n%s\n", bytes.TrimSpace(text[max(0, len(text)-most):]))
}
