package logging

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"tlspolicyd/internal/printable"
)

// newHandler returns a handler that hands over each record, formatted.
func newHandler(o Options, put func(entry)) slog.Handler {
	if o.Format == JSON {
		w := printable.JSON(lineWriter(func(line []byte) { put(entry{line: line}) }))
		return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level, ReplaceAttr: bounded})
	}
	return &lineHandler{put: put, level: o.Level, journal: o.Format == fields}
}

// lineWriter takes the lines of log/slog's JSON handler, which writes each
// record with one call of Write; printable.JSON makes a new line of each.
type lineWriter func([]byte)

func (f lineWriter) Write(line []byte) (int, error) {
	f(line)
	return len(line), nil
}

// lineHandler formats records as one line for people:
//
//	2006-01-02T15:04:05.000+01:00 WARN  message key=value key="odd value"
//
// and for the journal without time and level, which it keeps itself, and with
// fields. The attributes are those of log/slog's text handler.
type lineHandler struct {
	put     func(entry)
	level   slog.Leveler
	journal bool
	with    []func(slog.Handler) slog.Handler // what WithAttrs and WithGroup added
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) WithGroup(name string) slog.Handler {
	return h.add(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.add(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h *lineHandler) add(f func(slog.Handler) slog.Handler) slog.Handler {
	c := *h
	c.with = append(slices.Clip(c.with), f)
	return &c
}

func (h *lineHandler) Handle(ctx context.Context, r slog.Record) error {
	e := entry{priority: priority(r.Level), fields: map[string]string{"SYSLOG_IDENTIFIER": "tlspolicyd"}}
	var attrs bytes.Buffer
	own := 0 // how many of the next attributes are the level and the message
	var text slog.Handler = slog.NewTextHandler(&attrs, &slog.HandlerOptions{
		Level: h.level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if own > 0 {
				own--
				return slog.Attr{}
			}
			if a.Value.Kind() == slog.KindTime {
				a.Value = slog.StringValue(a.Value.Time().Format(time.RFC3339))
			}
			a = bounded(groups, a)
			if h.journal {
				e.fields[fieldName(groups, a.Key)] = a.Value.String()
			}
			return a
		},
	})
	for _, f := range h.with {
		text = f(text)
	}
	var line []byte
	if !h.journal {
		if !r.Time.IsZero() {
			line = r.Time.AppendFormat(line, "2006-01-02T15:04:05.000Z07:00 ")
		}
		line = fmt.Appendf(line, "%-5s ", r.Level)
	}
	line = append(line, oneLine(r.Message)...)
	own, r.Time = 2, time.Time{} // a time that is zero is left out
	if err := text.Handle(ctx, r); err != nil {
		return err
	}
	if attrs.Len() > 1 {
		line = append(line, ' ')
	}
	e.line = append(line, attrs.Bytes()...)
	h.put(e)
	return nil
}

// maxValue bounds one value, in bytes: policy texts from outside end up here.
const maxValue = 2048

// bounded is a ReplaceAttr that cuts long values.
func bounded(_ []string, a slog.Attr) slog.Attr {
	if s := a.Value.String(); len(s) > maxValue {
		a.Value = slog.StringValue(strings.ToValidUTF8(s[:maxValue], "") + "...")
	}
	return a
}

// oneLine returns a message that cannot be mistaken for two lines, nor move a
// terminal's cursor.
func oneLine(s string) string {
	if q := printable.Text(s); s != "" && q != s {
		return q[1 : len(q)-1]
	}
	return s
}
