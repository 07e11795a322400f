package valkey

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const maxServers = 128 // of a cluster or known to a Sentinel, with a pool each

var errNoSlot = errors.New("no server of the cluster has the slot of a key")

// Engine says where the engine is.
type Engine struct {
	Network  string   // "tcp" or "unix"
	Hosts    []string // addresses; several: the first that answers, Sentinels, or nodes of a cluster
	Database int

	SentinelMaster string // Hosts are Sentinels that know a master of this name; empty: they are not
	Cluster        bool
}

// engine sends each command to the server that it is for.
type engine struct {
	Engine
	login atomic.Pointer[Login]

	mu     sync.Mutex
	pools  map[string]*pool // by address
	turn   int              // which of Hosts is asked first
	master string           // "": the Sentinels are asked
	slots  []slotRange      // nil: the cluster is asked
}

// slotRange are the slots of a cluster that one server has.
type slotRange struct {
	first, last int64
	address     string
}

// do sends a command to the server of a key. One that turns out to be at another
// place is sent once more.
func (e *engine) do(ctx context.Context, key string, args ...string) (v reply, err error) {
	for range 2 {
		var address string
		if address, err = e.address(ctx, key); err != nil {
			e.lookAgain() // a cluster may not be complete yet
			return reply{}, err
		}
		if v, err = e.pool(address).do(ctx, args...); err == nil {
			err = v.err()
		}
		if !elsewhere(err) || errors.Is(ctx.Err(), context.Canceled) {
			return v, err
		}
		if e.lookAgain(); ctx.Err() != nil {
			return v, err
		}
	}
	return v, err
}

// elsewhere reports whether an error may mean that another server is the one now.
func elsewhere(err error) bool {
	if refused, ok := errors.AsType[serverError](err); ok {
		switch refused.code() {
		case "MOVED", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING":
			return true
		}
		return false
	}
	return err != nil && !errors.Is(err, errBusy)
}

// lookAgain has the next command find out where it belongs.
func (e *engine) lookAgain() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.turn++
	e.master, e.slots = "", nil
}

// address returns the server of a key.
func (e *engine) address(ctx context.Context, key string) (string, error) {
	e.mu.Lock()
	master, turn := e.master, e.turn
	e.mu.Unlock()
	switch {
	case e.SentinelMaster != "" && master != "":
		return master, nil
	case e.SentinelMaster != "":
		return e.askSentinels(ctx, turn)
	case !e.Cluster:
		return e.Hosts[turn%len(e.Hosts)], nil
	}
	slots, err := e.cluster(ctx)
	if err != nil {
		return "", err
	}
	slot := int64(slotOf(key))
	for _, r := range slots {
		if r.first <= slot && slot <= r.last {
			return r.address, nil
		}
	}
	return "", fmt.Errorf("%w: %d", errNoSlot, slot)
}

// pool returns the pool of a server.
func (e *engine) pool(address string) *pool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.pools[address]; p != nil {
		return p
	}
	if len(e.pools) >= maxServers {
		for _, p := range e.pools {
			p.close()
		}
		clear(e.pools)
	}
	p := newPool(func(ctx context.Context) (*conn, error) { return e.dial(ctx, address) })
	e.pools[address] = p
	return p
}

func (e *engine) dial(ctx context.Context, address string) (*conn, error) {
	return dial(ctx, e.Network, address, e.Database, e.login.Load(), false)
}

// renew has new connections log in another way.
func (e *engine) renew(login *Login) {
	e.login.Store(login)
	e.close()
}

// close closes the idle connections.
func (e *engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pools {
		p.close()
	}
	clear(e.pools)
}

// each calls ask for the hosts of the configuration until one answers. Each has its
// part of the time.
func (e *engine) each(ctx context.Context, turn int, ask func(ctx context.Context, address string) error) (err error) {
	for i := range e.Hosts {
		left := background
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		limited, cancel := context.WithTimeout(ctx, left/time.Duration(len(e.Hosts)-i))
		err = ask(limited, e.Hosts[(turn+i)%len(e.Hosts)])
		if cancel(); err == nil {
			return nil
		}
	}
	return err
}

// askSentinels returns the address of the master.
func (e *engine) askSentinels(ctx context.Context, turn int) (master string, err error) {
	err = e.each(ctx, turn, func(ctx context.Context, address string) error {
		c, err := dial(ctx, e.Network, address, 0, e.login.Load(), true)
		if err != nil {
			return err
		}
		defer c.Close()
		v, err := c.do(ctx, "SENTINEL", "get-master-addr-by-name", e.SentinelMaster)
		if err == nil {
			err = v.err()
		}
		if err == nil && len(v.array) != 2 {
			err = fmt.Errorf("the Sentinel at %s does not know a master %q", address, e.SentinelMaster)
		}
		if err == nil {
			master = net.JoinHostPort(string(v.array[0].text), string(v.array[1].text))
			e.mu.Lock()
			defer e.mu.Unlock()
			e.master = master
		}
		return err
	})
	return master, err
}

// cluster returns which server has which slots, as far as that is known without
// asking.
func (e *engine) cluster(ctx context.Context) ([]slotRange, error) {
	e.mu.Lock()
	slots, turn := e.slots, e.turn
	e.mu.Unlock()
	if slots != nil {
		return slots, nil
	}
	return e.askCluster(ctx, turn)
}

// askCluster asks which server has which slots.
func (e *engine) askCluster(ctx context.Context, turn int) (slots []slotRange, err error) {
	err = e.each(ctx, turn, func(ctx context.Context, address string) error {
		v, err := e.pool(address).do(ctx, "CLUSTER", "SLOTS")
		if err == nil {
			err = v.err()
		}
		if err != nil {
			return err
		}
		asked, _, _ := net.SplitHostPort(address)
		for _, r := range v.array {
			host, port := string(r.at(2).at(0).text), r.at(2).at(1).number()
			if host == "" { // the one that was asked
				host = asked
			}
			slots = append(slots, slotRange{r.at(0).number(), r.at(1).number(), net.JoinHostPort(host, strconv.FormatInt(port, 10))})
		}
		if slots == nil {
			return fmt.Errorf("the cluster at %s has no slots yet", address)
		}
		return nil
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slots = slots
	return slots, err
}

// masters returns the servers that together have all keys.
func (e *engine) masters(ctx context.Context) ([]string, error) {
	if !e.Cluster {
		address, err := e.address(ctx, "")
		return []string{address}, err
	}
	slots, err := e.cluster(ctx)
	var all []string
	for _, r := range slots {
		if !slices.Contains(all, r.address) {
			all = append(all, r.address)
		}
	}
	return all, err
}

// slotOf returns the slot of a key in a cluster: CRC-16/XMODEM of what is in the
// first pair of braces, else of all of it.
func slotOf(key string) uint16 {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}
