package main

import (
	"bytes"
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
	now := time.Now()
	for d, want := range map[time.Duration]string{
		0: "0s ago", -90 * time.Second: "90s ago", 5 * time.Minute: "in 5m", -3 * time.Hour: "3h ago", 50 * time.Hour: "in 2d",
	} {
		if got := ago(now.Add(d), now); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	if ago(time.Time{}, now) != "-" {
		t.Error("never is a time")
	}
}
