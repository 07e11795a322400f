// Package socketmap implements the protocol of Postfix's socketmap lookup
// tables (socketmap_table(5)), as a server and as a client. It treats keys and
// replies as bytes.
//
// Requests and replies are netstrings: the length of the payload in decimal, a
// colon, the payload and a comma. Postfix asks for a key in a named map:
//
//	19:postfix example.com,
//
// and the server answers with a status and a value:
//
//	12:OK dane-only,
//
// What Postfix does with each status:
//
//	OK value        uses the value
//	NOTFOUND        goes on as though the map had no such key
//	TEMP reason     logs the reason and defers the message
//	TIMEOUT reason  the same
//	PERM reason     the same for smtp_tls_policy_maps: the message is deferred
//
// Postfix sends one request at a time on a connection and waits 100 s for the
// reply. It closes a connection after 10 s without a request or 100 s in all.
// When the server has closed the connection, Postfix connects and asks once
// more; if that fails too, the lookup has failed.
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
	// ctx ends when the server is closed, not when the client disconnects: the
	// result of a lookup serves the clients that ask next.
	Lookup(ctx context.Context, name, key []byte) []byte
}

// Limits of the protocol (socketmap_table(5)).
const (
	MaxRequest = 16 << 10 // bytes of a request payload; Postfix sends keys up to 10,000
	MaxReply   = 100000   // bytes of a reply payload that Postfix reads
)
