package socketmap

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"tlspolicyd/testing/lab/postfix"
)

func TestCutNetstring(t *testing.T) {
	full := strings.Repeat("k", MaxRequest)
	for _, tc := range []struct {
		situation string
		in        string
		payload   string
		size      int
	}{
		{"complete", "14:postfix a.test,", "postfix a.test", 18},
		{"followed by another", "3:m k,3:m l,", "m k", 6},
		{"empty", "0:,", "", 3},
		{"payload of framing characters", "4:1:,,,", "1:,,", 7},
		{"as long as allowed", "16384:" + full + ",", full, MaxRequest + 7},
		{"nothing yet", "", "", 0},
		{"length only", "14", "", 0},
		{"zero only", "0", "", 0},
		{"no payload yet", "14:", "", 0},
		{"comma missing so far", "3:m k", "", 0},
		{"longest, incomplete", "16384:" + full, "", 0},
	} {
		payload, size, err := cutNetstring([]byte(tc.in), MaxRequest)
		if err != nil || size != tc.size || string(payload) != tc.payload {
			t.Errorf("%s: %.40q, %d, %v; want %.40q, %d", tc.situation, payload, size, err, tc.payload, tc.size)
		}
	}
}

// malformed are the ways in which BEHAVIOUR §1 says bytes are no request, each
// ending with the byte that shows it.
var malformed = map[string]string{
	"no digit":                "x",
	"HTTP":                    "G",
	"no length":               ":",
	"sign":                    "-",
	"blank before the length": " ",
	"line end after a reply":  "\n",
	"letter in the length":    "1x",
	"leading zero":            "01",
	"two zeros":               "00",
	"over 16 KiB":             "16385",
	"far over 16 KiB":         "99999",
	"number without end":      "111111",
	"no comma":                "3:m k;",
	"no comma after nothing":  "0:x",
}

func TestMalformedNetstringIsRefusedAtTheByteThatShowsIt(t *testing.T) { // §1
	for situation, in := range malformed {
		_, size, err := cutNetstring([]byte(in), MaxRequest)
		if !errors.Is(err, ErrMalformed) || size != 0 {
			t.Errorf("%s: size %d, error %v, want ErrMalformed", situation, size, err)
		}
		_, size, err = cutNetstring([]byte(in[:len(in)-1]), MaxRequest)
		if err != nil || size != 0 {
			t.Errorf("%s, one byte less: size %d, error %v, want neither", situation, size, err)
		}
	}
}

func TestErrorsQuoteHostileBytes(t *testing.T) {
	_, _, err := cutNetstring([]byte("\x1b[31m\n"+strings.Repeat("A", 1000)), MaxRequest)
	if msg := err.Error(); len(msg) > 150 || strings.ContainsAny(msg, "\x1b\n") {
		t.Errorf("error %q", msg)
	}
}

