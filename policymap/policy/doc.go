// Package policy decides which TLS policy Postfix is to use for a next hop. It
// is pure: a key, stored facts and the operator's settings go in; a decision,
// the reply and the times at which it ends come out. It knows no cache, no
// network and no goroutine.
//
// A lookup goes through it in the order of this list:
//
//   - nexthop.go reads the key: "example.com", "[mail.example.com]:587".
//   - overrides.go finds the operator's own answer for it.
//   - view.go reads the stored facts: what they mean at this moment (sts.go for
//     MTA-STS, evidence.go for DANE, which is kept for each mail host).
//   - decide.go is the decision table of docs/behaviour.md §5: from the DANE
//     state and the MTA-STS mode to a row.
//   - render.go writes the decision in Postfix's syntax.
//   - schedule.go says when each fact is to be looked up again.
//   - change.go compares what applied before with what applies now, for the log.
//
// Postfix does three different things with the answers. With "dane-only" it
// delivers only to a mail host whose certificate matches its TLSA records. With
// "dane" it does so for each host that has usable TLSA records, encrypts
// without authentication where the records are unusable, and uses opportunistic
// TLS for the rest. With "secure match=…" it delivers only over a certificate
// from a trusted authority that names a host in the match list. "NOTFOUND"
// leaves the choice to smtp_tls_security_level, and "TEMP" makes Postfix defer
// the message.
package policy
