package logging

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// lineHandler formats records as one line for people:
//
//	2006-01-02T15:04:05.000+01:00 WARN  message key=value key="odd value"
//
// and for the journal without the time, which it adds itself, and with fields.
type lineHandler struct {
	put     func(entry)
	level   slog.Leveler
	journal bool
	prefix  string // of keys, from groups: "group."
	pairs   []pair // from WithAttrs
}

// pair is one attribute. Names of groups are part of the key.
type pair struct{ key, value string }

// maxValue bounds one value, in bytes: policy texts from outside end up here.
const maxValue = 2048

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.pairs = slices.Clip(c.pairs)
	for _, a := range attrs {
		c.pairs = appendAttr(c.pairs, c.prefix, a)
	}
	return &c
}

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	pairs := slices.Clip(h.pairs)
	r.Attrs(func(a slog.Attr) bool {
		pairs = appendAttr(pairs, h.prefix, a)
		return true
	})
	var e entry
	line := make([]byte, 0, 256)
	if h.journal {
		e.priority, e.fields = priority(r.Level), journalFields(pairs)
	} else {
		if !r.Time.IsZero() {
			line = r.Time.AppendFormat(line, "2006-01-02T15:04:05.000Z07:00 ")
		}
		level := r.Level.String()
		line = append(line, level...)
		line = append(line, strings.Repeat(" ", max(1, 6-len(level)))...)
	}
	line = append(line, oneLine(r.Message)...)
	for _, p := range pairs {
		line = append(line, ' ')
		line = append(line, quoted(p.key)...)
		line = append(line, '=')
		line = append(line, quoted(p.value)...)
	}
	e.line = append(line, '\n')
	h.put(e)
	return nil
}

func appendAttr(pairs []pair, prefix string, a slog.Attr) []pair {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
		return pairs
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			pairs = appendAttr(pairs, prefix, member)
		}
		return pairs
	}
	s := v.String()
	if v.Kind() == slog.KindTime {
		s = v.Time().Format(time.RFC3339)
	}
	if len(s) > maxValue {
		s = strings.ToValidUTF8(s[:maxValue], "") + "..."
	}
	return append(pairs, pair{prefix + a.Key, s})
}

// quoted returns s so that it can be told where it begins and ends.
func quoted(s string) string {
	if s == "" || strings.ContainsAny(s, " \"=") || !isPrintable(s) {
		return strconv.Quote(s)
	}
	return s
}

// oneLine returns a message that cannot be mistaken for two lines, nor move a
// terminal's cursor.
func oneLine(s string) string {
	if isPrintable(s) {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func isPrintable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return utf8.ValidString(s)
}
