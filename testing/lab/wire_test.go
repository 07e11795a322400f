package lab_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"tlspolicyd/testing/lab"
)

// raw sends a question over a transport and returns what comes back within a
// second, length and all.
func raw(t *testing.T, w *lab.World, network string) []byte {
	t.Helper()
	c, err := w.Dial(t.Context(), network, w.DNSAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q, err := new(dns.Msg).SetQuestion("a.test.", dns.TypeA).SetEdns0(1232, false).Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	b, err := io.ReadAll(c)
	if ne := net.Error(nil); err != nil && !(errors.As(err, &ne) && ne.Timeout()) {
		t.Fatal(err)
	}
	return b
}

// Faults in the bytes of a message and of its framing.
func TestFaultsOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		what    string
		fault   lab.Fault
		network string
		check   func(length int, msg []byte) bool
	}{
		{"no fault", 0, "tcp", func(n int, b []byte) bool { return n == len(b) && answers(b) == 1 }},
		{"length too long", lab.LengthTooLong, "tcp", func(n int, b []byte) bool { return n > len(b) && answers(b) == 1 }},
		{"length too short", lab.LengthTooShort, "tcp", func(n int, b []byte) bool { return n < len(b) }},
		{"stream breaks", lab.StreamBreaks, "tcp", func(n int, b []byte) bool { return n > len(b) && len(b) > 0 }},
		{"stream is silent", lab.StreamSilent, "tcp", func(_ int, b []byte) bool { return len(b) == 0 }},
		{"stream hangs up", lab.StreamHangsUp, "tcp", func(_ int, b []byte) bool { return len(b) == 0 }},
		{"rubbish behind TC", lab.TruncateRubbish, "udp", func(_ int, b []byte) bool { return truncated(b) && answers(b) == -1 }},
		{"right over TCP", lab.TruncateRubbish, "tcp", func(_ int, b []byte) bool { return !truncated(b) && answers(b) == 1 }},
		{"counts that lie", lab.CountLies, "udp", func(_ int, b []byte) bool { return binary.BigEndian.Uint16(b[6:]) == 0xffff }},
		{"pointer to itself", lab.PointerLoop, "udp", func(_ int, b []byte) bool { return answers(b) == -1 }},
		{"long chain", lab.LongChain, "tcp", func(_ int, b []byte) bool { return answers(b) == 48 }},
		{"names that expand", lab.Expanding, "tcp", func(n int, b []byte) bool { return n > 50_000 && answers(b) > 3000 }},
		{"flood", lab.Flood, "udp", func(n int, b []byte) bool { return len(b) > 100*n }},
	} {
		t.Run(tt.what, inBubble(func(t *testing.T) {
			w := lab.New()
			defer w.Close()
			w.Zone("a.test. A 192.0.2.1")
			w.Fault("a.test", "A", tt.fault)
			b := raw(t, w, tt.network)
			length := 0
			if len(b) > 1 {
				length = int(binary.BigEndian.Uint16(b))
				b = b[2:]
			}
			if !tt.check(length, b) {
				t.Errorf("length %d, %d bytes: %.100x", length, len(b), b)
			}
			if got := w.Received(53); got < int64(len(b)) {
				t.Errorf("%d bytes counted, %d read", got, len(b))
			}
		}))
	}
}

func inBubble(test func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

func truncated(b []byte) bool { return b[2]&2 != 0 }

// answers is the number of records in the answer section, or -1 where the
// message cannot be read.
func answers(b []byte) int {
	m := new(dns.Msg)
	if m.Unpack(b) != nil {
		return -1
	}
	return len(m.Answer)
}
