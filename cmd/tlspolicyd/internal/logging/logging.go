// Package logging sets up log/slog so that a log that is not read can neither
// delay nor stop the daemon. A line is formatted where it is logged, put into
// a bounded queue and written by a goroutine of its own. When the queue is
// full the line is lost and counted, and as soon as writing works again one
// line says how many are missing (docs/behaviour.md §6).
package logging

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// Format is the form in which records are written.
type Format string

// The formats.
const (
	Auto Format = "auto" // journal fields when the writer is systemd's journal, text elsewhere
	Text Format = "text" // "time level message key=value", for people
	JSON Format = "json" // one object a line

	fields Format = "journal" // chosen by Auto only
)

// DefaultQueue is how many lines wait for a slow reader before lines are lost.
const DefaultQueue = 1024

// Options are the settings of a Log. The zero value is usable.
type Options struct {
	Level  slog.Leveler // nil: info. A *slog.LevelVar can be changed at any time
	Format Format       // empty: Auto
	Queue  int          // lines; 0: DefaultQueue
}

// Log is a logger that never blocks. It must be closed, or the last lines may
// never be written.
type Log struct {
	*slog.Logger

	queue chan entry
	lost  atomic.Uint64 // not yet reported
	total atomic.Uint64 // ever

	// Used by run only.
	write     func(entry) error
	direct    slog.Handler // past the queue
	directErr error        // of the last line that went there

	stopOnce sync.Once
	stop     chan struct{} // closed by Close
	stopped  chan struct{} // closed when run has returned
}

// entry is a record on its way to the writer.
type entry struct {
	line     []byte            // with the line's end
	priority journal.Priority  // for the journal
	fields   map[string]string // for the journal
}

// New returns a log on w, which must not be used for anything else until the
// log is closed. When w is os.Stderr, the format is Auto and systemd connected
// the process to its journal, records go there with fields.
func New(w io.Writer, o Options) *Log {
	l := &Log{
		queue:   make(chan entry, cmp.Or(max(o.Queue, 0), DefaultQueue)),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	if o.Level == nil {
		o.Level = slog.LevelInfo
	}
	if o.Format == Auto || o.Format == "" {
		o.Format = Text
		if isJournal(w) {
			o.Format = fields
		}
	}
	l.write = func(e entry) error {
		_, err := w.Write(e.line)
		return err
	}
	if o.Format == fields {
		l.write = toJournal(journal.Send, w)
	}
	l.direct = newHandler(o, func(e entry) { l.directErr = l.write(e) })
	l.Logger = slog.New(newHandler(o, l.put))
	go l.run()
	return l
}

// put takes an entry without ever blocking.
func (l *Log) put(e entry) {
	select {
	case l.queue <- e:
	default:
		l.lose()
	}
}

func (l *Log) lose() {
	l.lost.Add(1)
	l.total.Add(1)
}

// Lost returns how many lines were lost since the log was made, because the
// reader stalled or writing failed.
func (l *Log) Lost() uint64 { return l.total.Load() }

// reportEvery bounds how often losses are reported while they go on.
const reportEvery = time.Second

func (l *Log) run() {
	defer close(l.stopped)
	var reported time.Time
	for {
		var e entry
		select {
		case e = <-l.queue:
		case <-l.stop:
			// What was logged before Close is in the queue by now.
			select {
			case e = <-l.queue:
			default:
				l.report()
				return
			}
		}
		if err := l.write(e); err != nil {
			l.lose()
			continue
		}
		// At the end of the jam, not between each two lines of it.
		if l.lost.Load() > 0 && (len(l.queue) == 0 || time.Since(reported) >= reportEvery) {
			reported = time.Now()
			l.report()
		}
	}
}

// report writes one line about the lines lost since the last one, at any level.
func (l *Log) report() {
	if n := l.lost.Swap(0); n > 0 {
		message := fmt.Sprintf("log reader stalled: %d lines lost", n)
		err := l.direct.Handle(context.Background(), slog.NewRecord(time.Now(), slog.LevelWarn, message, 0))
		if err != nil || l.directErr != nil {
			l.lost.Add(n) // for the next time
		}
	}
}

// Close writes what is in the queue and stops the log. When ctx ends first,
// the rest is given up: a writer that blocks cannot be stopped, only left
// behind. What is logged afterwards is lost without harm.
func (l *Log) Close(ctx context.Context) error {
	l.stopOnce.Do(func() { close(l.stop) })
	select {
	case <-l.stopped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
