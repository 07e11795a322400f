package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// explainText collects lines.
type explainText struct{ b strings.Builder }

// line writes one line. Whatever escaped the escaping before is caught here.
func (t *explainText) line(indent int, format string, args ...any) {
	text := strings.TrimRight(cleaned(fmt.Sprintf(format, args...)), " ")
	if text != "" {
		t.b.WriteString(strings.Repeat(" ", indent))
		t.b.WriteString(text)
	}
	t.b.WriteByte('\n')
}

// field writes a name and its value, which goes on in the same column when it
// is too long for one line.
func (t *explainText) field(indent int, name, value string) {
	const column = 18
	head := fmt.Sprintf("%-*s", column-indent, name)
	for _, part := range wrapped(value, explainWidth-column) {
		t.line(indent, "%s%s", head, part)
		head = strings.Repeat(" ", column-indent)
	}
}

// note writes a text over as many lines as it needs.
func (t *explainText) note(indent int, text string) {
	for _, part := range wrapped(text, explainWidth-indent) {
		t.line(indent, "%s", part)
	}
}

// wrapped breaks a text at blanks; a word that is too long stays whole.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), word
			continue
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// cut shortens a text of ASCII.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}

// distinct returns the different non-empty strings in a list.
func distinct(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}
