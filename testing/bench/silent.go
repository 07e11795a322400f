package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"tlspolicyd/socketmap"
	"tlspolicyd/testing/load"
)

// silentPause is the time from one lookup to the next.
const silentPause = 20 * time.Millisecond

// silent asks for cached answers, each over a new connection, while another client has
// as many lookups of names under way whose servers are silent as it gets, with the
// limit of connections at its default.
func silent(ctx context.Context, s settings) error {
	w := table("network", "its lookups", "p50 before", "p99 before", "p50", "p99", "longest", "resident before", "resident")
	for _, network := range []string{"unix", "tcp"} {
		if network == "unix" && os.Getuid() != 0 {
			fmt.Println("unix: NOT MEASURED: a client that is another user takes root")
			continue
		}
		cells, err := silentRun(ctx, s, network)
		if err != nil {
			return firstError(w.Flush(), err)
		}
		row(w, cells...)
	}
	return w.Flush()
}

// silentRun returns the cells of one row.
func silentRun(ctx context.Context, s settings, network string) (cells []any, err error) {
	dir, remove, err := tempDir()
	if err != nil {
		return nil, err
	}
	defer remove()
	if err := firstError(seed(ctx, dir, 4000), os.Chmod(dir, 0o711)); err != nil { // the other user comes in
		return nil, err
	}
	dns, err := net.ListenPacket("udp", "127.0.0.1:0") // never read
	if err != nil {
		return nil, err
	}
	defer dns.Close()
	h, err := startHost(ctx, s, dir, fmt.Sprintf("[dns]\nservers = [%q]\n", dns.LocalAddr()), fmt.Sprintf("max_connections = %d", socketmap.DefaultMaxConnections))
	if err != nil {
		return nil, err
	}
	defer h.Stop()
	requests := load.Requests("postfix", keysOf(4000, load.STS))
	ask := func() (*load.Result, error) {
		r := &load.Result{}
		tick := time.NewTicker(silentPause)
		defer tick.Stop()
		for i := range s.silent / 5 {
			<-tick.C
			client := load.Clients{
				Network: network, Address: h.address(network), Connections: 1, Once: true,
				Requests: requests[i%len(requests):][:1],
			}
			began := time.Now()
			one, err := client.Run(ctx)
			for errors.Is(err, syscall.EAGAIN) { // the listen queue of a Unix socket is full
				time.Sleep(time.Millisecond)
				one, err = client.Run(ctx)
			}
			if err != nil {
				return nil, err
			}
			if one.Failed > 0 {
				return nil, fmt.Errorf("answered %q", one.Replies)
			}
			r.Took = append(r.Took, time.Since(began))
		}
		slices.Sort(r.Took)
		return r, nil
	}
	before, err := ask()
	if err != nil {
		return nil, err
	}
	memoryBefore, err := memoryOf(h.Pid())
	if err != nil {
		return nil, err
	}
	other, err := startChild("as-other", network, h.address(network), strconv.Itoa(s.silent))
	if err != nil {
		return nil, err
	}
	defer other.stop()
	during, err := ask()
	if err != nil {
		return nil, err
	}
	memory, err := memoryOf(h.Pid())
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
	at := func(r *load.Result, share float64) string { return ms(r.Took[int(share*float64(len(r.Took)-1))]) }
	cells = []any{network, s.silent, at(before, 0.5), at(before, 0.99), at(during, 0.5), at(during, 0.99), at(during, 1), memoryBefore, memory}
	return cells, firstError(err, memory.bounded())
}

// other is the role of the other client: another user over a Unix socket, another
// address over TCP. It has so many lookups under way, each over a connection of its
// own, and begins another one wherever one ends.
func other(args []string) error {
	network, address := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: time.Second}
	if network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	} else if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
		return err
	}
	var asked sync.WaitGroup
	asked.Add(n)
	for i := range n {
		go func() {
			for try := 0; ; try++ {
				nc, err := dialer.Dial(network, address)
				if err == nil {
					_, err = nc.Write(load.Requests("postfix", []string{fmt.Sprintf("d%d.%d.silent.test", try, i)})[0])
				}
				if try == 0 {
					asked.Done()
				}
				if err != nil {
					time.Sleep(10 * time.Millisecond) // the queue of connections is full
					continue
				}
				_, _ = io.Copy(io.Discard, io.LimitReader(nc, 1))
				nc.Close()
			}
		}()
	}
	asked.Wait()
	fmt.Println("ready")
	untilStdinEnds()
	return nil
}
