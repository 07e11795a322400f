package smtpprobe

import (
	"bufio"
	"errors"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	for _, test := range []struct {
		situation, in string
		code          int
		text          string // lines joined by "|"
		fault         string
	}{
		{"one line", "220 mx.test ESMTP\r\n", 220, "mx.test ESMTP", ""},
		{"several lines", "250-mx.test\r\n250-SIZE 1\r\n250 STARTTLS\r\n", 250, "mx.test|SIZE 1|STARTTLS", ""},
		{"a bare line feed", "250-a\n250 b\n", 250, "a|b", ""},
		{"no text (5321 §4.2)", "250\r\n", 250, "", ""},
		{"no code", "hello\r\n", 0, "", `not an SMTP reply: "hello"`},
		{"another protocol", "HTTP/1.1 400 Bad Request\r\n", 0, "", "not an SMTP reply"},
		{"a code out of range", "199 x\r\n", 0, "", "not an SMTP reply"},
		{"no separator", "250x\r\n", 0, "", "not an SMTP reply"},
		{"codes that differ", "250-a\r\n550 b\r\n", 250, "a", "code 550 after 250"},
		{"a line without end", "220 " + strings.Repeat("x", 64<<10), 0, "", "a line of more than 2048 bytes"},
		{"lines without end", strings.Repeat("220-x\r\n", 10000), 220, "", "more than 16384 bytes"},
		{"control bytes", "554 \x1b[2J\r\n", 554, "\x1b[2J", ""},
		{"cut off", "220-a\r\n22", 220, "a", "EOF"},
	} {
		t.Run(test.situation, func(t *testing.T) {
			got, err := readReply(bufio.NewReaderSize(strings.NewReader(test.in), maxLine))
			if test.fault != "" {
				if err == nil || !strings.Contains(err.Error(), test.fault) {
					t.Errorf("%+v, %v, want %q", got, err, test.fault)
				}
				return
			}
			if err != nil || got.code != test.code || strings.Join(got.lines, "|") != test.text {
				t.Errorf("%+v, %v", got, err)
			}
			if s := got.String(); strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not printable: %q", s)
			}
		})
	}
}

// FuzzReadReply: whatever comes, the reader ends, holds no more than its bounds
// and tells only what can be printed.
func FuzzReadReply(f *testing.F) {
	f.Add("220 mx.test ESMTP\r\n250-a\r\n250 STARTTLS\r\n")
	f.Add("220-\x00\x1b[2J\n220 \xff\n")
	f.Add(strings.Repeat("250-x\r\n", 20))
	f.Fuzz(func(t *testing.T, in string) {
		r := bufio.NewReaderSize(strings.NewReader(in), maxLine)
		for {
			got, err := readReply(r)
			if err != nil {
				if errors.Is(err, errNoReply) && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("not printable: %q", err)
				}
				return
			}
			size := 0
			for _, l := range got.lines {
				size += len(l)
			}
			if size > maxReply || got.code < 200 || got.code > 599 || len(got.lines) == 0 {
				t.Fatalf("%d bytes, %d lines, code %d", size, len(got.lines), got.code)
			}
			if s := got.String(); len(s) > maxText+10 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("not printable: %q", s)
			}
		}
	})
}
