package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

const (
	replyLeast = 24 // columns for the reply, however narrow the terminal
	replyMost  = 56 // beyond which a long reply no longer widens its column
)

// printTable writes one line for each question. width is the terminal's, 0
// where the output is none: then nothing is shortened.
func printTable(out io.Writer, questions []question, cold, cached []answer, width int) {
	cells := [][6]string{{"KEY", "MAP", "FIRST", "CACHED", "REPLY", "WHY"}}
	for i, q := range questions {
		cells = append(cells, [6]string{q.key, q.mapName, elapsed(cold[i].took), elapsed(cached[i].took), cold[i].reply, q.why})
	}
	var widest [6]int
	for _, row := range cells {
		for i, cell := range row {
			widest[i] = max(widest[i], utf8.RuneCountInString(cell))
		}
	}
	const gap = 2
	widest[4] = min(widest[4], replyMost)
	if width > 0 {
		rest := width - widest[5] - 5*gap
		for _, w := range widest[:4] {
			rest -= w
		}
		widest[4] = max(replyLeast, min(widest[4], rest))
	}
	for _, row := range cells {
		if width > 0 {
			row[4] = shortened(row[4], widest[4])
		}
		line := fmt.Sprintf("%-*s  %-*s  %*s  %*s  %-*s  %s", widest[0], row[0], widest[1], row[1],
			widest[2], row[2], widest[3], row[3], widest[4], row[4], row[5])
		if width > 0 {
			line = shortened(line, width)
		}
		fmt.Fprintln(out, strings.TrimRight(line, " "))
	}
}

// shortened cuts s to n columns, with a mark where something is missing.
func shortened(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// elapsed prints a duration with about three digits.
func elapsed(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// terminalWidth returns the columns of a terminal, 0 for anything else.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
