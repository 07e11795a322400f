package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"tlspolicyd/internal/printable"
)

const (
	// maxFile bounds what is read of a configuration file or of one with overrides,
	// in bytes. It has room for about 50,000 overrides.
	maxFile          = 4 << 20
	maxOverrideFiles = 16
)

// readFile returns the text of a file, and whether every local user can read it.
func readFile(name string) (data []byte, exposed bool, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		exposed = info.Mode().Perm()&0o004 != 0
	}
	data, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d MiB: this is not a configuration file", name, maxFile>>20)
	}
	return data, exposed, err
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
// is for errors only. The first mistake in the file is returned as *Error.
func Parse(data []byte, name string) (Config, error) { return parse(data, name, false) }

func parse(data []byte, name string, exposed bool) (Config, error) {
	c := Default()
	f := file{name: name, exposed: func() bool { return exposed && c.Share.URL.Password != "" }, settings: c.settings(), overrides: newOverrides(c.Override)}
	if err := f.parse(data); err != nil {
		return Config{}, err
	}
	return c, nil
}

// parse takes all entries. Its error is an *Error.
func (f *file) parse(data []byte) error {
	f.seen = make(map[string]bool)
	f.parser.Reset(data)
	var table []string
	for f.parser.NextExpression() {
		n := f.parser.Expression()
		e := f.entry(table, n)
		var err error
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = e.path
			err = f.take(e)
		case unstable.KeyValue:
			err = f.keyValue(e, n.Value())
		}
		if err != nil {
			return err
		}
	}
	if err := f.parser.Error(); err != nil {
		return f.syntaxError(err)
	}
	return nil
}

// file is a file that is being read. It is all that uses the TOML library, of
// whose syntax tree the API may change.
type file struct {
	parser    unstable.Parser
	name      string
	exposed   func() bool // a password that was read is one that every local user can read; nil: none is
	settings  []setting   // nil: a file with overrides only
	overrides overrides
	seen      map[string]bool // keys, and headers of tables in brackets
}

// entry is one key with its value, or one table header, and its place.
type entry struct {
	path     []string // of the key from the root
	header   bool     // of a table
	array    bool     // of tables
	start    uint32   // offset of the key
	value    any      // string, int64, bool, []any, map[string]any, otherNumber or time.Time
	at       uint32   // offset of the value
	elements []uint32 // of the elements when the value is an array
}

// otherNumber is a value that is a number and not an integer of 64 bits.
type otherNumber string

// entry returns the entry of a node; of a key without its value.
func (f *file) entry(table []string, n *unstable.Node) entry {
	e := entry{header: n.Kind == unstable.Table || n.Kind == unstable.ArrayTable, array: n.Kind == unstable.ArrayTable}
	if !e.header {
		e.path = slices.Clone(table)
	}
	for it := n.Key(); it.Next(); {
		k := it.Node()
		e.path = append(e.path, string(k.Data))
		if e.at == 0 {
			e.start = k.Raw.Offset
		}
		e.at = k.Raw.Offset + k.Raw.Length
	}
	if e.header {
		e.at, e.value = e.start, map[string]any{}
		return e
	}
	rest := f.parser.Data()[e.at:]
	e.at += uint32(len(rest) - len(bytes.TrimLeft(rest, " \t=")))
	return e
}

// keyValue takes an entry with its value, or those of an inline table.
func (f *file) keyValue(e entry, v *unstable.Node) error {
	e.value = f.value(v)
	switch v.Kind {
	case unstable.InlineTable:
		if len(e.path) > 1 {
			break // no setting is a table
		}
		e.header, e.at = true, e.start
		if err := f.take(e); err != nil {
			return err
		}
		for it := v.Children(); it.Next(); {
			if err := f.keyValue(f.entry(e.path, it.Node()), it.Node().Value()); err != nil {
				return err
			}
		}
		return nil
	case unstable.Array:
		for it := v.Children(); it.Next(); {
			at := e.at // nested arrays and tables have no range of their own
			if raw := it.Node().Raw; raw.Length > 0 {
				at = raw.Offset
			}
			if it.Node().Kind != unstable.Comment {
				e.elements = append(e.elements, at)
			}
		}
	}
	return f.take(e)
}

