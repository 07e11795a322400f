package socketmap

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logInterval is how often one kind of trouble is told.
const logInterval = time.Minute

// sparseLog writes one kind of log line: one a minute at most, and the next
// one only when the one before is through. A line is written by a goroutine of
// its own, because the caller may be the one that answers or accepts.
type sparseLog struct {
	mu      sync.Mutex
	next    time.Time // earliest time of the next line
	writing bool
	left    int // lines left out since the last one
}

// say writes the line, or counts it.
func (q *sparseLog) say(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if log == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.writing || now.Before(q.next) {
		q.left++
		return
	}
	if q.left > 0 {
		attrs = append(attrs, slog.Int("suppressed", q.left))
	}
	q.writing, q.next, q.left = true, now.Add(logInterval), 0
	go func() {
		log.LogAttrs(context.Background(), level, msg, attrs...)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.writing = false
	}()
}
