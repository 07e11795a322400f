// Package maillog finds, in the mail log of Postfix, the messages that TLS policy
// held back, and why.
//
// A log is read line by line, once, in bounded memory. A line is what syslog,
// journald or postlogd(8) wrote for one Postfix process. Of interest are the
// lines that say how a delivery ended ("QID: to=<...>, ..., status=deferred
// (reason)"), the warnings of the same process before it, and the failures of
// certificates, which name the mail host. What is not understood is counted.
package maillog

import (
	"bytes"
	"time"
)

// line is one line of a log, in parts that refer to it.
type line struct {
	stamp   []byte // the time, as it was logged
	process []byte // host, program and process id
	program []byte // without the syslog_name, e.g. smtp
	text    []byte
}

// parse cuts a line into its parts: "Nov 28 10:07:03 host postfix/smtp[962]: text",
// or with an RFC 3339 time in one word.
func parse(b []byte) (l line, ok bool) {
	end := bytes.IndexByte(b, ' ')
	if end <= 0 {
		return l, false
	}
	if b[0] >= 'A' { // a month
		if end = len("Nov 28 10:07:03"); len(b) <= end || b[end] != ' ' {
			return l, false
		}
	}
	l.stamp = b[:end]
	rest := b[end+1:]
	bracket := bytes.IndexByte(rest, '[')
	if bracket < 0 {
		return l, false
	}
	tag := rest[:bracket]
	l.program = tag[bytes.LastIndexAny(tag, "/ ")+1:]
	digits := 0
	for digits < len(rest)-bracket-1 && rest[bracket+1+digits] >= '0' && rest[bracket+1+digits] <= '9' {
		digits++
	}
	behind, found := bytes.CutPrefix(rest[bracket+1+digits:], []byte("]: "))
	if digits == 0 || !found || bytes.Count(tag, []byte(" ")) != 1 || len(tag)+digits > maxText {
		return l, false
	}
	l.process, l.text = rest[:bracket+1+digits], behind
	return l, true
}

// when reads the time of a line. Where it has no year, that is the latest year
// that does not make it later than a day from now.
func when(stamp []byte, now time.Time) time.Time {
	text := string(stamp)
	if stamp[0] < 'A' { // with a zone as RFC 3339 has it, or as journalctl prints it
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t, _ = time.Parse("2006-01-02T15:04:05Z0700", text)
		}
		return t
	}
	for year := now.Year(); year > now.Year()-8; year-- { // 29 February is not in each
		t, err := time.ParseInLocation("2006 Jan _2 15:04:05", time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Format("2006 ")+text, now.Location())
		if err == nil && t.Before(now.AddDate(0, 0, 1)) {
			return t
		}
	}
	return time.Time{}
}

// delivery is the end of one try to deliver a message to one recipient.
type delivery struct {
	queueID, recipient, relay, status, reason []byte
}

// queueID cuts the queue id off a text, "ADB142F7: " or a long one.
func queueID(text []byte) (id, rest []byte, ok bool) {
	n := 0
	for n < len(text) && (text[n] >= '0' && text[n] <= '9' || text[n]|0x20 >= 'a' && text[n]|0x20 <= 'z') {
		n++
	}
	rest, ok = bytes.CutPrefix(text[n:], []byte(": "))
	return text[:n], rest, ok && n >= minQueueID && n <= maxQueueID
}

// A queue id is the time and an inode number: six characters at least, and fewer
// than twenty where they are long.
const minQueueID, maxQueueID = 6, 32

func parseDelivery(text []byte) (d delivery, ok bool) {
	id, rest, ok := queueID(text)
	if !ok {
		return d, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte("to=<")); !ok {
		return d, false
	}
	// The recipient may contain anything, so the next field is what ends it.
	to, rest, ok := bytes.Cut(rest, []byte(">, "))
	if !ok {
		return d, false
	}
	_, rest, ok = bytes.Cut(rest, []byte("relay="))
	if !ok {
		return d, false
	}
	relay, rest, ok := bytes.Cut(rest, []byte(", "))
	if !ok {
		return d, false
	}
	_, rest, ok = bytes.Cut(rest, []byte(", status="))
	if !ok {
		return d, false
	}
	status, reason, _ := bytes.Cut(rest, []byte(" ("))
	return delivery{id, to, relay, status, bytes.TrimSuffix(reason, []byte(")"))}, true
}
