package main

import (
	"fmt"
	"io"
	"time"
)

// waiting tells on a terminal what explain waits for: a policy host may keep it
// for a minute. The zero value tells nothing.
type waiting struct {
	out io.Writer // nil: no terminal
}

func newWaiting(out io.Writer) waiting {
	if isTerminal(out) {
		return waiting{out}
	}
	return waiting{}
}

// await returns what comes for a key. The line about it is gone by then.
func (w waiting) await(key string, report <-chan explainReport) explainReport {
	if w.out == nil {
		return <-report
	}
	began, shown := time.Now(), false
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case r := <-report:
			if shown {
				fmt.Fprint(w.out, "\r\x1b[K")
			}
			return r
		case <-tick.C:
			shown = true
			fmt.Fprintf(w.out, "\r%.40q: waiting for DNS or the policy host, %d s\x1b[K", key, int(time.Since(began).Seconds()))
		}
	}
}
