package policymap

import (
	"bytes"
	"context"
	"sync"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
	"tlspolicyd/store"
)

const (
	stsTimeout = 90 * time.Second // TXT lookup and fetch; the fetch has its own 60 s
	maxFetches = 512              // fetches at a time that lookups wait for; and as many that they no longer wait for
)

// stsLookups looks up MTA-STS for policy domains and keeps what it finds, for a
// cold lookup, a background lookup or the refresher alike.
type stsLookups struct {
	*core
	flights map[string]*stsFlight // by policy domain; core.mu

	// One token for each fetch under way for a lookup: while the lookup waits,
	// and after it stopped waiting.
	fetches, lateFetches chan struct{}

	fleet share.Fleet // nil: none
	shared
}

func newSTSLookups(c *core, fleet share.Fleet) *stsLookups {
	return &stsLookups{
		core: c, flights: make(map[string]*stsFlight), fleet: fleet, shared: newShared(),
		fetches: make(chan struct{}, maxFetches), lateFetches: make(chan struct{}, maxFetches),
	}
}

// stsFlight is one lookup of a policy domain, shared by all that want it at the
// same time.
type stsFlight struct {
	done   chan struct{}
	cancel context.CancelFunc
	wanted int // callers that have not abandoned it; core.mu
	why    policy.Occasion

	adopted   chan struct{} // closed when a policy of another host is in force, which may be before done
	adoptOnce sync.Once

	// Set before done is closed.
	learned *store.STS     // the facts as they are now; nil: nothing was learned
	once    *mtasts.Policy // max_age 0: for the callers that wait, and kept nowhere (8461 §3.2)
	fault   error          // this host's, such as a lack of file descriptors; else nil
}

// wait reports whether the flight ended within d. It waits no longer than for a
// policy of another host.
func (f *stsFlight) wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-f.done:
		return true
	default: // d may be over already
	}
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-f.done:
		return true
	case <-f.adopted:
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// nextLook returns how long the TXT record that the flight found is good; a flight
// that was given up is soon made again.
func (f *stsFlight) nextLook() time.Duration {
	if f.learned == nil {
		return policy.KeepFailure
	}
	return policy.ClampTTL(f.learned.TXTTTL)
}

// startSTS looks up a domain's TXT record, fetches its policy where that is called
// for, and keeps what it finds: once for all that ask meanwhile.
func (l *stsLookups) startSTS(domain string, used time.Time, why policy.Occasion) *stsFlight {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.flights[domain]; f != nil && f.wanted > 0 {
		f.wanted++
		return f
	}
	ctx, cancel := context.WithTimeout(l.ctx, stsTimeout)
	f := &stsFlight{done: make(chan struct{}), adopted: make(chan struct{}), cancel: cancel, wanted: 1, why: why}
	if l.closed {
		cancel()
		close(f.done)
		return f
	}
	l.flights[domain] = f
	l.work.Go(func() {
		defer cancel()
		defer close(f.done)
		defer l.ended(domain, f)
		growStack()
		if met := l.guard(domain, func() { l.lookUpSTS(ctx, f, domain, used) }); met != nil {
			l.observer.Fetched(Fetch{Domain: domain, Background: why != policy.OnLookup, Err: met})
		}
	})
	return f
}

// startSTSFor is startSTS for a caller that wants no less than why asks for: a flight
// for less is waited for, and followed by another. The channel is closed when
// all that has ended.
func (l *stsLookups) startSTSFor(domain string, why policy.Occasion) (done <-chan struct{}) {
	f := l.startSTS(domain, time.Time{}, why)
	if f.why >= why {
		return f.done
	}
	all := make(chan struct{})
	go func() {
		defer close(all)
		for f.why < why {
			<-f.done
			f = l.startSTS(domain, time.Time{}, why)
		}
		<-f.done
	}()
	return all
}

func (l *stsLookups) ended(domain string, f *stsFlight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flights[domain] == f {
		delete(l.flights, domain)
	}
}

// abandon gives a flight up. It ends when no other caller wants it.
func (l *stsLookups) abandon(f *stsFlight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.wanted--; f.wanted == 0 {
		f.cancel()
	}
}

// lookUpSTS is 8461 §3 for one domain: TXT record, then the policy file. What it
// finds out goes into the flight and the record; a fault of this host is not taken
// for a fact about the domain.
func (l *stsLookups) lookUpSTS(ctx context.Context, f *stsFlight, domain string, used time.Time) {
	cfg := l.config.Load()
	others := l.askFleet(ctx, cfg, f, domain, used)
	defer others.stop()
	txt := mtasts.LookupRecord(ctx, cfg.Resolver, domain)
	if ctx.Err() != nil {
		return // abandoned or stopping: nothing was learned
	}
	if dnsclient.LocalFault(txt.Err) {
		f.fault = txt.Err
		return
	}
	checked := l.book.Clock.Now()
	others.settle(txt)
	var got fetched
	if policy.WantsFetch(l.book.Get(domain).STS, txt, checked, f.why) {
		got = l.obtain(ctx, cfg, f, domain, used, txt, others)
		if got.givenUp {
			return // the new id must not look as though it had been followed
		}
		if dnsclient.LocalFault(got.err) {
			f.fault = got.err
			return
		}
	}
	// Changed after the lookup and not before: the record may have moved on.
	f.learned = l.book.LearnSTS(domain, used, func(s *store.STS, now time.Time) {
		noteTXT(s, txt, checked)
		got.note(s, now, f.why)
	})
	if got.policy != nil && got.policy.Policy.MaxAge == 0 {
		f.once = &got.policy.Policy
	}
}

