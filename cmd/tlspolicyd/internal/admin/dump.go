package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"tlspolicyd/internal/printable"
	"tlspolicyd/store"
)

// A dump is a cache as lines of JSON (docs/control.md): a header, one record
// for each domain, and a last line with their number, so that one that was cut
// short is noticed. It holds all facts. What follows from them, the times of
// the next refreshes, is worked out anew where it is imported.

const (
	dumpFormat  = "tlspolicyd-cache"
	dumpVersion = 1

	// maxLine bounds one line, in bytes: a policy file of 64 KiB written all in
	// JSON escapes, and room for the rest.
	maxLine = 1 << 20
)

// Header is the first line of a dump.
type Header struct {
	Format   string    `json:"format"`
	Version  int       `json:"version"`
	Exported time.Time `json:"exported_at,omitzero"`
	Program  string    `json:"program,omitempty"`
}

// Trailer is its last one.
type Trailer struct {
	Records *int `json:"records"`
}

func quoted(s string) string { return printable.Quote(s, 80) }

// unmarshal reads one JSON value that fills the whole line and has no field that
// v has not.
func unmarshal(line []byte, v any) error {
	if !utf8.Valid(line) { // encoding/json would change what it does not understand
		return errors.New("not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("cut short")
		}
		return fmt.Errorf("not the JSON wanted here: %s", printable.Line(strings.TrimPrefix(err.Error(), "json: "), 200))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// LineError is a broken line of a dump.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// ErrVersion: the dump was written by a newer version of this program. It
// cannot be imported, not even in part.
var ErrVersion = errors.New("format version is newer than this program understands: upgrade it")

// DumpReader reads a dump.
type DumpReader struct {
	lines *bufio.Reader
	line  int
	count int  // records, good and broken ones
	ended bool // the trailer was seen
	seen  domainSet
}

// NewDumpReader reads the header of a dump. Its error is a *LineError, or that
// of r.
func NewDumpReader(r io.Reader) (*DumpReader, error) {
	d := &DumpReader{lines: bufio.NewReaderSize(r, 64<<10), seen: make(domainSet)}
	text, err := d.next()
	if err == io.EOF {
		return nil, &LineError{1, errors.New("the file is empty")}
	}
	if err != nil {
		return nil, err
	}
	var h Header
	err = json.Unmarshal(text, &h)
	switch {
	case err != nil || h.Format != dumpFormat:
		return nil, &LineError{1, fmt.Errorf(`no dump of tlspolicyd: want {"format":%q,"version":%d}`, dumpFormat, dumpVersion)}
	case h.Version > dumpVersion:
		return nil, &LineError{1, fmt.Errorf("version %d: %w", h.Version, ErrVersion)}
	case h.Version < 1:
		return nil, &LineError{1, fmt.Errorf("version %d: want %d", h.Version, dumpVersion)}
	}
	return d, nil
}

// Next returns the next record and its line, without the line's end. A
// *LineError is one broken line, and reading may go on behind it; at the end
// of a complete dump the error is io.EOF. The line is good until the next call.
func (d *DumpReader) Next() (store.Record, []byte, error) {
	text, err := d.next()
	switch {
	case err == io.EOF && !d.ended:
		d.ended = true
		return store.Record{}, nil, &LineError{d.line + 1, errors.New(`the file is cut short: its last line, {"records":N}, is missing`)}
	case err == io.EOF:
		return store.Record{}, nil, io.EOF
	case err != nil:
		if _, ok := errors.AsType[*LineError](err); ok {
			d.count++
		}
		return store.Record{}, nil, err
	case d.ended:
		return store.Record{}, nil, &LineError{d.line, errors.New("something follows the last line")}
	}
	if done, err := d.trailer(text); done {
		if err != nil {
			return store.Record{}, nil, &LineError{d.line, err}
		}
		return d.Next()
	}
	d.count++
	rec, err := parseRecord(text)
	if err == nil {
		err = d.seen.add(rec.Domain)
	}
	if err != nil {
		return store.Record{}, nil, &LineError{d.line, err}
	}
	return rec, text, nil
}

// CheckDump reads a whole dump and returns how many lines are good and which are
// broken.
func CheckDump(r io.Reader) (good int, broken []*LineError, err error) {
	dump, err := NewDumpReader(r)
	for err == nil {
		_, _, err = dump.Next()
		if bad, ok := errors.AsType[*LineError](err); ok {
			broken, err = append(broken, bad), nil
		} else if err == nil {
			good++
		}
	}
	if bad, ok := errors.AsType[*LineError](err); ok { // of the header
		return 0, []*LineError{bad}, nil
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return good, broken, err
}

// trailer reports whether a line is the last one, and what is wrong with it.
func (d *DumpReader) trailer(text []byte) (bool, error) {
	var t Trailer
	if unmarshal(text, &t) != nil || t.Records == nil {
		return false, nil
	}
	d.ended = true
	if *t.Records != d.count {
		return true, fmt.Errorf("%d records were exported and %d are here", *t.Records, d.count)
	}
	return true, nil
}

// next returns a line without its end. One that is too long is read to its end
// and is a *LineError.
func (d *DumpReader) next() ([]byte, error) {
	var whole []byte
	tooLong := false
	for {
		part, err := d.lines.ReadSlice('\n')
		if len(whole)+len(part) > maxLine {
			tooLong, whole = true, nil
		}
		if !tooLong {
			whole = append(whole, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(whole) == 0 && !tooLong:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			return nil, err
		}
		d.line++
		if tooLong {
			return nil, &LineError{d.line, fmt.Errorf("longer than %d bytes", maxLine)}
		}
		return bytes.TrimRight(whole, "\r\n"), nil
	}
}

// domainSet holds the domains that were read: a second record about one would
// silently win or lose.
type domainSet map[string]struct{}

func (s domainSet) add(domain string) error {
	if _, ok := s[domain]; ok {
		return fmt.Errorf("domain %s is there twice", quoted(domain))
	}
	s[domain] = struct{}{}
	return nil
}

func parseRecord(line []byte) (store.Record, error) {
	var r Record
	if err := unmarshal(line, &r); err != nil {
		return store.Record{}, err
	}
	return r.facts()
}

// dumpWriter writes a dump.
type dumpWriter struct {
	json *json.Encoder
	n    int
}

func newDumpWriter(w io.Writer, program string, now time.Time) (*dumpWriter, error) {
	d := &dumpWriter{json: json.NewEncoder(printable.JSON(w))}
	d.json.SetEscapeHTML(false)
	return d, d.json.Encode(Header{dumpFormat, dumpVersion, now.UTC().Truncate(time.Second), program})
}

func (d *dumpWriter) write(rec store.Record) error {
	if rec.STS == nil && len(rec.DANE) == 0 {
		return nil // a time of last use, and nothing that could be used
	}
	d.n++
	return d.json.Encode(recordOf(rec))
}

func (d *dumpWriter) end() error { return d.json.Encode(Trailer{&d.n}) }