func (f *file) value(n *unstable.Node) any {
	text := string(n.Data)
	switch n.Kind {
	case unstable.String:
		return text
	case unstable.Bool:
		return text == "true"
	case unstable.Integer:
		if i, err := strconv.ParseInt(text, 0, 64); err == nil { // TOML and Go write the same prefixes
			return i
		}
		return otherNumber(text)
	case unstable.Float:
		return otherNumber(text)
	case unstable.InlineTable:
		return map[string]any{}
	case unstable.Array:
		list := []any{}
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				list = append(list, f.value(it.Node()))
			}
		}
		return list
	}
	return time.Time{} // or a date
}

// take stores one entry; its error is an *Error.
func (f *file) take(e entry) error {
	key := e.key()
	if e.header {
		key = "[" + key + "]"
	}
	err := e.apply(f.settings, f.overrides)
	if f.seen[key] {
		err = keyError{errors.New("already defined: want it once")}
	}
	f.seen[key] = true
	if err == nil && f.exposed != nil && f.exposed() {
		err = errExposed
	}
	if err == nil {
		return nil
	}
	at := e.at
	if ee, ok := errors.AsType[elementError](err); ok {
		at = e.elements[ee.index]
	} else if _, ok := errors.AsType[keyError](err); ok {
		at = e.start
	}
	return f.errorAt(unstable.Range{Offset: at}, e.key(), printable.Line(err.Error(), 300))
}

func (f *file) errorAt(r unstable.Range, key, problem string) error {
	start := f.parser.Shape(r).Start
	return &Error{File: f.name, Line: start.Line, Column: start.Column, Key: key, Problem: problem}
}

// syntaxError is for a file that is not TOML.
func (f *file) syntaxError(err error) error {
	var at unstable.Range
	if pe, ok := errors.AsType[*unstable.ParserError](err); ok {
		at = f.parser.Range(pe.Highlight)
	}
	return f.errorAt(at, "", bounded(err.Error())+syntaxHint(err.Error()))
}

// bounded makes one line of bounded length out of a text with parts of the file.
func bounded(s string) string {
	s = printable.Line(s, 300)
	return s[:min(len(s), 200)]
}

// syntaxHint says what would be right where the library's own words do not.
func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "leading zeroes"):
		return `: want a mode in quotes, e.g. "0660"`
	case strings.Contains(message, "at start of value"):
		return ": want a value in quotes, a number, true, false or an array"
	}
	return ""
}

// Errors that are reported at the key, not at the value.
type keyError struct{ error }

// Errors in one element of an array are reported at the element.
type elementError struct {
	index int
	error
}

// key returns the path in one string, safe to print.
func (e entry) key() string {
	parts := make([]string, len(e.path))
	for i, p := range e.path {
		parts[i] = p
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			parts[i] = strconv.QuoteToASCII(p)
		}
	}
	return bounded(strings.Join(parts, "."))
}

// apply checks one entry of the file and stores its value.
func (e entry) apply(settings []setting, overrides overrides) error {
	section := e.path[0]
	switch {
	case settings == nil && section != overrideSection:
		return keyError{errors.New("not an override: want nothing but [override] in this file")}
	case !isSection(settings, section):
		return keyError{unknown(e.key(), settings)}
	case e.array && len(e.path) == 1:
		return keyError{fmt.Errorf("this is an array of tables: want [%s]", e.key())}
	case section == overrideSection && len(e.path) > 2:
		return keyError{fmt.Errorf("a name with dots needs quotes: want %s", quote(strings.Join(e.path[1:], ".")))}
	case e.header && len(e.path) == 1:
		return nil
	case len(e.path) == 1:
		return fmt.Errorf("%s: want a table: [%s]", show(e.value), section)
	case section == overrideSection:
		return overrides.add(e.path[1], e.value)
	}
	for _, s := range settings {
		if s.key == e.key() {
			return s.set(e.value)
		}
	}
	return keyError{unknown(e.key(), settings)}
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
		// Also a key before any section.
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
