//go:build linux

package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// event is one thing that happens. What it means, and its arguments, is in
// world.apply and run.apply.
type event struct {
	at     time.Duration // since the start
	kind   string
	domain int
	a, b   int
}

func (e event) String() string {
	return fmt.Sprintf("%v %s %d %d %d", e.at, e.kind, e.domain, e.a, e.b)
}

type history []event

func (h history) String() string {
	var b strings.Builder
	for _, e := range h {
		fmt.Fprintln(&b, e)
	}
	return b.String()
}

// parseHistory reads what String writes. Lines that begin with # are comments.
func parseHistory(text string) (history, error) {
	var h history
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		var e event
		var at string
		_, err := fmt.Sscan(line, &at, &e.kind, &e.domain, &e.a, &e.b)
		if err == nil {
			e.at, err = time.ParseDuration(at)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		h = append(h, e)
	}
	return h, nil
}

// domains of a history. Those from sharedFrom on have the mail hosts of the one
// before; the last are smart hosts, asked for in brackets.
const (
	domains    = 10
	sharedFrom = 6
	smartFrom  = 8
)

// generate makes a history of so many days from a seed.
func generate(seed uint64, days int) history {
	g := &generator{r: rand.New(rand.NewPCG(seed, 1))}
	for d := range domains {
		g.publish(0, d)
		for range g.r.IntN(2) {
			g.add(g.soon(time.Hour), "ask", d, 0, 0)
		}
	}
	end := time.Duration(days) * 24 * time.Hour
	for at := time.Hour; at < end; at += g.between(*gapFlag/60, *gapFlag) {
		g.at = at
		g.trouble()
	}
	slices.SortStableFunc(g.h, func(a, b event) int { return int(a.at - b.at) })
	return slices.DeleteFunc(g.h, func(e event) bool { return e.at > end })
}

type generator struct {
	r  *rand.Rand
	at time.Duration
	h  history
}

func (g *generator) add(at time.Duration, kind string, domain, a, b int) {
	g.h = append(g.h, event{at, kind, domain, a, b})
}

// between returns a duration, short ones as likely as long ones, with odd
// milliseconds, so that events seldom coincide with what the daemon does.
func (g *generator) between(lo, hi time.Duration) time.Duration {
	d := lo
	for d < hi && g.r.IntN(3) > 0 {
		d *= 2
	}
	d = min(d, hi)
	return d + time.Duration(g.r.Int64N(int64(d)))/2 + time.Duration(g.r.IntN(1000))*time.Millisecond
}

func (g *generator) soon(within time.Duration) time.Duration {
	return g.at + g.between(time.Second, within)
}

// asks has a domain asked for some times from now on.
func (g *generator) asks(at time.Duration, d, n int) {
	for range n {
		g.add(at, "ask", d, g.r.IntN(4)/3, 0)
		at += g.between(2*time.Second, 12*time.Hour)
	}
}

// publish sets a domain up.
func (g *generator) publish(at time.Duration, d int) {
	g.add(at, "sign", d, g.r.IntN(4)/3, g.r.IntN(4)/3)
	for h := range 2 {
		g.add(at, "tlsa", d, h, g.r.IntN(4))
	}
	g.add(at, "mx", d, g.r.IntN(3), 0)
	if g.r.IntN(3) > 0 {
		g.add(at, "policy", d, g.policyForm(), g.maxAge(d))
	}
}

// policyForm is a mode and a choice of mx patterns.
func (g *generator) policyForm() int { return max(g.r.IntN(5)-2, 0) + 10*g.r.IntN(3) }

// maxAge chooses from maxAges. A domain does not keep the shortest for long,
// because they cost a fetch every few minutes.
func (g *generator) maxAge(d int) int {
	long := func() int { return 1 + g.r.IntN(4) }
	if short := g.r.IntN(20); short < 2 {
		g.add(g.soon(3*time.Hour), "policy", d, g.policyForm(), long())
		return short * 5
	}
	return long()
}