// noteTXT notes the result of the TXT lookup.
func noteTXT(s *store.STS, txt mtasts.RecordResult, checked time.Time) {
	s.CheckedAt, s.TXTTTL, s.TXTError, s.TXTFailed = checked, policy.ClampTTL(txt.Answer.TTL), "", txt.Failed
	switch {
	case txt.Failed:
		s.TXTTTL, s.TXTError = policy.TXTRetry, policy.ReasonOf(txt.Err)
	case !txt.Found:
		s.TXTID, s.TXTError, s.TXTGone = "", policy.ReasonOf(txt.Err), policy.Gone(txt)
	default:
		s.TXTID, s.TXTGone = txt.Record.ID, false
	}
}

// fetched is the result of a fetch; the zero value: none was made.
type fetched struct {
	policy  *mtasts.Fetched
	err     error
	givenUp bool // says nothing about the policy host
}

// fetch gets the policy file. Fetches of lookups are bounded in number; those
// of the refresher are by its workers, so that silent policy hosts do not keep
// it from its work.
func (l *stsLookups) fetch(ctx context.Context, cfg *Config, domain string, why policy.Occasion) (out fetched) {
	if why == policy.OnLookup {
		held, leave := l.takePlace(ctx, cfg.FetchWait+time.Second)
		defer leave()
		ctx = held
	}
	if ctx.Err() != nil {
		return fetched{givenUp: true}
	}
	began := l.book.Clock.Now()
	out.policy, out.err = cfg.Fetcher.Fetch(ctx, domain)
	if ctx.Err() != nil {
		return fetched{givenUp: true}
	}
	now := l.book.Clock.Now()
	event := Fetch{Domain: domain, Background: why != policy.OnLookup, Took: now.Sub(began), Err: out.err}
	if out.err != nil {
		event.InForce = policy.ReadSTS(l.book.Get(domain).STS, now).Policy
	}
	l.observer.Fetched(event)
	return out
}

// takePlace waits for one of the places of fetches that a lookup waits for. When
// no lookup can be waiting any more, the fetch moves to the places of the late
// ones, and the context returned ends where those are taken. So, however many
// policy hosts hang, the places that matter are free again within seconds.
func (l *stsLookups) takePlace(ctx context.Context, lookupWaits time.Duration) (_ context.Context, leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	select {
	case l.fetches <- struct{}{}:
	case <-ctx.Done():
		return ctx, cancel
	}
	place, moved := l.fetches, make(chan struct{})
	late := time.AfterFunc(lookupWaits, func() {
		defer close(moved)
		select {
		case l.lateFetches <- struct{}{}:
			<-l.fetches
			place = l.lateFetches
		default:
			cancel()
		}
	})
	return ctx, func() {
		if !late.Stop() {
			<-moved
		}
		<-place
		cancel()
	}
}

// note notes the result. A failure never ends or shortens a policy (8461 §5.1).
func (f fetched) note(s *store.STS, now time.Time, why policy.Occasion) {
	switch {
	case f.err != nil:
		s.FailedID, s.FailedAt, s.Error = s.TXTID, now, policy.ReasonOf(f.err)
		if why != policy.OnLookup {
			s.Failures++
		}
	case f.policy != nil:
		s.FailedID, s.FailedAt, s.Error, s.Failures = "", time.Time{}, "", 0
		s.Unchanged = unchanged(s, f.policy.Body)
		s.Policy, s.FetchedAt = f.policy.Body, now
		if s.TXTID != "" {
			s.PolicyID = s.TXTID
		}
		s.SharedSince, s.SharedBy = time.Time{}, ""
		s.EndReported, s.Moved = false, 0
		if f.policy.Policy.MaxAge == 0 {
			s.Policy, s.PolicyID = nil, ""
		}
	}
}

// unchanged counts the fetches that brought the old file for a new id: three more
// are made before it is believed.
func unchanged(s *store.STS, body []byte) int {
	newID := s.TXTID != "" && s.TXTID != s.PolicyID
	switch {
	case s.Policy == nil || !bytes.Equal(s.Policy, body):
		return 0
	case newID:
		return 1
	case s.Unchanged == 0 || s.Unchanged == 3:
		return 0
	}
	return s.Unchanged + 1
}
