package policymap

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	maxLookups   = 512             // next hops looked up at a time for one client
	waitForPlace = 4 * time.Second // on average, of the 15 s of a lookup
)

var errTooMany = errors.New("too many lookups of this client are under way")

// places bounds the lookups under way for each client, so that one that asks for
// thousands of names whose servers do not answer leaves memory and processor to the
// others.
type places struct {
	mu      sync.Mutex
	clients map[string]*clientPlaces
}

type clientPlaces struct {
	taken chan struct{}
	users int // that hold a place or wait for one; places.mu
}

// take waits for a place, for six seconds at most. leave gives it back.
func (p *places) take(ctx context.Context, client string) (leave func(), err error) {
	p.mu.Lock()
	c := p.clients[client]
	if c == nil {
		c = &clientPlaces{taken: make(chan struct{}, maxLookups)}
		p.clients[client] = c
	}
	c.users++
	p.mu.Unlock()
	select {
	case c.taken <- struct{}{}:
	default:
		err = c.wait(ctx)
	}
	if err != nil {
		p.leave(client, c)
		return nil, err
	}
	return func() {
		<-c.taken
		p.leave(client, c)
	}, nil
}

func (c *clientPlaces) wait(ctx context.Context) error {
	// Thousands that came together would be refused together, and come again
	// together: meanwhile the processor does nothing else.
	timer := time.NewTimer(waitForPlace/2 + rand.N(waitForPlace))
	defer timer.Stop()
	select {
	case c.taken <- struct{}{}:
		return nil
	case <-timer.C:
		return errTooMany
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *places) leave(client string, c *clientPlaces) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.users--; c.users == 0 {
		delete(p.clients, client)
	}
}