func TestNetstringSize(t *testing.T) {
	for _, n := range []int{0, 1, 9, 10, 99, 100, 9999, 10000, MaxReply - 1, MaxReply} {
		if got, want := netstringSize(n), len(AppendNetstring(nil, make([]byte, n))); got != want {
			t.Errorf("netstringSize(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestRequestIsSplitAtItsFirstSpace(t *testing.T) { // §1
	for _, tc := range []struct {
		payload, name, key string
		ok                 bool
	}{
		{"postfix example.test", "postfix", "example.test", true},
		{"postfix a b", "postfix", "a b", true},
		{"postfix ", "postfix", "", true},
		{" key", "", "key", true},
		{"postfix", "postfix", "", false},
		{"", "", "", false},
	} {
		name, key, ok := cutRequest([]byte(tc.payload))
		if string(name) != tc.name || string(key) != tc.key || ok != tc.ok {
			t.Errorf("%q: %q, %q, %v", tc.payload, name, key, ok)
		}
	}
}

// chunks is the network side of a connection: reads hand out its bytes in
// pieces of the given size.
type chunks struct {
	net.Conn
	in   []byte
	size int
	out  bytes.Buffer
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.size)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *chunks) Write(b []byte) (int, error)      { return c.out.Write(b) }
func (c *chunks) SetReadDeadline(time.Time) error  { return nil }
func (c *chunks) SetWriteDeadline(time.Time) error { return nil }
func (c *chunks) Close() error                     { return nil }

// serveBytes is what a server replies to bytes that come in pieces of a size.
func serveBytes(in []byte, size int) ([]byte, error) {
	s := &Server{Handler: mirror}
	s.init()
	defer s.cancel()
	nc := &chunks{in: in, size: size}
	err := newConn(s, nc).serve()
	return nc.out.Bytes(), err
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("20:postfix example.test,"), 1)
	f.Add([]byte("20:postfix example.test,3:m k,0:,1: ,7:postfix,"), 7)
	f.Add([]byte("3:m k,GET / HTTP/1.1\r\n"), 3)
	f.Add([]byte("5000:m "+strings.Repeat("k", 4998)+",3:m k,"), 600)
	f.Add([]byte("16384:m "), 100)
	for _, in := range malformed {
		f.Add([]byte(in), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, size int) {
		checkFirst(t, in)
		checkAll(t, in, min(max(size, 1), 20000))
	})
}

// checkFirst checks cutNetstring by its definition.
func checkFirst(t *testing.T, in []byte) {
	payload, size, err := cutNetstring(in, MaxRequest)
	if err != nil {
		if !errors.Is(err, ErrMalformed) || size != 0 {
			t.Fatalf("size %d, error %v", size, err)
		}
		return
	}
	if size > 0 {
		if again := AppendNetstring(nil, payload); !bytes.Equal(again, in[:size]) {
			t.Fatalf("%q parsed to %q, which encodes to %q", in[:size], payload, again)
		}
		if _, n, err := cutNetstring(in[:size-1], MaxRequest); n != 0 || err != nil {
			t.Fatalf("complete one byte early: %d, %v", n, err)
		}
	}
	if len(in) <= MaxRequest {
		got, n, err := cutNetstring(AppendNetstring(nil, in), MaxRequest)
		if err != nil || n != netstringSize(len(in)) || !bytes.Equal(got, in) {
			t.Fatalf("%q encoded does not parse back: %q, %d, %v", in, got, n, err)
		}
	}
}

// checkAll checks that a connection's replies do not depend on how the bytes
// come in, and that there is one for each request.
func checkAll(t *testing.T, in []byte, size int) {
	out, err := serveBytes(slices.Clone(in), size)
	whole, wholeErr := serveBytes(slices.Clone(in), len(in)+1)
	if !bytes.Equal(out, whole) || errors.Is(err, ErrMalformed) != errors.Is(wholeErr, ErrMalformed) {
		t.Fatalf("in pieces of %d: %.200q, %v; at once: %.200q, %v", size, out, err, whole, wholeErr)
	}
	var want []byte
	for rest := in; ; {
		payload, n, err := cutNetstring(rest, MaxRequest)
		if n == 0 {
			if errors.Is(wholeErr, ErrMalformed) != (err != nil) {
				t.Fatalf("connection ended with %v, parser says %v", wholeErr, err)
			}
			break
		}
		rest = rest[n:]
		name, key, ok := strings.Cut(string(payload), " ")
		reply := "OK " + name + "|" + key
		if !ok {
			reply = `PERM request is not "NAME KEY"`
		}
		want = append(want, frame(reply)...)
	}
	if !bytes.Equal(out, want) {
		t.Fatalf("replies %.200q, want %.200q", out, want)
	}
	// What leaves is netstrings to Postfix as well.
	for len(out) > 0 {
		if _, out, err = postfix.ReadNetstring(out); err != nil {
			t.Fatal(err)
		}
	}
}
