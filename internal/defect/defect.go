// Package defect keeps a panic in one piece of work from ending the process.
//
// A goroutine that does part of a lookup catches its panic as an error, and the
// goroutine that waits for it raises it again. So it travels up to the one place
// that ends the lookup and reports the panic, with the stack of the goroutine where
// it happened.
package defect

import (
	"fmt"
	"runtime/debug"
)

const (
	maxText  = 200  // bytes of what was panicked with
	maxStack = 4096 // bytes
)

// Error is a panic: a defect of this program, which the caller cannot fix.
type Error struct {
	Text  string // what was panicked with
	Stack string // of the goroutine that did, its beginning
}

// Error leaves the stack out: it is one line.
func (e *Error) Error() string { return "internal error: " + e.Text }

// From makes an error of what recover returned. Called where that is deferred,
// it keeps the stack of the panic; one that was raised has its stack already.
func From(recovered any) *Error {
	if r, ok := recovered.(raised); ok {
		return r.err
	}
	text := fmt.Sprint(recovered)
	stack := debug.Stack()
	return &Error{Text: text[:min(len(text), maxText)], Stack: string(stack[:min(len(stack), maxStack)])}
}

// Catch is deferred by a function that runs in a goroutine of its own: a panic
// becomes its error.
func Catch(err *error) {
	if r := recover(); r != nil {
		*err = From(r)
	}
}

// Raise panics if the error is one that Catch made.
func Raise(err error) {
	if e, ok := err.(*Error); ok {
		panic(raised{e})
	}
}

// raised is a panic on its way up.
type raised struct{ err *Error }

// String is what a program prints that it ends after all.
func (r raised) String() string { return r.err.Text + "\n\n" + r.err.Stack }
