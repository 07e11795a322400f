// Package valkey is the engine of a fleet (package share) on Valkey or Redis:
// one server, Sentinel or a cluster.
//
// Its protocol client is its own, and small. The engine is bytes from outside like
// any other, and the client libraries allocate what a reply announces and panic in
// goroutines of their own where replies do not follow the protocol.
//
//   - resp.go reads replies, within bounds; conn.go keeps connections; engine.go
//     finds the server of a key.
//   - client.go asks for entries and leases, by the scripts of scripts.go; offer.go
//     writes them.
//   - breaker.go keeps lookups from waiting for an engine that does not answer.
//   - watch.go follows what other hosts offer.
//
// The keys, where PREFIX is configured:
//
//	PREFIX:1:{DOMAIN}        hash     an entry; expires with the policy
//	PREFIX:1:lease:{DOMAIN}  string   token of the host that fetches; expires
//	PREFIX:1:changes         stream   domain of each entry that was written
package valkey

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tlspolicyd/internal/hostname"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/share"
)

const (
	maxField       = 255             // bytes of a field other than the file
	background     = 5 * time.Second // for what no lookup waits for
	defaultTimeout = 250 * time.Millisecond
)

// Options are what a Client is made of.
type Options struct {
	Engine Engine
	Prefix string // of all keys
	Host   string // name of this host, in the entries that it writes; printable ASCII
	Log    *slog.Logger
}

// Settings are what may change while a Client works.
type Settings struct {
	Login   Login
	Keys    share.Keys
	Timeout time.Duration // of Ask and Claim; 0: 250 ms
	Lease   time.Duration // how long a lease is held: the longest fetch and some seconds
}

// Client is a share.Fleet. It connects when it is first used, and it works without
// a server as without a fleet.
type Client struct {
	opt      Options
	engine   engine
	settings atomic.Pointer[Settings]
	breaker  breaker
	log      sparseLog
	member   string // tells the changes of this process from those of others

	offers chan func()
	missed missed
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	watching                                              atomic.Bool
	reread                                                atomic.Bool // all entries, for changes may have been missed
	complained                                            atomic.Bool // in the log, of an engine that cannot be used
	hits, misses, errs, stored, dropped, fenced, refusals atomic.Uint64
}

var _ share.Fleet = (*Client)(nil)

// New makes a client. Close ends it.
func New(o Options, s Settings) *Client {
	c := &Client{
		opt: o, engine: engine{Engine: o.Engine, pools: make(map[string]*pool)},
		log: sparseLog{log: o.Log}, member: rand.Text(), offers: make(chan func(), maxOffers),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.breaker.probe = c.probe
	c.Renew(s)
	for range writers {
		c.work.Go(c.write)
	}
	return c
}

// Renew puts other settings in force.
func (c *Client) Renew(s Settings) {
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	if old := c.settings.Swap(&s); old != nil && !reflect.DeepEqual(old.Keys, s.Keys) {
		c.reread.Store(true) // what was refused may be believed now
	}
	c.engine.renew(&s.Login)
}

// Close ends background work; what was offered and not yet written is dropped.
func (c *Client) Close() {
	c.cancel()
	c.work.Wait()
	c.engine.close()
}

// Stats implements share.Fleet.
func (c *Client) Stats() share.Stats {
	return share.Stats{
		Up: c.breaker.up(), Watching: c.watching.Load(),
		Hits: c.hits.Load(), Misses: c.misses.Load(), Errors: c.errs.Load(),
		Stored: c.stored.Load(), Dropped: c.dropped.Load(), Fenced: c.fenced.Load(), Refused: c.refusals.Load(),
	}
}

func (c *Client) entryKey(domain string) string { return c.opt.Prefix + ":1:{" + domain + "}" }
func (c *Client) leaseKey(domain string) string { return c.opt.Prefix + ":1:lease:{" + domain + "}" }
func (c *Client) changes() string               { return c.opt.Prefix + ":1:changes" }

// domainOf returns the domain of an entry's key, or false.
func (c *Client) domainOf(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, c.opt.Prefix+":1:{")
	domain, closed := strings.CutSuffix(rest, "}")
	return domain, ok && closed && isDomain(domain)
}

func isDomain(s string) bool {
	canonical, err := hostname.Parse(s)
	return err == nil && canonical == s
}

// eval runs a script on keys, the first of which says where.
func (c *Client) eval(ctx context.Context, script string, keys []string, args ...string) (reply, error) {
	all := append([]string{"EVAL", script, strconv.Itoa(len(keys))}, keys...)
	v, err := c.engine.do(ctx, keys[0], append(all, args...)...)
	if wrong, ok := errors.AsType[serverError](err); ok && wrong.code() == "WRONGTYPE" {
		err = refusal{errors.New("the key is that of another program")}
	}
	return v, err
}

// lookup makes a call that a lookup waits for.
func (c *Client) lookup(ctx context.Context, note func(error), call func(context.Context) error) error {
	if !c.breaker.up() {
		return share.ErrDown
	}
	limit := c.settings.Load().Timeout
	deadline, ok := ctx.Deadline()
	short := ok && time.Until(deadline) < limit
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := call(limited)
	if !short && ctx.Err() == nil && !errors.Is(err, errBusy) { // else it says nothing about the engine
		note(err)
	}
	return err
}

