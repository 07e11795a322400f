package dnsclient

import (
	"encoding/binary"
	"errors"

	"github.com/miekg/dns"
)

// Bounds of what is kept of one message. Compression makes 64 KiB many times
// larger in memory, and no name that takes part in mail has so many records.
const (
	maxRecords = 256 // of the type asked for; those beyond are counted
	maxAliases = 64
	maxSOAs    = 4

	headerSize = 12 // RFC 1035 §4.1.1
)

var (
	errCutShort = errors.New("sections shorter than the header says")
	errMismatch = errors.New("answer to another question")
	errLame     = errors.New("referral instead of an answer")
)

// message is what is kept of a response. Answer holds records of the type asked
// for and aliases, Ns only SOA records, Extra only OPT.
type message struct {
	dns.Msg
	answers  int  // all records of the answer section
	more     int  // records of the type asked for that are not in Answer
	referral bool // there are NS records in the authority section
}

// parse reads a message that should answer the query. The error is errMismatch
// when it does not, and a malformedError when it does but cannot be read.
func parse(p []byte, query *dns.Msg) (*message, error) {
	m := new(message)
	off, ok := m.readHead(p)
	if !ok || !matches(&m.Msg, query) {
		return nil, errMismatch
	}
	if m.Truncated {
		return m, nil // nothing else of it is used
	}
	m.answers = int(binary.BigEndian.Uint16(p[6:]))
	for section := range 3 {
		for range binary.BigEndian.Uint16(p[6+2*section:]) {
			var err error
			if off, err = m.readRecord(p, off, section, query.Question[0].Qtype); err != nil {
				return nil, &malformedError{err}
			}
		}
	}
	if opt := m.IsEdns0(); opt != nil {
		m.Rcode |= opt.ExtendedRcode() // RFC 6891 §6.1.3
	}
	return m, nil
}

// readHead reads the header and the question, and returns where they end.
func (m *message) readHead(p []byte) (off int, ok bool) {
	if len(p) < headerSize {
		return 0, false
	}
	var head [headerSize]byte
	copy(head[:4], p) // id and flags; no counts, so that nothing else is expected
	if m.Unpack(head[:]) != nil {
		return 0, false
	}
	switch binary.BigEndian.Uint16(p[4:]) {
	case 0:
		return headerSize, true
	case 1:
		name, off, err := dns.UnpackDomainName(p, headerSize)
		if err != nil || len(p) < off+4 {
			return 0, false
		}
		m.Question = []dns.Question{{
			Name: name, Qtype: binary.BigEndian.Uint16(p[off:]), Qclass: binary.BigEndian.Uint16(p[off+2:]),
		}}
		return off + 4, true
	}
	return 0, false
}

// readRecord reads the record at off and returns where it ends. Records that are
// not used, such as signatures, are skipped.
func (m *message) readRecord(p []byte, off, section int, qtype uint16) (end int, err error) {
	data := skipName(p, off) + 10 // behind type, class, TTL and length
	if data > len(p) {
		return 0, errCutShort
	}
	rrtype, class := binary.BigEndian.Uint16(p[data-10:]), binary.BigEndian.Uint16(p[data-8:])
	if end = data + int(binary.BigEndian.Uint16(p[data-2:])); end > len(p) {
		return 0, errCutShort
	}
	list := &m.Answer
	switch section {
	case 0:
		aliases := len(m.Answer)
		if class == dns.ClassINET && rrtype == qtype {
			if aliases >= maxRecords {
				m.more++
				return end, nil
			}
		} else if class != dns.ClassINET || rrtype != dns.TypeCNAME || aliases >= maxRecords {
			_, _, err := dns.UnpackDomainName(p, off)
			return end, err
		}
	case 1:
		m.referral = m.referral || rrtype == dns.TypeNS
		if list = &m.Ns; rrtype != dns.TypeSOA || len(m.Ns) == maxSOAs {
			return end, nil
		}
	case 2:
		if list = &m.Extra; rrtype != dns.TypeOPT || len(m.Extra) > 0 {
			return end, nil
		}
	}
	rr, _, err := dns.UnpackRR(p[:end], off)
	if err != nil {
		return 0, err
	}
	*list = append(*list, rr)
	return end, nil
}

// skipName returns where a name ends, without a look at its labels: beyond the
// message where it does not end in it.
func skipName(p []byte, off int) int {
	for off < len(p) {
		switch n := int(p[off]); {
		case n == 0:
			return off + 1
		case n >= 0xc0: // a pointer, RFC 1035 §4.1.4
			return off + 2
		default:
			off += 1 + n
		}
	}
	return len(p) + 1
}

// matches reports whether m is a response to the query: id, QR, opcode and the
// one question, with the name in any case (RFC 5452 §9.1).
func matches(m, query *dns.Msg) bool {
	if m.Id != query.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		// Some servers send a bare header with an error. It says nothing about
		// the name; it only sends us to the next server.
		return m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	got, want := m.Question[0], query.Question[0]
	return got.Qtype == want.Qtype && got.Qclass == want.Qclass &&
		dns.CanonicalName(got.Name) == dns.CanonicalName(want.Name)
}

// lame reports a referral from a server that does not recurse: without data,
// without a denial, and no recursion on offer.
func (m *message) lame() bool {
	return m.Rcode == dns.RcodeSuccess && !m.RecursionAvailable && !m.Authoritative &&
		m.answers == 0 && len(m.Ns) == 0 && m.referral
}

// extended returns the registered name of the extended error (RFC 8914). Its
// free text is left out: it is the server's, not ours to pass on.
func (m *message) extended() string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if ede, ok := o.(*dns.EDNS0_EDE); ok {
			return dns.ExtendedErrorCodeToString[ede.InfoCode]
		}
	}
	return ""
}
