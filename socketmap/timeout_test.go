package socketmap

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestHalfSentRequestIsDroppedAfter10s(t *testing.T) { // §1
	for situation, next := range map[string]string{"silent": "", "dripping": "k"} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				s := &Server{Handler: mirror}
				start(t, s, l)
				p := l.dial(t)
				p.ask("whole.test")
				time.Sleep(time.Minute) // an idle connection is not a half-sent request
				p.send("8:m sl")
				time.Sleep(9 * time.Second)
				p.send("owly,") // nor is what came in time
				p.want("OK m|slowly")
				time.Sleep(time.Minute)
				begun := time.Now()
				p.send("30:m ")
				var dripping sync.WaitGroup
				defer dripping.Wait()
				dripping.Go(func() {
					for next != "" {
						time.Sleep(time.Second)
						if _, err := p.Write([]byte(next)); err != nil {
							return
						}
					}
				})
				p.wantClosed()
				if took := time.Since(begun); took != 10*time.Second {
					t.Errorf("dropped after %v, want 10s", took)
				}
				synctest.Wait()
				if n := s.Stats().Malformed; n != 1 {
					t.Errorf("%d counted, want 1", n)
				}
			})
		})
	}
}

func TestSlowRequestWithinTheTimeLimit(t *testing.T) { // §1: each request has 10 s of its own
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		start(t, &Server{Handler: mirror}, l)
		p := l.dial(t)
		for range 3 {
			for _, b := range frame("m abc") {
				p.send(string(b))
				time.Sleep(time.Second)
			}
			p.want("OK m|abc")
		}
		time.Sleep(time.Minute)
		p.ask("later.test") // the time limit of the last one is over
	})
}

func TestTimeOfASlowAnswerDoesNotCountForTheNextRequest(t *testing.T) { // §1
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		l := newPipeListener()
		start(t, &Server{Handler: g}, l)
		p := l.dial(t)
		p.send(frame("m hold") + "5:m n")
		time.Sleep(15 * time.Second)
		close(g.released)
		p.want("OK m|hold")
		time.Sleep(9 * time.Second)
		p.send("xt,")
		p.want("OK m|nxt")
	})
}

func TestIdleConnectionIsClosedInTheEnd(t *testing.T) { // §1: may be closed at any time
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		start(t, &Server{Handler: mirror}, l)
		p := l.dial(t)
		for range 10 {
			p.ask("a.test")
			time.Sleep(DefaultIdleTimeout - time.Second)
		}
		p.ask("a.test")
		begun := time.Now()
		p.wantClosed()
		if took := time.Since(begun); took < DefaultIdleTimeout || took > DefaultIdleTimeout*5/4 {
			t.Errorf("closed after %v, want about %v", took, DefaultIdleTimeout)
		}
	})
}

func TestIdleTimeoutShorterThanRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		start(t, &Server{Handler: mirror, IdleTimeout: 4 * time.Second}, l)
		p := l.dial(t)
		p.send("5:m s")
		synctest.Wait()
		p.send("lo,")
		p.want("OK m|slo")
		begun := time.Now()
		p.wantClosed()
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("closed after %v, want 4s or a little more", took)
		}
	})
}

func TestClientThatDoesNotReadIsDropped(t *testing.T) {
	for situation, value := range map[string]string{"short reply": "v", "long reply": strings.Repeat("v", 50000)} {
		t.Run(situation, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				s := &Server{Handler: handlerFunc(func(context.Context, string, string) string { return "OK " + value })}
				start(t, s, l)
				p := l.dial(t)
				p.send(frame("m k"))
				time.Sleep(DefaultWriteTimeout - time.Nanosecond)
				if n := s.Stats().Connections; n != 1 {
					t.Fatalf("%d connections before the time limit, want 1", n)
				}
				time.Sleep(DefaultWriteTimeout/4 + 2*time.Nanosecond)
				if n := s.Stats().Connections; n != 0 {
					t.Errorf("%d connections after the time limit, want 0", n)
				}
			})
		})
	}
}
