package smtpprobe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"

	"tlspolicyd/internal/printable"
)

const (
	maxLine   = 2048     // bytes of a line; 5321 §4.5.3.1.5 has 512
	maxReply  = 16 << 10 // bytes of a reply, all its lines
	maxText   = 200      // bytes of a text in a Result
	maxQuoted = 60       // bytes of what is not a reply
)

// errNoReply: what was read is not an SMTP reply, or is too long for one.
var errNoReply = errors.New("not an SMTP reply")

// reply is one reply of an SMTP server (5321 §4.2).
type reply struct {
	code  int      // 200 to 599
	lines []string // the texts behind the codes, at least one
}

// String returns code and texts in one printable line.
func (r reply) String() string {
	return oneLine(fmt.Sprintf("%d %s", r.code, strings.Join(r.lines, " ")))
}

// readReply reads one reply. The reader's buffer bounds a line. Its error is
// errNoReply with a reason, or that of the reader.
func readReply(r *bufio.Reader) (reply, error) {
	var out reply
	size := 0
	for {
		line, err := r.ReadSlice('\n')
		if size += len(line); err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return out, fmt.Errorf("%w: a line of more than %d bytes", errNoReply, r.Size())
			}
			return out, err
		}
		if size > maxReply {
			return out, fmt.Errorf("%w: more than %d bytes", errNoReply, maxReply)
		}
		line = bytes.TrimRight(line, "\r\n")
		code, last, text, ok := parseLine(line)
		if !ok {
			return out, fmt.Errorf("%w: %s", errNoReply, printable.Quote(line, maxQuoted))
		}
		if out.code != 0 && code != out.code {
			return out, fmt.Errorf("%w: code %d after %d in one reply", errNoReply, code, out.code)
		}
		out.code = code
		out.lines = append(out.lines, text)
		if last {
			return out, nil
		}
	}
}

// parseLine takes one line of a reply apart: code, whether it is the last one,
// text.
func parseLine(line []byte) (code int, last bool, text string, ok bool) {
	if len(line) < 3 {
		return 0, false, "", false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, "", false
		}
		code = 10*code + int(c-'0')
	}
	if code < 200 || code > 599 {
		return 0, false, "", false
	}
	if len(line) == 3 {
		return code, true, "", true // 5321 §4.2: some send no text
	}
	switch line[3] {
	case ' ':
		last = true
	case '-':
	default:
		return 0, false, "", false
	}
	return code, last, string(line[4:]), true
}

func oneLine(s string) string { return printable.Line(s, maxText) }
