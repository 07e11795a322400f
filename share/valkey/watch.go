package valkey

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tlspolicyd/share"
)

const (
	watchRetry = 2 * time.Second // after a lost connection
	blockFor   = 5 * time.Second // until a server without news answers
	scanBatch  = 500             // keys
	readers    = maxConns / 3    // entries read at a time; a third of the connections is for lookups
	readBatch  = 64              // entries in memory at a time
	maxBatches = 1 << 17         // of a scan, and
	maxEntries = 5_000_000       // entries: a server that never comes to an end is none
)

// Watch implements share.Fleet.
func (c *Client) Watch(ctx context.Context, changed func(string, share.Policy)) {
	last := "" // id of the last change that was seen; "": nothing was
	for ctx.Err() == nil && c.ctx.Err() == nil {
		err := c.follow(ctx, &last, changed)
		c.watching.Store(false)
		c.engine.lookAgain()
		c.engine.close() // connections of before may be dead
		if ctx.Err() == nil && c.ctx.Err() == nil {
			c.log.warn("shared cache cannot be followed", causeOf(err), "reason", err)
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
}

// follow reads the stream on a connection of its own, until that fails. Where
// changes may have been missed all entries are read.
func (c *Client) follow(ctx context.Context, last *string, changed func(string, share.Policy)) error {
	starting, cancel := context.WithTimeout(ctx, background)
	defer cancel()
	address, err := c.engine.address(starting, c.changes())
	if err != nil {
		return err
	}
	conn, err := c.engine.dial(starting, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(c.ctx, func() { _ = conn.Close() })() // it is about to be closed anyway
	newest, complete, err := c.since(starting, conn, *last)
	if err != nil {
		return err
	}
	if !c.breaker.up() {
		c.probe(ctx) // the next one of the breaker may be a minute away
	}
	c.watching.Store(true)
	c.offerAgain()
	if !complete {
		c.reread.Store(true)
		*last = newest
	}
	for {
		if c.reread.Swap(false) {
			if err := c.Each(ctx, func(domain string, p share.Policy) error { changed(domain, p); return ctx.Err() }); err != nil {
				c.reread.Store(true)
				return err
			}
		}
		reading, cancel := context.WithTimeout(ctx, blockFor+background)
		v, err := conn.do(reading, "XREAD", "COUNT", "100", "BLOCK", strconv.FormatInt(blockFor.Milliseconds(), 10),
			"STREAMS", c.changes(), *last)
		cancel()
		if err == nil {
			err = v.err()
		}
		if errors.Is(err, errProtocol) {
			*last = "" // what cannot be read now cannot be read later
		}
		if err != nil {
			return err
		}
		entries := v.at(0).at(1).array
		if v.kind != '_' && len(entries) == 0 {
			return errProtocol
		}
		for _, entry := range entries {
			id := string(entry.at(0).text)
			if !streamID(*last).before(streamID(id)) {
				return errProtocol
			}
			if domain, own := c.change(entry.at(1)); domain != "" && !own {
				if err := c.tell(ctx, domain, changed); err != nil {
					return err // it is read again
				}
			}
			*last = id
		}
	}
}

// since returns the id of the newest change, and whether all that came after the
// last one that was seen can still be read.
func (c *Client) since(ctx context.Context, conn *conn, last string) (newest string, complete bool, err error) {
	ends := [2]streamID{}
	for i, command := range [][]string{{"XRANGE", c.changes(), "-", "+"}, {"XREVRANGE", c.changes(), "+", "-"}} {
		v, err := conn.do(ctx, append(command, "COUNT", "1")...)
		if err == nil {
			err = v.err()
		}
		if err != nil {
			return "", false, err
		}
		ends[i] = streamID(v.at(0).at(0).text)
		if v.kind != '*' || len(v.array) > 0 && !ends[i].valid() {
			return "", false, errProtocol
		}
	}
	if ends[0] == "" { // no stream: it was deleted, or nothing was offered yet
		return "0-0", last == "0-0", nil
	}
	if last == "" || streamID(last).before(ends[0]) || ends[1].before(streamID(last)) {
		return string(ends[1]), false, nil
	}
	return last, true, nil
}

// streamID is the id of a change: milliseconds, "-" and a number.
type streamID string

func (id streamID) parts() (ms, n uint64, valid bool) {
	before, after, _ := strings.Cut(string(id), "-")
	ms, err1 := strconv.ParseUint(before, 10, 64)
	n, err2 := strconv.ParseUint(after, 10, 64)
	return ms, n, err1 == nil && err2 == nil
}

func (id streamID) valid() bool {
	_, _, ok := id.parts()
	return ok
}

func (id streamID) before(other streamID) bool {
	ms, n, _ := id.parts()
	ms2, n2, _ := other.parts()
	return ms < ms2 || ms == ms2 && n < n2
}

// change reads the fields of a change; "": it is none.
func (c *Client) change(fields reply) (domain string, own bool) {
	for i := 0; i+1 < len(fields.array); i += 2 {
		value := string(fields.array[i+1].text)
		switch string(fields.array[i].text) {
		case "domain":
			domain = value
		case "member":
			own = value == c.member
		}
	}
	if !isDomain(domain) {
		return "", own
	}
	return domain, own
}

// tell reads the entry of a domain that changed.
func (c *Client) tell(ctx context.Context, domain string, changed func(string, share.Policy)) error {
	ctx, cancel := context.WithTimeout(ctx, background)
	p, err := c.ask(ctx, domain)
	cancel()
	_, refused := errors.AsType[refusal](err)
	switch {
	case refused, errors.Is(err, share.ErrNone):
		return nil
	case err == nil:
		changed(domain, p)
	}
	return err
}

// Each implements share.Fleet.
func (c *Client) Each(ctx context.Context, fn func(string, share.Policy) error) error {
	starting, cancel := context.WithTimeout(ctx, background)
	servers, err := c.engine.masters(starting)
	cancel()
	for i := 0; err == nil && i < len(servers); i++ {
		err = c.scan(ctx, servers[i], fn)
	}
	return err
}

// scan calls fn for the policies on one server.
func (c *Client) scan(ctx context.Context, address string, fn func(string, share.Policy) error) error {
	cursor, entries := "0", 0
	for range maxBatches {
		limited, cancel := context.WithTimeout(ctx, background)
		v, err := c.engine.pool(address).do(limited, "SCAN", cursor, "MATCH", c.entryKey("*"), "COUNT", strconv.Itoa(scanBatch))
		cancel()
		if err == nil {
			err = v.err()
		}
		if err != nil {
			return err
		}
		if len(v.array) != 2 || len(v.array[0].text) == 0 || len(v.array[0].text) > 20 {
			return errProtocol
		}
		if entries += len(v.array[1].array); entries > maxEntries {
			break
		}
		for keys := range slices.Chunk(v.array[1].array, readBatch) {
			if err := c.readAll(ctx, keys, fn); err != nil {
				return err
			}
		}
		if cursor = string(v.array[0].text); cursor == "0" {
			return nil
		}
	}
	return errProtocol
}

// readAll calls fn for the policies under some keys.
func (c *Client) readAll(ctx context.Context, keys []reply, fn func(string, share.Policy) error) error {
	type found struct {
		domain string
		policy share.Policy
		err    error
	}
	all := make([]found, len(keys))
	var g errgroup.Group
	g.SetLimit(readers)
	for i, key := range keys {
		g.Go(func() error {
			domain, ok := c.domainOf(string(key.text))
			if !ok {
				all[i].err = share.ErrNone
				return nil
			}
			limited, cancel := context.WithTimeout(ctx, background)
			defer cancel()
			all[i].domain = domain
			all[i].policy, all[i].err = c.ask(limited, domain)
			return nil
		})
	}
	_ = g.Wait() // errors are in all
	for _, f := range all {
		_, refused := errors.AsType[refusal](f.err)
		switch {
		case refused, errors.Is(f.err, share.ErrNone):
		case f.err != nil:
			return f.err
		default:
			if err := fn(f.domain, f.policy); err != nil {
				return err
			}
		}
	}
	return nil
}
