package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"tlspolicyd/socketmap"
	"tlspolicyd/testing/load"
)

// farTooLarge is where a file has become a defect, in bytes a domain.
const farTooLarge = 900

// hotConnections is how many ask for the hot set.
const hotConnections = 100

// million is a daemon with a large cache, a part of which is asked for again
// and again, beside one with a thousand domains.
func million(ctx context.Context, s settings) error {
	large, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	began := time.Now()
	if err := seed(ctx, large, s.domains); err != nil {
		return err
	}
	path := filepath.Join(large, "policies.db")
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	w := table("what", "figure")
	row(w, "domains", s.domains)
	row(w, "written in", time.Since(began).Round(time.Second))
	each := int(info.Size()) / s.domains
	row(w, "file, a domain", fmt.Sprintf("%d bytes", each))
	if each > farTooLarge {
		return fmt.Errorf("%d bytes of file for a domain, which is far too many", each)
	}

	for _, cache := range []string{"cold", "warm"} {
		if cache == "cold" {
			if err := dropPages(path); err != nil {
				return err
			}
		}
		took, err := startTime(ctx, s, large)
		if err != nil {
			return err
		}
		row(w, "start to first right answer, "+cache+" page cache", took.Round(time.Millisecond))
	}
	h, err := startHost(ctx, s, large, nowhere)
	if err != nil {
		return err
	}
	defer h.Stop()
	if err := measureLarge(ctx, s, h, w); err != nil {
		return err
	}
	return w.Flush()
}

// measureLarge measures the daemon with the large cache.
func measureLarge(ctx context.Context, s settings, h *host, w *tabwriter.Writer) error {
	resident := func(when string) error {
		m, err := memoryOf(h.Pid())
		row(w, "resident "+when, m)
		return firstError(err, m.bounded())
	}
	if err := resident("after the start"); err != nil {
		return err
	}
	order := rand.New(rand.NewPCG(1, 1)).Perm(s.domains)
	hot, rest := order[:s.hot], order[s.hot:]
	if _, err := askOnce(ctx, h, hot, hotConnections); err != nil {
		return err
	}
	if err := resident(fmt.Sprintf("with a hot set of %d", s.hot)); err != nil {
		return err
	}
	stored := rest[:min(len(rest), 20_000)]
	r, err := askOnce(ctx, h, stored, 1)
	if err != nil {
		return err
	}
	row(w, "stored, not in memory: median, p99", fmt.Sprintf("%v, %v", r.Times.Quantile(0.5).Round(time.Microsecond), r.Times.Quantile(0.99).Round(time.Microsecond)))
	if r, err = askOnce(ctx, h, rest[len(rest)-len(stored):], hotConnections); err != nil {
		return err
	}
	row(w, fmt.Sprintf("the same, %d connections", hotConnections), fmt.Sprintf("%v, %v", r.Times.Quantile(0.5).Round(time.Microsecond), r.Times.Quantile(0.99).Round(time.Microsecond)))
	if err := resident("after these"); err != nil {
		return err
	}
	if _, err := askOnce(ctx, h, hot, hotConnections); err != nil { // some made room
		return err
	}

	if err := besideSmall(ctx, s, h, hot, w); err != nil {
		return err
	}
	return resident("at the end")
}

// besideSmall lets the daemon with the large cache and one with a thousand
// domains take turns: once with a thousand domains that are asked for, and once
// with all that are hot.
func besideSmall(ctx context.Context, s settings, h *host, hot []int, w *tabwriter.Writer) error {
	const few = 1000
	dir, remove, err := tempDir()
	if err != nil {
		return err
	}
	defer remove()
	if err := seed(ctx, dir, few); err != nil {
		return err
	}
	small, err := startHost(ctx, s, dir, nowhere)
	if err != nil {
		return err
	}
	defer small.Stop()
	all := make([]int, few)
	for i := range all {
		all[i] = i
	}
	for _, asked := range [][]int{hot[:few], hot} {
		a, b, err := duel{s, "unix", hotConnections}.run(ctx,
			contestant{small.Pid(), small.unix, load.Requests("postfix", load.Keys(all))},
			contestant{h.Pid(), h.unix, load.Requests("postfix", load.Keys(asked))})
		if err != nil {
			return err
		}
		row(w, fmt.Sprintf("hits of %d, %d connections", len(asked), hotConnections),
			fmt.Sprintf("%.0f/s, %s of the %.0f/s of a cache of %d domains; CPU %s and %s",
				median(b, rate), ratio(b, a, rate), median(a, rate), few, micros(median(b, cpuEach)), micros(median(a, cpuEach))))
	}
	return nil
}

// startTime is how long it takes from the start of the process to a right
// answer about a stored domain.
func startTime(ctx context.Context, s settings, dir string) (time.Duration, error) {
	began := time.Now()
	h, err := startHost(ctx, s, dir, nowhere)
	if err != nil {
		return 0, err
	}
	defer h.Stop()
	client, err := socketmap.NewClient("unix:" + h.unix)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	at := s.domains / 2
	for load.KindOf(at) != load.STS {
		at++
	}
	reply, err := client.Lookup(ctx, "postfix", load.Domain(at))
	took := time.Since(began)
	if err == nil && reply.String() != load.Want(at) {
		err = fmt.Errorf("wrong answer about %s: %s", load.Domain(at), reply)
	}
	return took, err
}

// askOnce asks for domains once each and holds the replies against the right
// ones.
func askOnce(ctx context.Context, h *host, numbers []int, connections int) (*load.Result, error) {
	r, err := load.Clients{
		Network: "unix", Address: h.unix, Connections: connections, Once: true,
		Requests: load.Requests("postfix", load.Keys(numbers)),
	}.Run(ctx)
	if err != nil {
		return nil, err
	}
	for i, n := range numbers {
		if r.Replies[i] != load.Want(n) {
			return nil, fmt.Errorf("wrong answer about %s: %s", load.Domain(n), r.Replies[i])
		}
	}
	return r, nil
}
