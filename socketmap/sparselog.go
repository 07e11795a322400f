package socketmap

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// logInterval is the least time between two lines about the same problem.
const logInterval = time.Minute

// sparseLog logs one problem at most once a minute, and not before the previous
// line has been written. Each line is written by a goroutine of its own, because
// the caller may be about to answer or to accept.
type sparseLog struct {
	mu         sync.Mutex
	next       time.Time // earliest time of the next line
	writing    bool
	suppressed int // lines since the last one that was written
}

// log writes the line, or counts it as suppressed.
func (q *sparseLog) log(log *slog.Logger, level slog.Level, msg string, attrs ...slog.Attr) {
	if log == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.writing || now.Before(q.next) {
		q.suppressed++
		return
	}
	if q.suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", q.suppressed))
	}
	q.writing, q.next, q.suppressed = true, now.Add(logInterval), 0
	go func() {
		log.LogAttrs(context.Background(), level, msg, attrs...)
		q.mu.Lock()
		defer q.mu.Unlock()
		q.writing = false
	}()
}
