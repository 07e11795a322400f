// Package postfix reads what a socketmap server says as Postfix reads it: the
// netstring and the reply of socketmap_table(5), and the TLS policy of
// postconf(5), smtp_tls_policy_maps, and TLS_README. It is written from those
// documents and shares nothing with the code that writes replies, so that a
// test can hold one against the other.
package postfix

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// MaxReply is how many bytes of a reply Postfix takes (socketmap_table(5),
// REPLY FORMAT).
const MaxReply = 100000

// Status is the first word of a reply.
type Status string

// The five of socketmap_table(5), REPLY FORMAT.
const (
	OK       Status = "OK"
	NotFound Status = "NOTFOUND"
	Temp     Status = "TEMP"
	Timeout  Status = "TIMEOUT"
	Perm     Status = "PERM"
)

// Reply is one reply of a socketmap server.
type Reply struct {
	Status Status
	Data   string // the value where Status is OK, else the reason
}

// ReadNetstring takes the netstring off the front of b. Postfix closes the
// connection for whatever is an error here.
func ReadNetstring(b []byte) (payload, rest []byte, err error) {
	length, after, ok := bytes.Cut(b, []byte(":"))
	if !ok {
		return nil, nil, errors.New("no colon behind the length")
	}
	if len(length) == 0 || len(bytes.Trim(length, "0123456789")) > 0 {
		return nil, nil, fmt.Errorf("length %q", length)
	}
	if length[0] == '0' && len(length) > 1 {
		return nil, nil, fmt.Errorf("length %q has a leading zero", length)
	}
	n, err := strconv.Atoi(string(length))
	if err != nil || n > MaxReply {
		return nil, nil, fmt.Errorf("length %q: want at most %d", length, MaxReply)
	}
	if len(after) <= n || after[n] != ',' {
		return nil, nil, errors.New("no comma behind the payload")
	}
	return after[:n], after[n+1:], nil
}

// ParseReply reads the payload of a reply.
func ParseReply(payload []byte) (Reply, error) {
	if len(payload) > MaxReply {
		return Reply{}, fmt.Errorf("%d bytes", len(payload))
	}
	if bytes.IndexByte(payload, 0) >= 0 {
		return Reply{}, errors.New("a NUL: Postfix reads no further")
	}
	status, data, ok := strings.Cut(string(payload), " ")
	if !ok {
		return Reply{}, fmt.Errorf("no blank behind the status of %.50q", payload)
	}
	switch s := Status(status); s {
	case OK, NotFound, Temp, Timeout, Perm:
		return Reply{s, data}, nil
	}
	return Reply{}, fmt.Errorf("status %.50q", status)
}
