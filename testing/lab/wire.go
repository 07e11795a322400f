package lab

import (
	"encoding/binary"
	"io"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// framing is how a message is put into a stream (RFC 1035 §4.2.2), or what is
// wrong with that.
type framing uint8

const (
	framed    framing = iota
	tooLong           // the length promises more than comes
	tooShort          // the length cuts the message
	hungUp            // the stream ends without an answer
	halfFrame         // the stream ends in the middle of the message
)

// send writes the messages of a reply to a stream, and reports whether the
// stream goes on.
func (w *World) send(c io.Writer, rep reply) bool {
	if rep.framing == hungUp {
		return false
	}
	for {
		for _, m := range rep.messages {
			length := len(m)
			switch rep.framing {
			case tooLong:
				length += 1000
			case tooShort:
				length -= 20
			case halfFrame:
				m = m[:len(m)/2]
			}
			out := append(binary.BigEndian.AppendUint16(nil, uint16(length)), m...)
			if _, err := c.Write(out); err != nil {
				return false
			}
		}
		if rep.again == 0 || !w.sleep(rep.again) {
			return rep.framing != halfFrame
		}
	}
}

// overTCP reports whether a fault shows over TCP only, so that UDP has to
// lead there.
func (f Fault) overTCP() bool {
	switch f {
	case Truncate, TruncateRubbish, Expanding, LengthTooLong, LengthTooShort, StreamSilent, StreamHangsUp, StreamBreaks:
		return true
	}
	return false
}

// wire packs an answer as the transport and the fault want it.
func wire(m, req *dns.Msg, udp bool, fault Fault) reply {
	switch {
	case fault == Drop, fault == StreamSilent && !udp:
		return reply{}
	case fault == StreamHangsUp && !udp:
		return reply{framing: hungUp}
	case fault == WrongQuestion:
		m.Question = []dns.Question{{Name: "other.invalid.", Qtype: m.Question[0].Qtype, Qclass: dns.ClassINET}}
	case fault == TruncateAll, fault.overTCP() && udp:
		m.Truncated = true
		m.Answer, m.Ns = nil, nil
	}
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
	}
	m.Truncate(size) // sets TC where records had to go
	right := pack(m)
	rep := reply{messages: [][]byte{right}}
	switch fault {
	case Garbage:
		rep.messages = [][]byte{append(right[:2:2], "no message at all"...)}
	case WrongID:
		rep.messages = [][]byte{underOtherID(right)}
	case SpoofFirst:
		rep.messages = [][]byte{underOtherID(right), right}
	case Flood:
		rep.messages, rep.again = [][]byte{underOtherID(right)}, time.Millisecond
	case TruncateRubbish:
		if udp {
			rep.messages = [][]byte{withRubbish(right, m)}
		}
	case WrongAddress:
		denial := new(dns.Msg).SetRcode(req, dns.RcodeNameError)
		rep.stray = pack(denial)
	case CountLies:
		lies := slices.Clone(right)
		binary.BigEndian.PutUint16(lies[6:], 0xffff) // ANCOUNT
		rep.messages = [][]byte{lies}
	case PointerLoop:
		rep.messages = [][]byte{pointingAtItself(right, m)}
	}
	if !udp {
		rep.framing = map[Fault]framing{LengthTooLong: tooLong, LengthTooShort: tooShort, StreamBreaks: halfFrame}[fault]
	}
	return rep
}

// withRubbish keeps header and question, promises records of every section, and
// goes on with bytes that are none.
func withRubbish(msg []byte, m *dns.Msg) []byte {
	out := slices.Clone(msg[:endOfQuestion(m)])
	for _, count := range []int{6, 8, 10} {
		binary.BigEndian.PutUint16(out[count:], 7)
	}
	for i := range 200 {
		out = append(out, byte(0xc0|i), 0xff)
	}
	return out
}

// pointingAtItself has one record whose owner is a compression pointer to
// itself (RFC 1035 §4.1.4).
func pointingAtItself(msg []byte, m *dns.Msg) []byte {
	at := endOfQuestion(m)
	out := slices.Clone(msg[:at])
	binary.BigEndian.PutUint16(out[6:], 1)
	binary.BigEndian.PutUint32(out[8:], 0)
	out = binary.BigEndian.AppendUint16(out, 0xc000|uint16(at))
	return append(out, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 66)
}

func endOfQuestion(m *dns.Msg) int {
	const header, typeAndClass = 12, 4
	return header + len(m.Question[0].Name) + 1 + typeAndClass
}

func underOtherID(msg []byte) []byte {
	other := slices.Clone(msg)
	other[0] ^= 0xff
	return other
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic("lab: answer does not pack: " + err.Error())
	}
	return b
}
