package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A bar is drawn for long work, not too often, and is gone when it is done.
func TestProgressBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out, "done")
		p.out = &out // as on a terminal
		p.total(10)
		p.step()
		if out.Len() > 0 {
			t.Errorf("drawn at once: %q", out.String())
		}
		time.Sleep(progressEvery) // the bubble's clock
		for range 4 {
			p.step()
		}
		if want := "\r[######........................] 2 of 10 done\x1b[K"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		out.Reset()
		p.hide()
		p.hide()
		if want := "\r\x1b[K"; out.String() != want {
			t.Errorf("hidden with %q", out.String())
		}
	})
}

// In a pipe there is no bar.
func TestNoProgressBarInAPipe(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "done")
	p.next = time.Time{}
	p.step()
	p.hide()
	if out.Len() > 0 {
		t.Errorf("%q", out.String())
	}
}

func TestAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 720 * time.Hour, "0d": 0, "12h": 12 * time.Hour, "1h30m": 90 * time.Minute} {
		var a age
		if err := a.Set(text); err != nil || time.Duration(a) != want {
			t.Errorf("%s: %v, %v", text, time.Duration(a), err)
		}
	}
	for _, text := range []string{"", "soon", "-1h", "d", "-3d", "99999999d", "1.5d"} {
		if err := new(age).Set(text); err == nil {
			t.Errorf("%q is an age", text)
		}
	}
}

// What takes long is named on a terminal, and nothing of it stays.
func TestAwaitShowsWhatItWaitsFor(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		want  string
	}{
		{900 * time.Millisecond, ""},
		{
			2500 * time.Millisecond,
			"\r\"slow.test\": waiting for a host, 1 s\x1b[K\r\"slow.test\": waiting for a host, 2 s\x1b[K\r\x1b[K",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var terminal bytes.Buffer
			result := make(chan int, 1)
			time.AfterFunc(tt.takes, func() { result <- 7 })
			p := newProgress(&terminal, "waiting for a host")
			p.out = &terminal // as on a terminal
			if got := await(p, "slow.test", result); got != 7 {
				t.Errorf("got %d", got)
			}
			if got := terminal.String(); got != tt.want {
				t.Errorf("%v: %q, want %q", tt.takes, got, tt.want)
			}
		})
	}
}

// In a pipe nothing is shown.
func TestAwaitShowsAPipeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pipe bytes.Buffer
		result := make(chan int, 1)
		time.AfterFunc(time.Minute, func() { result <- 7 })
		await(newProgress(&pipe, "waiting"), "slow.test", result)
		if pipe.Len() > 0 {
			t.Errorf("%q", pipe.String())
		}
	})
}

// An error may repeat what a server named, such as the address of a node of a
// cluster: a terminal does nothing with it but show it.
func TestErrorsDoNotControlTheTerminal(t *testing.T) {
	var out, errs bytes.Buffer
	status := run(t.Context(), []string{"config", "check", "--config", "/absent/\x1b]0;title\x07é"}, nil, &out, &errs)
	if want := "?]0;title?é"; status != exitUsage || !strings.Contains(errs.String(), want) || strings.ContainsAny(errs.String(), "\x1b\x07") {
		t.Errorf("status %d, %q", status, &errs)
	}
}
