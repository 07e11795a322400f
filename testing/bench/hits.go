package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/load"
)

// hits asks a thousand domains with MTA-STS, the longest replies there usually
// are, in turn with an echo server that sends replies of the same size.
func hits(ctx context.Context, s settings) error {
	dir, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	if err := seed(ctx, dir, 4000); err != nil {
		return err
	}
	h, err := startHost(ctx, s, dir, nowhere)
	if err != nil {
		return err
	}
	defer h.Stop()
	requests := load.Requests("postfix", keysOf(4000, load.STS))

	e, err := startEcho(dir, load.Want(1))
	if err != nil {
		return err
	}
	defer e.stop()

	w := table("network", "connections", "echo/s", "daemon/s", "ratio", "of p50", "of p99", "echo CPU", "daemon CPU")
	for _, network := range []string{"unix", "tcp"} {
		for _, connections := range []int{1, 10, 100, 1000} {
			echo, daemon, err := duel{s, network, connections}.run(ctx,
				contestant{e.cmd.Process.Pid, e.address(network), requests},
				contestant{h.Pid(), h.address(network), requests})
			if err != nil {
				return err
			}
			row(w, network, connections, fmt.Sprintf("%.0f", median(echo, rate)), fmt.Sprintf("%.0f", median(daemon, rate)),
				ratio(daemon, echo, rate), ratio(daemon, echo, quantile(0.5)), ratio(daemon, echo, quantile(0.99)),
				micros(median(echo, cpuEach)), micros(median(daemon, cpuEach)))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("\n%d turns of %v each; medians of the turns and of their ratios. CPU is processor time of the server's process for each lookup.\n", s.turns, s.turn)
	return nil
}

// seed makes the database of a daemon in dir, with n domains of the mixture.
func seed(ctx context.Context, dir string, n int) error {
	db, err := bolt.Open(filepath.Join(dir, "policies.db"), bolt.Options{MaxEntries: 2 * n})
	if err != nil {
		return err
	}
	return firstError(load.Fill(ctx, db, n, time.Now()), db.Close())
}

// keysOf are those of the first n domains that are of a kind.
func keysOf(n int, kind load.Kind) []string {
	var keys []string
	for i := range n {
		if load.KindOf(i) == kind {
			keys = append(keys, load.Domain(i))
		}
	}
	return keys
}

type echoServer struct {
	*child
	unix, tcp string
}

func startEcho(dir, reply string) (*echoServer, error) {
	tcp, err := freePort()
	if err != nil {
		return nil, err
	}
	e := &echoServer{unix: filepath.Join(dir, "echo.sock"), tcp: tcp}
	payload := reply[len("OK "):] // Echo puts it back
	e.child, err = startChild("as-echo", e.unix, e.tcp, payload)
	return e, err
}

func (e *echoServer) address(network string) string {
	if network == "unix" {
		return e.unix
	}
	return e.tcp
}

// contestant is a server process.
type contestant struct {
	pid      int
	address  string
	requests [][]byte
}

// turn is what came of one.
type turn struct {
	*load.Result
	cpu time.Duration // that the server used
}

// duel lets two servers take turns, so that whatever else happens on the
// machine happens to both.
type duel struct {
	settings
	network     string
	connections int
}

func (d duel) run(ctx context.Context, first, second contestant) (a, b []turn, err error) {
	for i := range d.turns + 1 {
		x, err := d.turnOf(ctx, first)
		if err != nil {
			return nil, nil, err
		}
		y, err := d.turnOf(ctx, second)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 { // the first is to get warm
			a, b = append(a, x), append(b, y)
		}
	}
	return a, b, nil
}

func (d duel) turnOf(ctx context.Context, c contestant) (turn, error) {
	before := cpu(c.pid)
	r, err := load.Clients{
		Network: d.network, Address: c.address, Connections: d.connections, Requests: c.requests, For: d.turn,
	}.Run(ctx)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%d of %d lookups failed", r.Failed, r.Asked)
	}
	return turn{r, cpu(c.pid) - before}, err
}

func rate(t turn) float64 { return t.Rate() }

func cpuEach(t turn) float64 { return float64(t.cpu) / float64(t.Asked) }

func quantile(share float64) func(turn) float64 {
	return func(t turn) float64 { return float64(t.Times.Quantile(share)) }
}

// median is that of a figure of the turns.
func median(turns []turn, figure func(turn) float64) float64 {
	all := make([]float64, len(turns))
	for i, t := range turns {
		all[i] = figure(t)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// ratio is the median of the ratios of turns that followed each other.
func ratio(turns, to []turn, figure func(turn) float64) string {
	all := make([]float64, len(turns))
	for i := range turns {
		all[i] = figure(turns[i]) / figure(to[i])
	}
	slices.Sort(all)
	return fmt.Sprintf("%.2f", all[len(all)/2])
}

func micros(ns float64) string { return fmt.Sprintf("%.1f µs", ns/1000) }

func table(head ...any) *tabwriter.Writer {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row(w, head...)
	return w
}

func row(w *tabwriter.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
