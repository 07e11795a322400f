package audit

import (
	"fmt"
	"io"
	"strings"
)

// marks are of one width, so that what follows stands in a column.
var marks = [...]string{OK: "ok  ", Warn: "warn", Fail: "FAIL", Unknown: "?   "}

const colourOff = "\x1b[0m"

var colours = [...]string{OK: "\x1b[32m", Warn: "\x1b[33m", Fail: "\x1b[1;31m", Unknown: "\x1b[36m"}

// Text writes findings for people.
type Text struct {
	Colour bool // for a terminal
	Width  int  // columns to wrap at; 0: 98
}

// Write writes one block for each topic that has findings: a mark and a
// sentence for each, and under it what shows it and what to do.
func (t Text) Write(out io.Writer, topics []Topic) error {
	var b strings.Builder
	for _, topic := range topics {
		if len(topic.Findings) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s\n", topic.Name)
		for _, f := range topic.Findings {
			t.finding(&b, f)
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (t Text) finding(b *strings.Builder, f Finding) {
	text := f.Text
	if f.Subject != "" {
		text = f.Subject + ": " + text
	}
	t.wrapped(b, "  "+t.mark(f.Grade)+"  ", text)
	for _, more := range []struct{ label, text string }{{"seen: ", f.Evidence}, {"→ ", f.Advice}} {
		if more.text != "" {
			t.wrapped(b, indent, more.label+more.text)
		}
	}
	if f.Fix != "" {
		fmt.Fprintf(b, "%s    %s\n", indent, f.Fix) // whole, so that it can be copied
	}
}

const indent = "        " // under the sentence

func (t Text) mark(g Grade) string {
	if !t.Colour {
		return marks[g]
	}
	return colours[g] + marks[g] + colourOff
}

// wrapped writes a text after a lead, its further lines under the sentence.
func (t Text) wrapped(b *strings.Builder, lead, text string) {
	width := t.Width
	if width == 0 {
		width = 98
	}
	b.WriteString(lead)
	column := len(indent)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}
