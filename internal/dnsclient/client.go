package dnsclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/semaphore"
)

// defaultTimeout is how long one try may take.
const defaultTimeout = 5 * time.Second

// silentFor is how long a server that did not answer is asked after the
// others. Without it a dead first server would cost every lookup one time-out.
const silentFor = time.Minute

// Config is what a Client needs. The zero value asks the servers of
// /etc/resolv.conf.
type Config struct {
	// Servers are asked in this order. Empty: those of ResolvConf.
	Servers []netip.AddrPort

	// ResolvConf is the file to read and to follow when Servers is empty; ""
	// is /etc/resolv.conf. A file that vanishes or breaks while it is followed
	// leaves the servers as they were.
	ResolvConf string

	// TrustAD makes the AD bit of every server count. Otherwise it counts only
	// while all servers are loopback addresses (RFC 7672 §2.1.3).
	TrustAD bool

	// Timeout is for one try at one server; 0 means 5 s.
	Timeout time.Duration

	// Dial connects to a server; network is "udp" or "tcp". A connection that
	// is not a net.PacketConn gets the framing of TCP (RFC 1035 §4.2.2), so an
	// in-memory pipe will do. Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// OnChange, when not nil, is called with the new servers after ResolvConf has
	// changed. It must not block.
	OnChange func(servers []netip.AddrPort, trusted bool)
}

// Client asks recursive resolvers. It is safe for concurrent use, keeps no
// answers and starts no goroutine that outlives a call. It keeps some sockets to
// resolvers on loopback open.
type Client struct {
	timeout time.Duration
	trustAD bool
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	follow  *resolvConf // nil: the servers are fixed
	fixed   []netip.AddrPort

	sockets sockets
	large   *semaphore.Weighted // bytes of large answers in flight

	mu     sync.Mutex
	silent map[netip.AddrPort]time.Time // until when a server is asked last
}

// New checks the configuration. With ResolvConf in use a file that does not
// exist, or names no server, means 127.0.0.1 (resolv.conf(5)); one that
// cannot be read is an error.
func New(cfg Config) (*Client, error) {
	c := &Client{
		timeout: cfg.Timeout,
		trustAD: cfg.TrustAD,
		dial:    cfg.Dial,
		fixed:   slices.Clone(cfg.Servers),
		silent:  map[netip.AddrPort]time.Time{},
		large:   semaphore.NewWeighted(maxLarge),
	}
	if c.timeout < 0 {
		return nil, fmt.Errorf("DNS timeout %v: want a positive duration", c.timeout)
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	for _, s := range c.fixed {
		if !s.IsValid() || s.Port() == 0 {
			return nil, fmt.Errorf("DNS server %s: want an IP address and a port", s)
		}
	}
	if len(c.fixed) > 0 {
		return c, nil
	}
	c.follow = &resolvConf{path: cfg.ResolvConf, changed: func(s []netip.AddrPort) {
		if cfg.OnChange != nil {
			cfg.OnChange(slices.Clone(s), c.trusts(s))
		}
	}}
	if c.follow.path == "" {
		c.follow.path = "/etc/resolv.conf"
	}
	return c, c.follow.load()
}

// Servers returns the servers in use now, in the order of the configuration.
func (c *Client) Servers() []netip.AddrPort { return slices.Clone(c.current()) }

// Trusted reports whether AD bits count now (RFC 7672 §2.1.3): every server is
// a loopback address, or the configuration says so.
func (c *Client) Trusted() bool { return c.trusts(c.current()) }

func (c *Client) current() []netip.AddrPort {
	if c.follow == nil {
		return c.fixed
	}
	return c.follow.servers()
}

func (c *Client) trusts(servers []netip.AddrPort) bool {
	if c.trustAD {
		return true
	}
	for _, s := range servers {
		if !s.Addr().IsLoopback() {
			return false
		}
	}
	return true
}

// Lookup implements Resolver. ctx bounds the whole of it.
func (c *Client) Lookup(ctx context.Context, name string, qtype uint16) (Answer, error) {
	q := dns.Question{Name: dns.Fqdn(name), Qtype: qtype, Qclass: dns.ClassINET}
	if !Askable(name) {
		e := newError(q, Malformed, netip.AddrPort{})
		e.Err = errors.New("not a domain name")
		return Answer{}, e
	}
	// One set of servers for the whole lookup, so that what is trusted is what
	// was asked.
	servers := c.current()
	trusted := c.trusts(servers)

	w := newWalk(name, qtype)
	for {
		m, server, err := c.ask(ctx, servers, q)
		if err != nil {
			err.Name = trimDot(dns.Fqdn(name)) // what the caller asked for, not the alias
			return Answer{}, err
		}
		done, bad := w.add(m, m.AuthenticatedData && trusted)
		if bad != nil {
			e := newError(q, Malformed, server)
			e.Name, e.Err = trimDot(dns.Fqdn(name)), bad
			return Answer{}, e
		}
		if done {
			w.answer.Server = server
			return w.answer, nil
		}
		q.Name = w.answer.Final
	}
}

// Askable reports whether a name fits a question: labels of 1 to 63 bytes, 255
// bytes in all (RFC 1035 §2.3.4). Names that do not cannot exist.
func Askable(name string) bool {
	_, err := dns.PackDomainName(dns.Fqdn(name), make([]byte, 255), 0, nil, false)
	return err == nil && name != ""
}

// ask puts one question to the servers in turn until one answers. Those that
// were silent get a second chance, since a datagram may be lost; an explicit
// failure is final.
func (c *Client) ask(ctx context.Context, servers []netip.AddrPort, q dns.Question) (*message, netip.AddrPort, *Error) {
	var worst *Error
	pending := c.order(servers)
	for range 2 {
		var again []netip.AddrPort
		for _, server := range pending {
			m, err := c.try(ctx, server, q)
			if err == nil {
				c.spoke(server)
				return m, server, nil
			}
			if err.Kind == Canceled {
				return nil, server, err
			}
			if worst == nil || err.rank() > worst.rank() {
				worst = err
			}
			if ctx.Err() != nil {
				return nil, server, worst // the caller's deadline
			}
			if err.Kind == Timeout {
				c.sockets.drop(server)
				c.fellSilent(server)
				again = append(again, server)
			}
		}
		pending = again
	}
	return nil, worst.Server, worst
}

// order puts the servers that did not answer recently behind the others.
func (c *Client) order(servers []netip.AddrPort) []netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.silent) == 0 {
		return servers
	}
	now := time.Now()
	var first, last []netip.AddrPort
	for _, s := range servers {
		if now.Before(c.silent[s]) {
			last = append(last, s)
		} else {
			first = append(first, s)
		}
	}
	return append(first, last...)
}

func (c *Client) fellSilent(server netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for s, until := range c.silent {
		if now.After(until) {
			delete(c.silent, s) // also those that left the configuration
		}
	}
	c.silent[server] = now.Add(silentFor)
}

func (c *Client) spoke(server netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.silent, server)
}

func trimDot(name string) string {
	if name == "." {
		return name
	}
	return strings.TrimSuffix(name, ".")
}
