package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"tlspolicyd/internal/printable"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds what is read of a configuration file, in bytes. It has room
// for about 50,000 overrides.
const maxFile = 4 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d MiB: this is no configuration file", name, maxFile>>20)
	}
	return data, err
}

// Error is a mistake in the configuration file. Its text is one line:
//
//	FILE:LINE:COLUMN: key: what is wrong: what would be right
type Error struct {
	File         string
	Line, Column int    // from 1; the column counts bytes
	Key          string // empty when the file is no TOML
	Problem      string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Key != "" {
		s += e.Key + ": "
	}
	return s + e.Problem
}

// Parse reads the settings from the text of a configuration file. The name
// stands in errors only. The first mistake in the file is returned as *Error.
func Parse(data []byte, name string) (Config, error) {
	var doc map[string]any
	if err := toml.Unmarshal(data, &doc); err != nil {
		return Config{}, syntaxError(err, name)
	}
	c := Default()
	settings := c.settings()
	overrides := newOverrides(c.Override)
	for _, e := range entries(data) {
		err := e.apply(doc, settings, overrides)
		if err == nil {
			continue
		}
		line, column := position(data, e.at(err))
		return Config{}, &Error{File: name, Line: line, Column: column, Key: e.key(), Problem: printable.Line(err.Error(), 300)}
	}
	return c, nil
}

// syntaxError is for a file that is no TOML.
func syntaxError(err error, name string) error {
	e := &Error{File: name, Line: 1, Column: 1}
	if de, ok := errors.AsType[*toml.DecodeError](err); ok {
		e.Line, e.Column = de.Position()
	}
	e.Problem = bounded(strings.TrimPrefix(err.Error(), "toml: ")) + syntaxHint(err.Error())
	return e
}

// bounded makes one line of bounded length out of a text with parts of the file.
func bounded(s string) string {
	s = printable.Line(s, 300)
	return s[:min(len(s), 200)]
}

// syntaxHint says what would be right where the library's own words do not.
func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "already"):
		return ": want it once"
	case strings.Contains(message, "leading zeroes"):
		return `: want a mode in quotes, e.g. "0660"`
	case strings.Contains(message, "at start of value"):
		return ": want a value in quotes, a number, true, false or an array"
	}
	return ""
}

// Errors that are reported where the key stands, not where the value does.
type keyError struct{ error }

// Errors in one element of an array are reported where the element stands.
type elementError struct {
	index int
	error
}

// at returns the offset in the file that an error of this entry belongs to.
func (e entry) at(err error) int {
	if ee, ok := errors.AsType[elementError](err); ok && ee.index < len(e.elements) {
		return e.elements[ee.index]
	}
	if _, ok := errors.AsType[keyError](err); ok || e.value < 0 {
		return e.start
	}
	return e.value
}

// apply checks one entry of the file and stores its value.
func (e entry) apply(doc map[string]any, settings []setting, overrides overrides) error {
	section := e.path[0]
	switch {
	case !isSection(settings, section):
		return keyError{unknown(e.key(), settings)}
	case e.array && len(e.path) == 1:
		return keyError{fmt.Errorf("this is an array of tables: want [%s]", e.key())}
	case section == overrideSection && len(e.path) > 2:
		return keyError{fmt.Errorf("a name with dots needs quotes: want %s", quote(strings.Join(e.path[1:], ".")))}
	case len(e.path) == 1 && e.value < 0:
		return nil // a table's header
	case len(e.path) == 1:
		return fmt.Errorf("%s: want a table: [%s]", show(e.find(doc)), section)
	case section == overrideSection:
		return overrides.add(e.path[1], e.find(doc))
	}
	for _, s := range settings {
		if s.key == e.key() {
			return s.set(e.find(doc))
		}
	}
	return keyError{unknown(e.key(), settings)}
}

// find returns the decoded value of an entry.
func (e entry) find(doc map[string]any) any {
	var v any = doc
	for _, name := range e.path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func isSection(settings []setting, name string) bool {
	if name == overrideSection {
		return true
	}
	for _, s := range settings {
		if s.section() == name {
			return true
		}
	}
	return false
}

// unknown names the known key that was probably meant.
func unknown(key string, settings []setting) error {
	best, bestCost := "", 1+len(key)/3
	_, last, nested := strings.Cut(key, ".")
	for _, s := range settings {
		candidate := s.key
		if !nested {
			candidate = s.section()
		}
		cost := distance(key, candidate)
		if nested && strings.HasSuffix(s.key, "."+last) {
			cost = min(cost, 1) // the right key in another section
		}
		if cost < bestCost {
			best, bestCost = candidate, cost
		}
	}
	if !nested {
		// Also a key that stands before any section.
		for _, s := range settings {
			if s.section()+"."+key == s.key {
				best = s.key
			}
		}
	}
	if best == "" {
		return errors.New("unknown key: 'tlspolicyd config show' lists all keys")
	}
	return fmt.Errorf("unknown key: the nearest known one is %s", best)
}

// distance is the Levenshtein distance: how many bytes must be inserted,
// deleted or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
