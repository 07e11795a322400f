package valkey

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/share"
)

// This file is what a host gives to the fleet: policies that it fetched, and leases
// that it no longer needs. No caller waits for it.

const (
	maxOffers   = 256          // policies that wait to be written
	maxMissed   = 4 << 20      // bytes of policies that wait for an engine that does not answer
	writers     = maxConns / 3 // policies written at a time
	changesKept = "100000"
)

// offered is a policy that waits to be written.
type offered struct {
	domain  string
	policy  share.Policy
	fetched time.Time // by this host's monotonic clock
	lease   share.Lease
}

// missed are policies that could not be written: the last one of each domain.
type missed struct {
	mu    sync.Mutex
	all   map[string]offered
	bytes int
}

// Offer implements share.Fleet.
func (c *Client) Offer(domain string, p share.Policy, lease share.Lease) {
	o := offered{domain, p, time.Now().Add(-p.Age), lease}
	if !c.later(func() { c.store(o) }) {
		c.miss(o)
	}
}

// miss keeps a policy until others can be written, as far as there is room.
func (c *Client) miss(o offered) {
	c.dropped.Add(1)
	o.lease = share.Lease{} // it will be over
	m := &c.missed
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.all[o.domain]
	if more := len(o.policy.File) - len(before.policy.File); m.bytes+more <= maxMissed && !before.fetched.After(o.fetched) {
		if m.all == nil {
			m.all = make(map[string]offered)
		}
		m.all[o.domain] = o
		m.bytes += more
	}
}

// take returns a policy that was missed, and false where there is none.
func (m *missed) take() (offered, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for domain, o := range m.all {
		delete(m.all, domain)
		m.bytes -= len(o.policy.File)
		return o, true
	}
	return offered{}, false
}

// offerAgain tries one policy that could not be written; if it can be now, store
// goes on with the others.
func (c *Client) offerAgain() {
	c.later(func() {
		if o, ok := c.missed.take(); ok {
			c.store(o)
		}
	})
}

// Release implements share.Fleet.
func (c *Client) Release(domain string, lease share.Lease) {
	if lease.Token == "" {
		return
	}
	c.later(func() { // and else it ends by itself
		ctx, cancel := context.WithTimeout(c.ctx, background)
		defer cancel()
		if _, err := c.eval(ctx, releaseScript, []string{c.leaseKey(domain)}, lease.Token); err != nil {
			c.noteWrite(err)
		}
	})
}

// later has work done in the background, or reports that it is not.
func (c *Client) later(work func()) bool {
	if !c.breaker.up() {
		return false
	}
	select {
	case c.offers <- work:
		return true
	default:
		return false
	}
}

// write does what was put off.
func (c *Client) write() {
	for {
		select {
		case work := <-c.offers:
			work()
		case <-c.ctx.Done():
			return
		}
	}
}

// store writes the entry of a policy, and then, while the engine takes them, those
// that were missed.
func (c *Client) store(o offered) {
	for ok := true; ok && c.storeOne(o); {
		o, ok = c.missed.take()
	}
}

// storeOne writes an entry and notifies the other hosts. It reports whether the
// engine takes entries.
func (c *Client) storeOne(o offered) bool {
	ctx, cancel := context.WithTimeout(c.ctx, background)
	defer cancel()
	result, err := c.put(ctx, o.domain, o.policy, o.fetched, o.lease)
	_, refused := errors.AsType[refusal](err)
	switch {
	case refused:
		c.dropped.Add(1)
		return true
	case err != nil:
		c.noteWrite(err)
		c.miss(o)
		return false
	case result != "stored":
		c.fenced.Add(1)
		return true
	}
	c.stored.Add(1)
	if _, err := c.engine.do(ctx, c.changes(), "XADD", c.changes(), "MAXLEN", "~", changesKept, "*", "domain", o.domain, "member", c.member); err != nil {
		c.noteWrite(err)
	}
	return true
}

func (c *Client) put(ctx context.Context, domain string, p share.Policy, fetched time.Time, lease share.Lease) (result string, err error) {
	parsed, err := mtasts.ParsePolicy(p.File)
	age := max(time.Since(fetched), time.Now().Round(0).Sub(fetched.Round(0))) // monotonic time stands still while a host sleeps
	left := parsed.MaxAge - age
	if err != nil || left < time.Millisecond {
		return "over", nil
	}
	if lease.Fence == 0 { // fetched without: the time of the server is asked for
		v, err := c.engine.do(ctx, c.entryKey(domain), "TIME")
		if err != nil {
			return "", err
		}
		lease.Granted, lease.Fence = fetched, microseconds(v)-age.Microseconds()
	}
	p.Host = c.opt.Host
	at := time.UnixMicro(lease.Fence).Add(fetched.Sub(lease.Granted))
	e := c.settings.Load().Keys.Seal(domain, p, at, lease.Fence)
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	v, err := c.eval(ctx, writeScript, []string{c.entryKey(domain), c.leaseKey(domain)},
		number(e.Format), number(e.Fence), number(left.Milliseconds()), lease.Token,
		"format", number(e.Format), "file", string(e.File), "id", e.ID, "time", number(e.Time), "fence", number(e.Fence),
		"host", e.Host, "mac", string(e.MAC))
	return string(v.text), err
}

// Delete implements share.Fleet.
func (c *Client) Delete(ctx context.Context, domains ...string) (deleted int, err error) {
	for _, domain := range domains {
		limited, cancel := context.WithTimeout(ctx, background)
		v, err := c.engine.do(limited, c.entryKey(domain), "DEL", c.entryKey(domain))
		if cancel(); err != nil {
			return deleted, err
		}
		if v.number() == 1 {
			deleted++
		}
	}
	return deleted, nil
}
