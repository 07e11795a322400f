package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	progressWidth = 30
	progressEvery = 100 * time.Millisecond
)

// progress is a bar on a terminal; in a pipe it is nothing.
type progress struct {
	out       io.Writer // nil: no terminal
	what      string
	done, all int
	shown     bool
	next      time.Time // not drawn before
}

func newProgress(out io.Writer, what string) *progress {
	p := &progress{what: what, next: time.Now().Add(progressEvery)} // short work needs no bar
	if isTerminal(out) {
		p.out = out
	}
	return p
}

func (p *progress) total(n int) { p.all += n }

func (p *progress) step() { p.set(p.done + 1) }

func (p *progress) set(done int) {
	p.done = done
	now := time.Now()
	if p.out == nil || now.Before(p.next) {
		return
	}
	p.next = now.Add(progressEvery)
	p.shown = true
	fmt.Fprint(p.out, "\r"+p.bar()+"\x1b[K")
}

func (p *progress) bar() string {
	if p.all == 0 {
		return fmt.Sprintf("%d %s", p.done, p.what)
	}
	filled := min(progressWidth*p.done/p.all, progressWidth)
	return fmt.Sprintf("[%s%s] %d of %d %s", strings.Repeat("#", filled), strings.Repeat(".", progressWidth-filled), p.done, p.all, p.what)
}

// hide takes the bar away, for what is printed next.
func (p *progress) hide() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}
