package socketmap

import (
	"bytes"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
)

// hit is a handler that finds every answer ready, as the cached path does.
type hit []byte

func (h hit) Lookup(context.Context, []byte, []byte) []byte { return h }

const (
	hitKey   = "a-domain-of-the-usual-length.test"
	hitReply = "OK secure match=.mx.a-domain-of-the-usual-length.test:mx2.test servername=hostname"
)

// roundTrips sends a request and reads a reply of the known size, n times.
func roundTrips(nc net.Conn, request []byte, reply []byte, n int) error {
	for range n {
		if _, err := nc.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(nc, reply); err != nil {
			return err
		}
	}
	return nil
}

func TestHitAllocatesNothing(t *testing.T) { // issue 2: a hit on the cached path allocates nothing
	for _, tc := range []struct {
		situation string
		reply     string
		pipelined int
	}{
		{"one request", hitReply, 1},
		{"ten requests at once", hitReply, 10},
		{"longest reply", "OK " + strings.Repeat("v", MaxReply-3), 1},
	} {
		for _, network := range []string{"unix", "tcp"} {
			l, _ := listen(t, network)
			start(t, &Server{Handler: hit(tc.reply)}, l)
			p := dial(t, l)
			request := []byte(strings.Repeat(frame("postfix "+hitKey), tc.pipelined))
			want := []byte(strings.Repeat(frame(tc.reply), tc.pipelined))
			got := make([]byte, len(want))
			allocs := testing.AllocsPerRun(1000, func() {
				if err := roundTrips(p.Conn, request, got, 1); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 {
				t.Errorf("%s over %s: %v allocations", tc.situation, network, allocs)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s over %s: wrong reply", tc.situation, network)
			}
		}
	}
}

// inUse is the memory held by live objects and stacks.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

func TestIdleConnectionsAreSmall(t *testing.T) { // issue 5: 10,000 idle connections under 100 MB
	const connections, limit = 400, 10 << 10
	l, _ := listen(t, "unix")
	s := &Server{Handler: mirror}
	start(t, s, l)
	before := inUse()
	for range connections {
		p := dial(t, l)
		p.ask(hitKey)
		p.send(frame("m " + strings.Repeat("k", 10000))) // makes its buffers grow
		p.want("OK m|" + strings.Repeat("k", 10000))
		p.ask(hitKey)
		p.r = nil // the test's own buffer does not count
	}
	for s.Stats().Idle < connections {
		runtime.Gosched()
	}
	each := (inUse() - before) / connections
	t.Logf("%d bytes a connection, the client's end included", each)
	if each > limit {
		t.Errorf("%d bytes for an idle connection, want at most %d", each, limit)
	}
}

// BenchmarkPipelined is what each of 16 requests that arrive together costs. One
// request at a time, and beside what nothing can be faster than, is measured by
// testing/load.
func BenchmarkPipelined(b *testing.B) {
	const together = 16
	request := bytes.Repeat([]byte(frame("postfix "+hitKey)), together)
	l, _ := listen(b, "unix")
	start(b, &Server{Handler: hit(hitReply)}, l)
	nc := dial(b, l)
	reply := make([]byte, together*len(frame(hitReply)))
	b.ReportAllocs()
	b.ResetTimer()
	if err := roundTrips(nc.Conn, request, reply, b.N/together+1); err != nil {
		b.Fatal(err)
	}
}
