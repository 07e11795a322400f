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

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
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

// Record is one domain in a dump: the facts of store.Record.
type Record struct {
	Domain   string    `json:"domain"`
	STS      *STS      `json:"mta_sts,omitempty"`
	DANE     []DANE    `json:"dane,omitempty"`
	LastUsed time.Time `json:"last_used,omitzero"`
}

// STS are the MTA-STS facts.
type STS struct {
	Policy    *string   `json:"policy,omitempty"`        // the file
	PolicyRaw []byte    `json:"policy_base64,omitempty"` // the same, where it is no UTF-8
	PolicyID  string    `json:"policy_id,omitempty"`
	FetchedAt time.Time `json:"fetched_at,omitzero"`
	TXTID     string    `json:"txt_id,omitempty"`
	CheckedAt time.Time `json:"checked_at,omitzero"`
	TXTTTL    int64     `json:"txt_ttl_ms,omitempty"`
	TXTError  string    `json:"txt_error,omitempty"`
	FailedID  string    `json:"failed_id,omitempty"`
	FailedAt  time.Time `json:"failed_at,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// DANE are the DANE facts for one way of asking for the domain.
type DANE struct {
	Literal   bool      `json:"literal,omitempty"`
	Port      uint16    `json:"port"`
	State     string    `json:"state"`
	SomeTLSA  bool      `json:"some_tlsa,omitempty"`
	NullMX    bool      `json:"null_mx,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	KnownAt   time.Time `json:"known_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func recordOf(r store.Record) Record {
	out := Record{Domain: r.Domain, LastUsed: r.LastUsed.UTC()}
	if s := r.STS; s != nil {
		out.STS = &STS{
			PolicyID: s.PolicyID, FetchedAt: s.FetchedAt.UTC(),
			TXTID: s.TXTID, CheckedAt: s.CheckedAt.UTC(), TXTTTL: s.TXTTTL.Milliseconds(), TXTError: s.TXTError,
			FailedID: s.FailedID, FailedAt: s.FailedAt.UTC(), Failures: s.Failures, Error: s.Error,
		}
		if text := string(s.Policy); s.Policy != nil && utf8.ValidString(text) {
			out.STS.Policy = &text
		} else {
			out.STS.PolicyRaw = s.Policy
		}
	}
	names := map[uint8]string{}
	for name, state := range daneStates() {
		names[uint8(state)] = name
	}
	for _, d := range r.DANE {
		out.DANE = append(out.DANE, DANE{
			Literal: d.Literal, Port: d.Port, State: names[d.State], SomeTLSA: d.SomeTLSA, NullMX: d.NullMX,
			Detail: d.Detail, KnownAt: d.KnownAt.UTC(), ExpiresAt: d.ExpiresAt.UTC(),
		})
	}
	return out
}

// maxEndpoints is how many ways of asking a record has at most; the store's
// writers keep no more.
const maxEndpoints = 16

// facts returns the record as it is stored, or what is wrong with it. The
// error is one printable line of bounded length.
func (r Record) facts() (store.Record, error) {
	hop, ok := policymap.ParseNextHop(r.Domain)
	if !ok || hop.String() != r.Domain {
		return store.Record{}, fmt.Errorf("domain %s: want a domain in A-labels, lower case", quoted(r.Domain))
	}
	out := store.Record{Domain: r.Domain, LastUsed: r.LastUsed}
	if r.STS == nil && len(r.DANE) == 0 {
		return out, errors.New("no facts: want mta_sts or dane")
	}
	if r.STS != nil {
		sts, err := r.STS.facts()
		if err != nil {
			return out, fmt.Errorf("mta_sts: %w", err)
		}
		out.STS = &sts
	}
	if len(r.DANE) > maxEndpoints {
		return out, fmt.Errorf("dane: %d entries: want at most %d", len(r.DANE), maxEndpoints)
	}
	for i, d := range r.DANE {
		fact, err := d.facts()
		if err != nil {
			return out, fmt.Errorf("dane: entry %d: %w", i+1, err)
		}
		for _, other := range out.DANE {
			if other.Port == fact.Port && other.Literal == fact.Literal {
				return out, fmt.Errorf("dane: entry %d: port %d is there twice", i+1, fact.Port)
			}
		}
		out.DANE = append(out.DANE, fact)
	}
	if _, err := store.EncodeRecord(out); err != nil {
		return out, err
	}
	return out, nil
}

func (s *STS) facts() (store.STS, error) {
	out := store.STS{
		PolicyID: s.PolicyID, FetchedAt: s.FetchedAt,
		TXTID: s.TXTID, CheckedAt: s.CheckedAt, TXTTTL: time.Duration(s.TXTTTL) * time.Millisecond, TXTError: s.TXTError,
		FailedID: s.FailedID, FailedAt: s.FailedAt, Failures: s.Failures, Error: s.Error,
	}
	switch {
	case s.Policy != nil && s.PolicyRaw != nil:
		return out, errors.New("both policy and policy_base64")
	case s.Policy != nil:
		out.Policy = []byte(*s.Policy)
	default:
		out.Policy = s.PolicyRaw
	}
	for name, id := range map[string]string{"policy_id": s.PolicyID, "txt_id": s.TXTID, "failed_id": s.FailedID} {
		// 8461 §3.1: 1 to 32 letters or digits.
		if len(id) > 32 || strings.ContainsFunc(id, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) {
			return out, fmt.Errorf("%s %s: want up to 32 letters or digits", name, quoted(id))
		}
	}
	if s.TXTTTL < 0 || s.TXTTTL > (1<<32)*1000 || s.Failures < 0 || s.Failures > 1<<30 {
		return out, errors.New("txt_ttl_ms or failures out of range")
	}
	if out.Policy == nil {
		return out, nil
	}
	if out.FetchedAt.IsZero() {
		return out, errors.New("a policy without fetched_at")
	}
	// A policy that says something else than it did would be worse than none.
	if _, err := mtasts.ParsePolicy(out.Policy); err != nil {
		return out, err
	}
	return out, nil
}

func (d *DANE) facts() (store.DANE, error) {
	state, ok := daneStates()[d.State]
	switch {
	case !ok:
		return store.DANE{}, fmt.Errorf("state %s: want full, partial, insecure-mx, none or unknown", quoted(d.State))
	case d.Port == 0:
		return store.DANE{}, errors.New("port 0")
	case d.KnownAt.IsZero() || d.ExpiresAt.Before(d.KnownAt):
		return store.DANE{}, errors.New("want known_at, and an expires_at that is not before it")
	}
	return store.DANE{
		Literal: d.Literal, Port: d.Port, State: uint8(state), SomeTLSA: d.SomeTLSA, NullMX: d.NullMX,
		Detail: d.Detail, KnownAt: d.KnownAt, ExpiresAt: d.ExpiresAt,
	}, nil
}

func quoted(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%+q...", s[:80])
	}
	return fmt.Sprintf("%+q", s)
}

// printable is a message that may have foreign text in it as one line of ASCII.
func printable(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

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
		return fmt.Errorf("not the JSON wanted here: %s", printable(strings.TrimPrefix(err.Error(), "json: ")))
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
}

// NewDumpReader reads the header of a dump. Its error is a *LineError, or that
// of r.
func NewDumpReader(r io.Reader) (*DumpReader, error) {
	d := &DumpReader{lines: bufio.NewReaderSize(r, 64<<10)}
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
	if err != nil {
		return store.Record{}, nil, &LineError{d.line, err}
	}
	return rec, text, nil
}

// Line is the number of the line read last.
func (d *DumpReader) Line() int { return d.line }

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
	d := &dumpWriter{json: json.NewEncoder(w)}
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