// trouble is something that happens to one domain, with lookups around it.
func (g *generator) trouble() {
	d := g.r.IntN(domains)
	if g.r.IntN(2) == 0 {
		g.asks(g.at-g.between(time.Second, time.Hour), d, 1)
	}
	end := g.at + g.between(10*time.Second, 30*time.Hour)
	until := func(kind string, a, b int) {
		g.add(g.at, kind, d, a, b)
		g.add(end, kind, d, a, 0)
	}
	switch g.r.IntN(24) {
	case 0, 1:
		g.add(g.at, "policy", d, g.policyForm(), g.maxAge(d))
	case 2: // the id before the file
		g.add(g.at, "id", d, 0, 0)
		g.add(g.soon(2*time.Hour), "file", d, g.policyForm(), g.maxAge(d))
	case 3: // the file before the id
		g.add(g.at, "file", d, g.policyForm(), g.maxAge(d))
		g.add(g.soon(2*time.Hour), "id", d, 0, 0)
	case 4:
		g.add(g.at, "notxt", d, 0, 0)
	case 5:
		g.add(g.at, "tlsa", d, g.r.IntN(2), g.r.IntN(4))
	case 6:
		g.add(g.at, "sign", d, g.r.IntN(3)/2, g.r.IntN(3)/2)
	case 7:
		g.add(g.at, "mx", d, g.r.IntN(5), 0)
	case 8, 9, 10:
		until("fault", g.r.IntN(len(questions)), 1+g.r.IntN(len(dnsFaults)+1))
		if g.r.IntN(2) == 0 { // what was answered meanwhile holds after a crash
			at := g.soon(time.Minute)
			g.asks(g.at+g.between(time.Second, 10*time.Second), d, 1)
			g.add(at+30*time.Second, "kill", d, 0, 0)
			g.add(at+30*time.Second+10*time.Millisecond, "dns", d, 0, 1)
			g.asks(at+40*time.Second, d, 1)
			g.add(at+2*time.Minute, "dns", d, 0, 0)
		}
	case 11, 12, 13:
		until("host", 0, 1+g.r.IntN(len(hostFaults)))
	case 14:
		until([]string{"dns", "resolver"}[g.r.IntN(2)], 0, 1+g.r.IntN(3))
	case 15, 16:
		atWrite := g.r.IntN(2)
		until("disk", atWrite, 1+g.r.IntN(3)/2)
		if atWrite == 1 { // killed at the first write; without a network the disk alone knows
			g.add(end+10500*time.Millisecond, "dns", d, 0, 1)
			g.add(end+g.between(2*time.Second, time.Minute), "ask", d, 0, 0)
			g.add(end+g.between(time.Minute, 10*time.Minute), "dns", d, 0, 0)
			if g.r.IntN(2) == 0 {
				g.add(g.at-time.Millisecond, "host", d, 0, late+2)
			}
		}
		if g.r.IntN(2) == 0 { // something to be learned meanwhile
			g.add(g.at+g.between(100*time.Millisecond, time.Second), "policy", d, 10*g.r.IntN(3), 2)
			g.asks(g.at-g.between(2*time.Second, 20*time.Second), d, 1)
			g.asks(g.at+g.between(2*time.Second, time.Minute), d, 3)
		}
		if g.r.IntN(3) > 0 {
			at := end + g.between(time.Second, time.Minute)
			g.add(at, "kill", d, 0, 0)
			g.asks(at+g.between(time.Second, time.Minute), d, 1)
			if g.r.IntN(2) == 0 {
				g.add(at+10*time.Millisecond, "dns", d, 0, 1)
				g.add(at+g.between(time.Minute, 10*time.Minute), "dns", d, 0, 0)
			}
		}
	case 17:
		g.add(g.at, "vanish", d, 0, 0)
	case 18, 19: // often in the middle of an outage
		at := g.soon(time.Minute)
		g.add(at, "kill", d, 0, 0)
		if f := g.r.IntN(3); f > 0 {
			g.asks(g.at-g.between(time.Second, time.Minute), d, 1)
			g.add(at+10*time.Millisecond, "dns", d, 0, f)
			g.add(at+g.between(time.Minute, time.Hour), "dns", d, 0, 0)
		}
	case 20:
		g.add(g.at, "killin", d, 1+g.r.IntN(4), g.r.IntN(3))
	case 21:
		g.add(g.at, "restart", d, 0, 0)
	case 22:
		g.add(g.at, "clock", d, g.r.IntN(2)*2-1, 1+g.r.IntN(10_000))
	case 23:
		if g.r.IntN(2) == 0 {
			g.add(g.at, "reload", d, g.r.IntN(16), 0)
		} else {
			g.add(g.at, "flood", d, 50+g.r.IntN(100), 0)
		}
	}
	g.asks(g.soon(10*time.Minute), d, 1+g.r.IntN(2))
	if g.r.IntN(2) == 0 {
		g.asks(end-g.between(time.Second, time.Hour), d, 1)
		g.asks(end+g.between(time.Second, 30*time.Second), d, 1+g.r.IntN(2))
	}
}
