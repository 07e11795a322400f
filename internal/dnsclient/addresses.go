package dnsclient

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/internal/defect"
)

const (
	// secondFamilyWait is how much longer than the address family that answered with
	// addresses the other one may take. A resolver may try for long to reach a
	// broken server.
	secondFamilyWait = 2 * time.Second

	// MaxAddresses is how many records of one family LookupAddresses returns.
	MaxAddresses = 32
)

// AddressLookup is the lookup of one address family of a host.
type AddressLookup struct {
	Type   uint16 // dns.TypeA or dns.TypeAAAA
	Answer Answer // at most MaxAddresses records; zero when Err is not nil
	Err    error
}

// LookupAddresses looks the A and AAAA records of a host up side by side, and
// returns them in this order. Once one of them has found addresses the other has
// two seconds left; then it counts as failed. A panic in either is raised here.
func LookupAddresses(ctx context.Context, r Resolver, host string) [2]AddressLookup {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := [2]AddressLookup{{Type: dns.TypeA}, {Type: dns.TypeAAAA}}
	var timers [2]*time.Timer
	look := func(i int) {
		l := &found[i]
		defer defect.Catch(&l.Err)
		l.Answer, l.Err = r.Lookup(ctx, host, l.Type)
		if n := len(l.Answer.Records); n > MaxAddresses {
			// Cloned, so that thousands of records are not held meanwhile.
			l.Answer.Records = slices.Clone(l.Answer.Records[:MaxAddresses])
		}
		if l.Err == nil && !l.Answer.Negative() {
			timers[i] = time.AfterFunc(secondFamilyWait, cancel)
		}
	}
	var other sync.WaitGroup
	other.Go(func() { look(0) })
	look(1)
	other.Wait()
	for i, l := range found {
		if timers[i] != nil {
			timers[i].Stop()
		}
		defect.Raise(l.Err)
	}
	return found
}
