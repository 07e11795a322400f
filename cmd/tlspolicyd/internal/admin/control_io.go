package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// How requests of the control socket are read, and answers written.

func fail(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Failure{err.Error()}) // the client may be gone
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// body reads a request's JSON, or answers what is wrong with it.
func body(w http.ResponseWriter, r *http.Request, v any) bool {
	text, ok := read(w, r)
	if !ok {
		return false
	}
	if err := unmarshal(text, v); err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request body: %w", err))
		return false
	}
	return true
}

// read reads a request's body, within its bounds of size and time, or answers
// what is wrong. The time-out is not one of the server, as that would also end
// requests whose answer takes longer.
func read(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	control := http.NewResponseController(w)
	err := control.SetReadDeadline(time.Now().Add(readTimeout))
	var text bytes.Buffer
	if err == nil {
		_, err = text.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	}
	if err == nil {
		err = control.SetReadDeadline(time.Time{})
	}
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		fail(w, http.StatusRequestEntityTooLarge, fmt.Errorf("request body: want at most %d bytes", maxBody))
		return nil, false
	}
	if err != nil {
		fail(w, http.StatusBadRequest, fmt.Errorf("request body: %w", err))
		return nil, false
	}
	return text.Bytes(), true
}

// lines streams lines of JSON. Each write to the client has a deadline. Its
// methods may be called from several goroutines.
type lines struct {
	mu    sync.Mutex
	buf   *bufio.Writer
	json  *json.Encoder
	flush func() error
}

// deadlineWriter gives each write a deadline of its own.
type deadlineWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w deadlineWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(w)
	l := &lines{buf: bufio.NewWriterSize(deadlineWriter{w, control}, 32<<10)}
	l.flush = func() error {
		if err := l.buf.Flush(); err != nil {
			return err
		}
		return control.Flush()
	}
	l.json = json.NewEncoder(l.buf)
	l.json.SetEscapeHTML(false)
	return l
}

// send writes a line, and has it leave at once if now is true.
func (l *lines) send(v any, now bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.json.Encode(v)
	if err == nil && now {
		err = l.flush()
	}
	return err
}

// end finishes the answer; one that is not complete is cut off, so that no
// client takes it for a complete one.
func (s *Server) end(r *http.Request, l *lines, err error) {
	if err == nil {
		err = r.Context().Err()
	}
	if err == nil {
		err = l.flush()
	}
	if err != nil {
		s.log.Debug("control request not answered in full", "request", r.URL.Path, "reason", err)
		panic(http.ErrAbortHandler)
	}
}
