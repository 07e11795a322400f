package share

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/printable"
)

const (
	// Format is the format of the entries that are written here. One of a higher
	// format is ignored and never overwritten.
	Format = 1
	// MaxHost is the longest name of a host in an entry, in bytes.
	MaxHost = 255
	// MaxID is the longest TXT id (8461 §3.1).
	MaxID = 32

	minKey    = 16          // bytes of a fleet key
	skew      = time.Minute // by which the time of a fetch may be in the future
	macPrefix = "tlspolicyd share 1\x00"
)

// Entry is a policy as it is in the engine.
type Entry struct {
	Format int64
	File   []byte
	ID     string
	Time   int64 // of the fetch by the engine's clock, milliseconds since 1970
	Fence  int64 // Lease.Fence of the writer
	Host   string
	MAC    []byte
}

// Keys sign and verify entries: the first one signs, all of them verify, so that
// a fleet can change its key host by host. Without any, nothing is signed and
// everything is believed, which is for an engine that only this host reaches.
type Keys [][]byte

// ParseKeys reads a key file: a key on each line, e.g. of "openssl rand -base64 32".
func ParseKeys(text []byte) (Keys, error) {
	var keys Keys
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if len(line) < minKey {
			return nil, fmt.Errorf("key of %d characters: want at least %d, e.g. of 'openssl rand -base64 32'", len(line), minKey)
		}
		keys = append(keys, []byte(line))
	}
	if keys == nil {
		return nil, errors.New("no key in it: want one of 'openssl rand -base64 32'")
	}
	return keys, nil
}

// mac is the HMAC-SHA256 of an entry under a key. Each part follows its length, so
// that no two entries are the same bytes.
func mac(key []byte, domain string, e *Entry) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(macPrefix))
	var buf []byte
	for _, part := range [...][]byte{[]byte(domain), []byte(e.ID), []byte(e.Host), e.File} {
		buf = binary.BigEndian.AppendUint64(buf[:0], uint64(len(part)))
		h.Write(buf)
		h.Write(part)
	}
	for _, n := range [...]int64{e.Format, e.Time, e.Fence} {
		h.Write(binary.BigEndian.AppendUint64(buf[:0], uint64(n)))
	}
	return h.Sum(nil)
}

// Seal makes the entry of a policy that was fetched at the given time.
func (k Keys) Seal(domain string, p Policy, fetched time.Time, fence int64) Entry {
	e := Entry{Format: Format, File: p.File, ID: p.ID, Time: fetched.UnixMilli(), Fence: fence, Host: p.Host}
	if len(k) > 0 {
		e.MAC = mac(k[0], domain, &e)
	}
	return e
}

// ErrNewer means that a newer version wrote the entry, which is left as it is.
var ErrNewer = errors.New("entry of a newer format")

// Open returns the policy of an entry at the given time of the engine's clock,
// ErrNone where it is over, or why it is not believed, in one printable line.
func (k Keys) Open(domain string, e Entry, now time.Time) (Policy, error) {
	p := Policy{File: e.File, ID: e.ID, Host: e.Host}
	switch {
	case e.Format > Format:
		return Policy{}, ErrNewer
	case e.Format != Format:
		return Policy{}, errors.New("unknown format")
	case len(e.File) > mtasts.MaxPolicySize, len(e.ID) > MaxID, len(e.Host) > MaxHost:
		return Policy{}, errors.New("a field is too long")
	case !printable.Is(e.Host), strings.Trim(e.ID, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return Policy{}, errors.New("a field is malformed")
	case !k.verify(domain, &e):
		return Policy{}, errors.New("signature does not match: another share.key_file, or forged")
	}
	p.Age = now.Sub(time.UnixMilli(e.Time))
	if p.Age < -skew {
		return Policy{}, errors.New("fetched in the future")
	}
	p.Age = max(p.Age, 0)
	parsed, err := mtasts.ParsePolicy(e.File)
	switch {
	case err != nil:
		return Policy{}, err
	case p.Age >= parsed.MaxAge:
		return Policy{}, ErrNone
	}
	return p, nil
}

func (k Keys) verify(domain string, e *Entry) bool {
	for _, key := range k {
		if hmac.Equal(e.MAC, mac(key, domain, e)) {
			return true
		}
	}
	return len(k) == 0
}