// note has the breaker and the log know how a call went.
func (c *Client) note(err error) {
	_, refused := errors.AsType[refusal](err)
	switch {
	case err == nil, refused, errors.Is(err, share.ErrNone):
		if c.breaker.succeeded() {
			if c.complained.Swap(false) {
				c.log.log.Info("shared cache is used again")
			}
			c.offerAgain()
		}
	case c.ctx.Err() == nil:
		if closed := c.breaker.failed(); closed != nil {
			c.work.Go(func() { c.breaker.run(c.ctx, closed) })
		}
		if c.log.warn("shared cache cannot be used", causeOf(err), "reason", err) {
			c.complained.Store(true)
		}
	}
}

// noteWrite is note for what writes. An engine that refuses that can still be read.
func (c *Client) noteWrite(err error) {
	if refused, ok := errors.AsType[serverError](err); ok && (refused.code() == "NOPERM" || refused.unwritable()) && c.ctx.Err() == nil {
		c.log.warn("shared cache cannot be written", causeOf(err), "reason", err)
		return
	}
	c.note(err)
}

// probe asks the engine anything. It takes the time that a connection needs, and has
// the answer come within that of a lookup.
func (c *Client) probe(ctx context.Context) {
	var err error
	for _, timeout := range []time.Duration{background, c.settings.Load().Timeout} {
		limited, cancel := context.WithTimeout(ctx, timeout)
		_, err = c.ask(limited, "probe.invalid")
		if cancel(); err != nil && !errors.Is(err, share.ErrNone) {
			break
		}
	}
	c.note(err)
}

// refusal is why an entry is not believed.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// Ask implements share.Fleet.
func (c *Client) Ask(ctx context.Context, domain string) (p share.Policy, err error) {
	began, limit := time.Now(), c.settings.Load().Timeout
	err = c.lookup(ctx, c.note, func(ctx context.Context) (err error) {
		p, err = c.ask(ctx, domain)
		return err
	})
	if took := time.Since(began); took > limit/2 && took < limit {
		c.log.warn("shared cache is slow", "", "took", took.Round(time.Millisecond))
	}
	_, refused := errors.AsType[refusal](err)
	switch {
	case err == nil:
		c.hits.Add(1)
	case refused, errors.Is(err, share.ErrNone):
		c.misses.Add(1)
	default:
		c.errs.Add(1)
	}
	return p, err
}

func (c *Client) ask(ctx context.Context, domain string) (share.Policy, error) {
	v, err := c.eval(ctx, askScript, []string{c.entryKey(domain)}, entryLimits...)
	if err != nil {
		return share.Policy{}, c.refused(domain, err)
	}
	p, err := c.open(domain, v.at(0), v.at(1))
	return p, c.refused(domain, err)
}

// entryLimits are the first arguments of the scripts that read an entry.
var entryLimits = []string{strconv.Itoa(mtasts.MaxPolicySize), strconv.Itoa(maxField)}

// refused counts and logs an entry that is not believed. It returns err.
func (c *Client) refused(domain string, err error) error {
	if refused, ok := errors.AsType[refusal](err); ok && c.ctx.Err() == nil {
		c.refusals.Add(1)
		reason := refused.Error()
		kind := reason[:strings.IndexAny(reason+":", ":\"0123456789")]
		c.log.warn("entry of the shared cache is not believed", kind, "domain", domain, "reason", reason)
	}
	return err
}

// open reads the server's time and an entry, as scripts return them.
func (c *Client) open(domain string, at, fields reply) (share.Policy, error) {
	now := microseconds(at)
	switch {
	case now == 0:
		return share.Policy{}, errProtocol
	case string(fields.text) == "large":
		return share.Policy{}, refusal{errors.New("a field is too long")}
	case len(fields.array) != 7:
		return share.Policy{}, errProtocol
	case fields.array[0].kind == '_' && fields.array[1].kind == '_':
		return share.Policy{}, share.ErrNone
	}
	e := share.Entry{
		Format: fields.at(0).number(), File: fields.at(1).text, ID: string(fields.at(2).text), Time: fields.at(3).number(),
		Fence: fields.at(4).number(), Host: string(fields.at(5).text), MAC: fields.at(6).text,
	}
	p, err := c.settings.Load().Keys.Open(domain, e, time.UnixMicro(now))
	if err != nil && !errors.Is(err, share.ErrNone) {
		err = refusal{err}
	}
	return p, err
}

// microseconds reads the reply of TIME; 0: it is none.
func microseconds(t reply) int64 {
	if len(t.array) != 2 {
		return 0
	}
	const most = 1 << 32 // seconds
	return min(max(t.array[0].number(), 0), most)*1e6 + min(max(t.array[1].number(), 0), 1e6)
}

// Claim implements share.Fleet.
func (c *Client) Claim(ctx context.Context, domain string) (lease share.Lease, p share.Policy, err error) {
	asked := share.Lease{Token: rand.Text()}
	err = c.lookup(ctx, c.noteWrite, func(ctx context.Context) error {
		asked.Granted = time.Now()
		v, err := c.eval(ctx, claimScript, []string{c.entryKey(domain), c.leaseKey(domain)},
			append(entryLimits[:2:2], asked.Token, strconv.FormatInt(c.settings.Load().Lease.Milliseconds(), 10))...)
		if err != nil {
			return err
		}
		if fence := microseconds(v.at(0)); fence > 0 && v.at(2).number() == 1 {
			lease = share.Lease{Token: asked.Token, Fence: fence, Granted: asked.Granted}
		}
		p, err = c.open(domain, v.at(0), v.at(1))
		return err
	})
	_, answered := errors.AsType[serverError](err)
	_, refused := errors.AsType[refusal](err)
	if lease.Token == "" && err != nil && !errors.Is(err, share.ErrNone) && !answered && !refused {
		c.Release(domain, asked) // the engine may have granted it
	}
	return lease, p, c.refused(domain, err)
}
