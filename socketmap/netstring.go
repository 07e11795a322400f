package socketmap

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// ErrMalformed means that bytes are not a netstring or that the netstring is too
// long. The start of the next netstring is then unknown, so the caller must close
// the connection.
var ErrMalformed = errors.New("malformed netstring")

// AppendNetstring appends payload to dst as a netstring, "LEN:payload,", and
// returns the extended slice.
func AppendNetstring(dst, payload []byte) []byte {
	dst = strconv.AppendInt(dst, int64(len(payload)), 10)
	dst = append(dst, ':')
	dst = append(dst, payload...)
	return append(dst, ',')
}

// netstringSize returns the size of a netstring with n bytes of payload.
func netstringSize(n int) int {
	size := n + len(":,") + 1
	for ; n >= 10; n /= 10 {
		size++
	}
	return size
}

// cutNetstring finds the netstring at the beginning of b. payload is a part of
// b, and size is the size of the whole netstring in b, or 0 when b ends before
// the netstring does. The error is an ErrMalformed. It is returned as soon as the
// bytes show it, so that a length over limit is refused before its payload
// arrives.
//
// By the definition of netstrings a length has no leading zero; "0:," is the
// empty netstring.
func cutNetstring(b []byte, limit int) (payload []byte, size int, err error) {
	length := 0
	for i, ch := range b {
		switch {
		case ch == ':' && i > 0:
			return cutPayload(b, i+1, length)
		case ch < '0' || ch > '9':
			return nil, 0, fmt.Errorf("%w: %q where a length was expected", ErrMalformed, head(b))
		case i == 1 && b[0] == '0':
			return nil, 0, fmt.Errorf("%w: length with a leading zero in %q", ErrMalformed, head(b))
		}
		length = 10*length + int(ch-'0')
		if length > limit {
			return nil, 0, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, limit)
		}
	}
	return nil, 0, nil
}

// cutPayload is the part of cutNetstring after the colon.
func cutPayload(b []byte, start, length int) (payload []byte, size int, err error) {
	end := start + length
	if len(b) <= end {
		return nil, 0, nil
	}
	if b[end] != ',' {
		return nil, 0, fmt.Errorf("%w: no comma after %d bytes of payload", ErrMalformed, length)
	}
	return b[start:end:end], end + 1, nil
}

// head returns as much of hostile bytes as a log line shows.
func head(b []byte) []byte { return b[:min(len(b), 16)] }

// cutRequest splits a request payload, "NAME SP KEY", at its first space.
func cutRequest(payload []byte) (name, key []byte, ok bool) {
	return bytes.Cut(payload, []byte{' '})
}
