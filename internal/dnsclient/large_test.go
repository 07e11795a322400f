package dnsclient

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// longName is as long as names get, of bytes that the DNS library hands out as
// four characters each.
func longName() string {
	label := func(n int) string { return strings.Repeat(`\001`, n) + "." }
	return label(63) + label(63) + label(63) + label(61)
}

// expanding is an answer to a question about MX records of longName: 64 KiB of
// them, and compression makes each of their names two bytes. n is their number.
func expanding(t *testing.T, q *dns.Msg) (p []byte, n int) {
	t.Helper()
	p, err := reply(t, q, dns.RcodeSuccess, "", "").Pack()
	if err != nil {
		t.Fatal(err)
	}
	const name = 12 // where it is: in the question
	for ; len(p) < dns.MaxMsgSize-16; n++ {
		p = append(p, 0xc0, name, 0, 15, 0, 1, 0, 0, 0, 60, 0, 4, byte(n>>8), byte(n), 0xc0, name) // NAME 60 MX n NAME
	}
	binary.BigEndian.PutUint16(p[6:], uint16(n)) // ANCOUNT
	return p, n
}

// Compression makes a message larger than its bytes. What is made of the worst
// that fits into 64 KiB has a bound.
func TestUnpackingIsBounded(t *testing.T) {
	q := query(dns.Question{Name: longName(), Qtype: dns.TypeMX, Qclass: dns.ClassINET}, true)
	p, n := expanding(t, q)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := parse(p, q)
	runtime.ReadMemStats(&after)
	if err != nil || len(got.Answer) != maxRecords || got.more != n-maxRecords {
		t.Fatalf("%d records of %d, %d left out, %v", len(got.Answer), n, got.more, err)
	}
	// Two names of 1,000 characters for each of 256 records, and how they are built.
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes of message take %d MiB", len(p), used>>20)
	} else {
		t.Logf("%d records, %d KiB of message, %d KiB of memory in all", n, len(p)>>10, used>>10)
	}
}

// largeServer is a server that answers over TCP what tcp writes, and "too large"
// over UDP, but for names below small.test.
func largeServer(t *testing.T, tcp func(c net.Conn, q *dns.Msg)) *Client {
	t.Helper()
	packet, listener := listen(t)
	var serving sync.WaitGroup
	t.Cleanup(func() {
		packet.Close()
		listener.Close()
		serving.Wait()
	})
	serving.Go(func() {
		buf := make([]byte, 512)
		for {
			n, from, err := packet.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if err := q.Unpack(buf[:n]); err != nil {
				t.Error(err)
				return
			}
			m := reply(t, q, dns.RcodeSuccess, q.Question[0].Name+" 60 MX 10 mx.test.", "")
			if m.Truncated = !dns.IsSubDomain("small.test.", q.Question[0].Name); m.Truncated {
				m.Answer = nil
			}
			p, err := m.Pack()
			if err != nil {
				t.Error(err)
				return
			}
			packet.WriteTo(p, from)
		}
	})
	serving.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				if q, err := (&dns.Conn{Conn: c}).ReadMsg(); err == nil {
					tcp(c, q)
				}
			})
		}
	})
	return newClient(t, Config{
		Servers: []netip.AddrPort{netip.MustParseAddrPort(packet.LocalAddr().String())},
		Timeout: time.Hour, // however slow the machine is, a question is asked once
	})
}

// What 64 of the worst answers at the same time leave behind while all of them are
// held is little.
func TestManyLargeAnswersAtOnce(t *testing.T) {
	const many = 64
	worst, n := expanding(t, query(dns.Question{Name: longName(), Qtype: dns.TypeMX, Qclass: dns.ClassINET}, true))
	var all sync.WaitGroup
	all.Add(many)
	c := largeServer(t, func(c net.Conn, q *dns.Msg) {
		all.Done()
		all.Wait() // so that all answers come together
		out := binary.BigEndian.AppendUint16(nil, uint16(len(worst)))
		out = binary.BigEndian.AppendUint16(out, q.Id)
		c.Write(append(out, worst[2:]...))
		io.Copy(io.Discard, c) // until the client hangs up
	})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	answers := make([]Answer, many)
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() {
			var err error
			if answers[i], err = c.Lookup(t.Context(), longName(), dns.TypeMX); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	for _, a := range answers {
		if len(a.Records)+a.More != n || len(a.Records) > maxRecords {
			t.Errorf("%d records and %d more, want %d", len(a.Records), a.More, n)
		}
	}
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 64<<20 {
		t.Errorf("%d MiB are held", held>>20)
	} else {
		t.Logf("%d MiB are held; %d MiB of heap from the system, %d before", held>>20, after.HeapSys>>20, before.HeapSys>>20)
	}
}

// Large answers that do not end hold up each other, and none of usual size.
func TestSmallAnswersDoNotWaitForLargeOnes(t *testing.T) {
	const many = 2 * maxLarge / dns.MaxMsgSize
	var all sync.WaitGroup
	all.Add(many)
	c := largeServer(t, func(c net.Conn, _ *dns.Msg) {
		c.Write([]byte{0xff, 0xff, 0}) // a length of 64 KiB, and the first byte
		all.Done()
		io.Copy(io.Discard, c)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for range many {
		asking.Go(func() {
			if a, err := c.Lookup(ctx, "large.test", dns.TypeMX); err == nil {
				t.Errorf("an answer that did not end: %+v", a)
			}
		})
	}
	all.Wait()
	for range 20 {
		if a, err := c.Lookup(t.Context(), "a.small.test", dns.TypeMX); err != nil || len(a.Records) != 1 {
			t.Errorf("%+v, %v", a, err)
		}
	}
}
