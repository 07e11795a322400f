package check

import (
	"context"
	"errors"
	"sync"

	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/internal/dnsclient"
)

// control finds out whether our own DNS works: can this host look up anything?
// All domains share one question. It has a time limit of its own, so that a domain
// at the end of its time does not cut it short for the others.
type control struct {
	mu       sync.Mutex
	answered chan struct{} // nil: not asked yet; closed: err is final
	err      error
}

// known returns the failure of our own DNS if it is known.
func (c *control) known() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// found records a failure for all further domains.
func (c *control) found(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// begin asks, unless that was done, and returns what is closed with the answer.
func (c *control) begin(ctx context.Context, r dnsclient.Resolver) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answered == nil {
		answered := make(chan struct{})
		c.answered = answered
		go func() {
			defer close(answered)
			c.found(lookUpAnything(context.WithoutCancel(ctx), r))
		}()
	}
	return c.answered
}

// ask waits for the answer as long as ctx lasts. Without one it is not known
// whether our own DNS works.
func (c *control) ask(ctx context.Context, r dnsclient.Resolver) (known bool, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return false, nil // the whole run ends
	}
	answered := c.begin(ctx, r)
	select {
	case <-answered:
	case <-ctx.Done():
	}
	select {
	case <-answered:
		return true, c.known()
	default:
		return false, nil
	}
}

// lookUpAnything reports why no answer comes from outside.
func lookUpAnything(ctx context.Context, r dnsclient.Resolver) error {
	ctx, cancel := context.WithTimeout(ctx, controlLookup)
	defer cancel()
	missing := resolverprobe.Missing(ctx, r, "com")
	if missing.Kind() == dnsclient.Malformed {
		return nil // there was an answer
	}
	return missing.Err
}
