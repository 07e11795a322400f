package defect

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// stumble is the goroutine whose stack matters.
func stumble() (err error) {
	defer Catch(&err)
	var none []int
	_ = none[3]
	return nil
}

func TestPanicTravelsUpWithItsStack(t *testing.T) {
	first := make(chan error)
	go func() { first <- stumble() }()
	second := make(chan error)
	go func() {
		var err error
		defer func() { second <- err }()
		defer Catch(&err)
		Raise(<-first)
	}()
	err := <-second
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	if want := "internal error: runtime error: index out of range [3] with length 0"; e.Error() != want {
		t.Errorf("%q, want %q", e.Error(), want)
	}
	if !strings.Contains(e.Stack, "stumble") {
		t.Errorf("the stack does not say where it happened:\n%s", e.Stack)
	}
	if s := fmt.Sprint(raised{e}); !strings.Contains(s, "index out of range") || !strings.Contains(s, "stumble") {
		t.Errorf("a program that ends with it prints %q", s)
	}
}

func TestRaiseLeavesOtherErrorsAlone(t *testing.T) {
	Raise(nil)
	Raise(errors.New("SERVFAIL"))
	Raise(fmt.Errorf("fetch: %w", &Error{Text: "told already"}))
}

func TestCatchWithoutPanic(t *testing.T) {
	failed := errors.New("SERVFAIL")
	if err := func() (err error) { defer Catch(&err); return failed }(); !errors.Is(err, failed) {
		t.Errorf("%v, want %v", err, failed)
	}
}

func TestLongPanicIsCut(t *testing.T) {
	err := func() (err error) { defer Catch(&err); panic(strings.Repeat("x", 1<<20)) }()
	if e, ok := errors.AsType[*Error](err); !ok || len(e.Text) != maxText || len(e.Stack) > maxStack {
		t.Errorf("%T with %d bytes", err, len(err.Error()))
	}
}
