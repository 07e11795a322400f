package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	progressWidth = 30
	progressEvery = 100 * time.Millisecond
)

// isTerminal reports whether v is a file that is a terminal.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

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
	text := fmt.Sprintf("%d %s", p.done, p.what)
	if p.all > 0 {
		filled := min(progressWidth*p.done/p.all, progressWidth)
		text = fmt.Sprintf("[%s%s] %d of %d %s", strings.Repeat("#", filled), strings.Repeat(".", progressWidth-filled), p.done, p.all, p.what)
	}
	p.show(text)
}

// show writes a text in the place of the bar.
func (p *progress) show(text string) {
	p.shown = true
	fmt.Fprint(p.out, "\r"+text+"\x1b[K")
}

// hide takes the bar away, for what is printed next.
func (p *progress) hide() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// await returns what comes on a channel. On a terminal it shows each second that
// it waits, until then.
func await[T any](p *progress, key string, result <-chan T) T {
	if p.out == nil {
		return <-result
	}
	began := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case r := <-result:
			p.hide()
			return r
		case <-tick.C:
			p.show(fmt.Sprintf("%.40q: %s, %d s", key, p.what, int(time.Since(began).Seconds())))
		}
	}
}
