// Package load asks a socketmap server as Postfix does, many times over: each
// connection has one request in flight (socketmap_table(5)). It measures what
// the daemon is worth beside Echo, a server that does nothing but answer. The
// figures are made by the command in testing/bench.
package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Clients are connections that ask. Network, Address, Connections and Requests
// must be set, and one of For and Once.
type Clients struct {
	Network, Address string
	Connections      int
	Requests         [][]byte // as they go out, see Requests

	// For is how long they ask. Each connection goes through all requests, and
	// again, from a place of its own.
	For time.Duration

	// Once has each request asked once, in order, by whoever is free.
	Once bool
}

// Result is what became of the requests.
type Result struct {
	Asked   int
	Failed  int // answered TEMP, TIMEOUT or PERM
	Elapsed time.Duration
	Times   Histogram

	// With Once, by request: how long it took, and the reply's payload.
	Took    []time.Duration
	Replies []string
}

// Rate is in requests a second.
func (r *Result) Rate() float64 { return float64(r.Asked) / r.Elapsed.Seconds() }

// Requests makes requests of keys.
func Requests(mapName string, keys []string) [][]byte {
	all := make([][]byte, len(keys))
	for i, key := range keys {
		payload := mapName + " " + key
		all[i] = fmt.Appendf(nil, "%d:%s,", len(payload), payload)
	}
	return all
}

// Run connects, asks, and returns when all is answered or something went wrong.
// What it measures begins when the last connection has got its first answer.
func (c Clients) Run(ctx context.Context) (*Result, error) {
	if len(c.Requests) == 0 || c.Connections < 1 || (c.For > 0) == c.Once {
		return nil, errors.New("load: want requests, connections, and either For or Once")
	}
	clients := make([]*client, c.Connections)
	defer func() {
		for _, cl := range clients {
			if cl != nil {
				cl.nc.Close()
			}
		}
	}()
	for i := range clients {
		nc, err := new(net.Dialer).DialContext(ctx, c.Network, c.Address)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		clients[i] = &client{nc: nc, buf: make([]byte, 512)}
	}
	stop := context.AfterFunc(ctx, func() {
		for _, cl := range clients {
			_ = cl.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	r := &Result{}
	if c.Once {
		return r, c.once(clients, r)
	}
	return r, c.timed(clients, r)
}

// timed is Run with For.
func (c Clients) timed(clients []*client, r *Result) error {
	if err := each(clients, func(i int, cl *client) error {
		_, err := cl.ask(c.Requests[i%len(c.Requests)])
		return err
	}); err != nil {
		return err
	}
	begin := time.Now()
	end := begin.Add(c.For)
	err := each(clients, func(i int, cl *client) error {
		at := i * len(c.Requests) / len(clients)
		for from := time.Now(); from.Before(end); at++ {
			if at == len(c.Requests) {
				at = 0
			}
			reply, err := cl.ask(c.Requests[at])
			if err != nil {
				return err
			}
			now := time.Now()
			cl.note(reply, now.Sub(from))
			from = now
		}
		return nil
	})
	r.Elapsed = time.Since(begin)
	r.take(clients)
	return err
}

// once is Run with Once.
func (c Clients) once(clients []*client, r *Result) error {
	r.Took = make([]time.Duration, len(c.Requests))
	r.Replies = make([]string, len(c.Requests))
	var next atomic.Int64
	begin := time.Now()
	err := each(clients, func(_ int, cl *client) error {
		for {
			at := int(next.Add(1)) - 1
			if at >= len(c.Requests) {
				return nil
			}
			from := time.Now()
			reply, err := cl.ask(c.Requests[at])
			if err != nil {
				return fmt.Errorf("request %q: %w", c.Requests[at], err)
			}
			r.Took[at] = time.Since(from)
			r.Replies[at] = string(reply)
			cl.note(reply, r.Took[at])
		}
	})
	r.Elapsed = time.Since(begin)
	r.take(clients)
	return err
}

func (r *Result) take(clients []*client) {
	for _, cl := range clients {
		r.Times.Merge(&cl.times)
		r.Failed += cl.failed
	}
	r.Asked = r.Times.Count()
}

// each runs fn for every client at once and returns the first error.
func each(clients []*client, fn func(i int, cl *client) error) error {
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, cl := range clients {
		wg.Go(func() { errs[i] = fn(i, cl) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// client is one connection.
type client struct {
	nc     net.Conn
	buf    []byte
	times  Histogram
	failed int
}

func (cl *client) note(reply []byte, took time.Duration) {
	cl.times.Add(took)
	if !bytes.HasPrefix(reply, []byte("OK ")) && !bytes.HasPrefix(reply, []byte("NOTFOUND ")) {
		cl.failed++
	}
}

// ask sends a request and returns the payload of its reply, which is good until
// the next call.
func (cl *client) ask(request []byte) ([]byte, error) {
	if _, err := cl.nc.Write(request); err != nil {
		return nil, err
	}
	for n := 0; ; {
		m, err := cl.nc.Read(cl.buf[n:])
		n += m
		payload, size, bad := cut(cl.buf[:n])
		switch {
		case bad != nil:
			return nil, bad
		case size == n && n > 0:
			return payload, nil
		case size > 0:
			return nil, fmt.Errorf("%d bytes behind the reply", n-size)
		case err != nil:
			return nil, err
		}
		if n == len(cl.buf) {
			cl.buf = append(cl.buf, make([]byte, n)...)
		}
	}
}

// cut finds the netstring that b begins with; size 0: b ends before it does.
func cut(b []byte) (payload []byte, size int, err error) {
	colon := bytes.IndexByte(b, ':')
	if colon < 0 {
		return nil, 0, nil
	}
	n, err := strconv.Atoi(string(b[:colon]))
	if err != nil {
		return nil, 0, fmt.Errorf("no netstring: %.20q", b)
	}
	if size = colon + 1 + n + 1; size > len(b) {
		return nil, 0, nil
	}
	return b[colon+1 : size-1], size, nil
}
