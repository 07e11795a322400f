package main

import (
	"context"
	"fmt"
	"net"

	"tlspolicyd/testing/load"
)

// idle opens connections that ask once, as Postfix's do, and leaves them open.
func idle(ctx context.Context, s settings) error {
	w := table("network", "connections", "resident before", "resident after", "each")
	for _, network := range []string{"unix", "tcp"} {
		before, after, err := idleRun(ctx, s, network)
		if err != nil {
			return err
		}
		row(w, network, s.idle, before, after, fmt.Sprintf("%.1f KB", float64(after.all-before.all)/float64(s.idle)/1024))
	}
	return w.Flush()
}

// idleRun is the memory of a new daemon before and after.
func idleRun(ctx context.Context, s settings, network string) (before, after memory, err error) {
	dir, remove, err := tempDir()
	if err != nil {
		return before, after, err
	}
	defer remove()
	if err := seed(ctx, dir, 4000); err != nil {
		return before, after, err
	}
	h, err := startHost(ctx, s, dir, nowhere)
	if err != nil {
		return before, after, err
	}
	defer h.Stop()
	if before, err = memoryOf(h.Pid()); err != nil {
		return before, after, err
	}
	after, err = withIdle(h, network, s.idle)
	return before, after, firstError(err, after.bounded())
}

// withIdle is the memory of the daemon while idle connections are open.
func withIdle(h *host, network string, n int) (memory, error) {
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	buf := make([]byte, 512)
	for i := range n {
		nc, err := net.Dial(network, h.address(network))
		if err != nil {
			return memory{}, err
		}
		conns = append(conns, nc)
		if _, err := nc.Write(load.Requests("postfix", []string{load.Domain(i % 4000)})[0]); err != nil {
			return memory{}, err
		}
		if _, err := nc.Read(buf); err != nil {
			return memory{}, fmt.Errorf("connection %d is not answered: %w", i+1, err)
		}
	}
	return memoryOf(h.Pid())
}
