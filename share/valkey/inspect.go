package valkey

import (
	"context"
	"errors"
	"time"
)

// Inspection is what Inspect saw of an engine.
type Inspection struct {
	Server string        // address of the one that was asked
	Clock  time.Duration // by which its clock is ahead of this host's
	Denied []string      // commands that the user lacks, or may not use on the keys of the prefix
	Failed string        // why writing failed otherwise, e.g. a full engine or a replica; ""
}

// Inspect logs in and runs each command that a host of the fleet needs, on keys
// that no domain has. It changes nothing that others see. An error means that no
// server can be used at all.
func Inspect(ctx context.Context, at Engine, prefix string, login Login) (seen Inspection, err error) {
	e := &engine{Engine: at, pools: make(map[string]*pool)}
	e.renew(&login)
	defer e.close()
	c := Client{opt: Options{Prefix: prefix}}
	entry, lease, changes := c.entryKey("doctor.invalid"), c.leaseKey("doctor.invalid"), c.changes()
	if seen.Server, err = e.address(ctx, entry); err != nil {
		return seen, err
	}
	needed := [][]string{
		{"TIME"},
		{"EVAL", "return 1", "1", entry},
		{"SCAN", "0", "MATCH", entry, "COUNT", "1"},
		{"HMGET", entry, "format"},
		{"HSTRLEN", entry, "format"},
		{"HSET", entry, "doctor", "1"}, // no member takes a hash without a format for an entry
		{"PEXPIRE", entry, "1000"},
		{"DEL", entry},
		{"SET", lease, "doctor", "NX", "PX", "1000"},
		{"GET", lease},
		{"XADD", changes, "NOMKSTREAM", "*", "doctor", "1"}, // without a domain nobody follows it
		{"XRANGE", changes, "-", "+", "COUNT", "1"},
		{"XREVRANGE", changes, "+", "-", "COUNT", "1"},
		{"XREAD", "COUNT", "1", "STREAMS", changes, "$"},
	}
	for _, command := range needed {
		began := time.Now()
		v, err := e.pool(seen.Server).do(ctx, command...)
		if err != nil {
			return seen, err
		}
		refused, ok := errors.AsType[serverError](v.err())
		switch {
		case !ok && command[0] == "TIME":
			if now := microseconds(v); now > 0 {
				seen.Clock = time.UnixMicro(now).Sub(began.Add(time.Since(began) / 2)).Round(time.Millisecond)
			} else {
				return seen, errProtocol
			}
		case !ok, refused.code() == "MOVED": // of a cluster: rights are judged before
		case refused.code() == "NOPERM":
			seen.Denied = append(seen.Denied, command[0])
		case refused.unwritable():
			seen.Failed = refused.text
		default:
			return seen, refused
		}
	}
	return seen, nil
}
