package valkey

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"

	"tlspolicyd/internal/printable"
)

// This file is the protocol, RESP2. Every version of Valkey and Redis speaks it,
// and so does a server that is not one of them, or an attacker: what a reply may
// cost is bounded before anything is allocated for it.

const (
	maxBulk     = 80 << 10 // bytes of a string: a policy file, and more than any other
	maxElements = 4096     // of an array
	maxDepth    = 6
	maxReply    = 1 << 20 // bytes of a reply
	maxLine     = 512
)

// reply is what a server answered.
type reply struct {
	text  []byte  // string, status or error
	array []reply // array
	n     int64   // integer
	kind  byte    // '+', '-', ':', '$', '*'; '_' stands for nil
}

// serverError is an error that the server answered, such as "WRONGTYPE Operation…".
type serverError struct{ text string }

func (e serverError) Error() string { return "engine: " + e.text }

// code returns its first word.
func (e serverError) code() string {
	for i := range len(e.text) {
		if e.text[i] == ' ' {
			return e.text[:i]
		}
	}
	return e.text
}

// unwritable reports whether the server does not take what it is asked to write.
func (e serverError) unwritable() bool {
	switch e.code() {
	case "READONLY", "OOM", "MISCONF", "NOREPLICAS":
		return true
	}
	return false
}

// errProtocol means that the server does not speak the protocol, or says more than
// there is room for. The connection cannot be used any more.
var errProtocol = errors.New("not a reply of Valkey or Redis, or too large")

// readReply reads a reply. An error reply is a reply, not an error.
func readReply(r *bufio.Reader) (reply, error) {
	left := maxReply
	return readValue(r, &left, maxDepth)
}

func readValue(r *bufio.Reader, left *int, depth int) (reply, error) {
	line, err := readLine(r, left)
	if err != nil {
		return reply{}, err
	}
	v := reply{kind: line[0]}
	switch rest := line[1:]; v.kind {
	case '+', '-':
		v.text = append(v.text, rest...)
		return v, nil
	case ':':
		v.n, err = strconv.ParseInt(string(rest), 10, 64)
	case '$', '*':
		v.n, err = strconv.ParseInt(string(rest), 10, 32)
	default:
		return reply{}, errProtocol
	}
	switch {
	case err != nil:
		return reply{}, errProtocol
	case v.kind == ':':
		return v, nil
	case v.n == -1:
		return reply{kind: '_'}, nil
	case v.kind == '$':
		v.text, err = readBulk(r, left, int(v.n))
		return v, err
	}
	if v.n < 0 || v.n > maxElements || depth == 0 {
		return reply{}, errProtocol
	}
	for range v.n {
		element, err := readValue(r, left, depth-1)
		if err != nil {
			return reply{}, err
		}
		v.array = append(v.array, element)
	}
	return v, nil
}

// readLine returns a line of at least one byte, without its end, until the next
// read.
func readLine(r *bufio.Reader, left *int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if *left -= len(line); errors.Is(err, bufio.ErrBufferFull) || *left < 0 {
		return nil, errProtocol
	}
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || len(line) > maxLine || line[len(line)-2] != '\r' {
		return nil, errProtocol
	}
	return line[:len(line)-2], nil
}

func readBulk(r *bufio.Reader, left *int, n int) ([]byte, error) {
	if *left -= n + 2; n < 0 || n > maxBulk || *left < 0 {
		return nil, errProtocol
	}
	text := make([]byte, n+2)
	for at := 0; at < len(text); {
		got, err := r.Read(text[at:])
		if err != nil {
			return nil, err
		}
		at += got
	}
	if text[n] != '\r' || text[n+1] != '\n' {
		return nil, errProtocol
	}
	return text[:n], nil
}

// appendCommand appends a command as the server reads it.
func appendCommand(b []byte, args ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n", len(a))
		b = append(append(b, a...), '\r', '\n')
	}
	return b
}

// err returns the error that a reply is, or nil.
func (v reply) err() error {
	if v.kind == '-' {
		return serverError{printable.Line(v.text, 200)}
	}
	return nil
}

// at returns an element of an array; nil where there is none.
func (v reply) at(i int) reply {
	if i >= len(v.array) {
		return reply{kind: '_'}
	}
	return v.array[i]
}

// number reads a reply as an integer, 0 where it is none.
func (v reply) number() int64 {
	if v.kind == ':' {
		return v.n
	}
	n, err := strconv.ParseInt(string(v.text), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
