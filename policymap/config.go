package policymap

import (
	"context"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
)

// Fetcher gets policy files. *mtasts.Fetcher gets them from the network.
type Fetcher interface {
	Fetch(ctx context.Context, domain string) (*mtasts.Fetched, error)
}

// Config is what can change while the map works. Resolver and Fetcher are
// required; other zero fields stand for the defaults named here.
type Config struct {
	Resolver dnsclient.Resolver
	Fetcher  Fetcher

	Settings  policy.Settings
	Overrides policy.Overrides

	FetchWait       time.Duration // how long a first lookup waits for a policy host; 5 s
	RefreshInterval time.Duration // how often a policy is fetched again; 24 h
	UnusedFor       time.Duration // after this without a lookup a domain is left to expire; 30 days

	// Where policies are shared:
	Host         string        // of this one, so that not all hosts refresh at the same time
	ShareTimeout time.Duration // the longest that a first lookup waits for the engine; 250 ms
	VerifyAfter  time.Duration // how often a policy that others fetch is fetched here; 7 days
}

func (c Config) withDefaults() Config {
	if c.FetchWait == 0 {
		c.FetchWait = 5 * time.Second
	}
	if c.RefreshInterval == 0 {
		c.RefreshInterval = 24 * time.Hour
	}
	if c.UnusedFor == 0 {
		c.UnusedFor = 30 * 24 * time.Hour
	}
	if c.ShareTimeout == 0 {
		c.ShareTimeout = 250 * time.Millisecond
	}
	if c.VerifyAfter == 0 {
		c.VerifyAfter = 7 * 24 * time.Hour
	}
	return c
}

func (c *Config) schedule(domain string) policy.Schedule {
	return policy.Schedule{
		Interval: policy.Jitter(c.Host+domain, c.RefreshInterval), UnusedFor: c.UnusedFor,
		VerifyAfter: policy.Jitter(c.Host+domain, c.VerifyAfter),
	}
}

// trusted reports whether the resolver's AD bits count now. A resolver that does
// not say is trusted.
func (c *Config) trusted() bool {
	t, says := c.Resolver.(interface{ Trusted() bool })
	return !says || t.Trusted()
}
