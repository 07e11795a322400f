// Package socketmap is Postfix's socketmap protocol (socketmap_table(5)):
// netstrings that carry "NAME KEY" one way and a status with a value the other
// way. It has a server and a client and knows keys and replies as bytes only.
package socketmap

import "context"

// Handler answers lookups.
type Handler interface {
	// Lookup returns the complete reply payload, "OK value", "NOTFOUND ",
	// "TEMP reason", "TIMEOUT reason" or "PERM reason", without netstring
	// framing. The server only reads it and does not keep it past the write,
	// so a handler may return the same slice to many callers. name and key are
	// only valid during the call.
	//
	// ctx ends when the server is stopped for good, not when the client goes
	// away: what was learned for one client serves the next.
	Lookup(ctx context.Context, name, key []byte) []byte
}

// Limits of the protocol (socketmap_table(5)).
const (
	MaxRequest = 16 << 10 // bytes of a request payload we accept; Postfix sends keys up to 10,000
	MaxReply   = 100000   // bytes of a reply payload that Postfix reads
)
