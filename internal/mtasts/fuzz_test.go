package mtasts

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte("v=STSv1; id=20160831085700Z;"), []byte("v=spf1 -all"))
	f.Add([]byte("v=STSv1 ;id=a; x=y"), []byte("v=STSv1; id=b"))
	f.Add([]byte("v=STSv1;;\t=\x00"), []byte(""))
	id := regexp.MustCompile(`^[A-Za-z0-9]{1,32}$`)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		rec, err := ParseRecord([][]byte{a, b})
		if err != nil {
			checkLine(t, err.Error())
			return
		}
		if !id.MatchString(rec.ID) {
			t.Errorf("id %q", rec.ID)
		}
		// The order in which a resolver hands records out does not matter.
		if again, err := ParseRecord([][]byte{b, a}); err != nil || again != rec {
			t.Errorf("the other way round: %+v, %v", again, err)
		}
		if twice, err := ParseRecord([][]byte{a, b, a, b}); err == nil {
			t.Errorf("two records make one: %+v", twice)
		}
	})
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte("version: STSv1\nmode: enforce\nmx: mail.example.test\nmx: *.Example.test\nmax_age: 604800\n"))
	f.Add([]byte("max_age:1\r\nmode:\tnone \r\nversion: STSv1\r\nx: {y} z\r\n\r\n"))
	f.Add([]byte("version: STSv1\nmode: testing\nmx: a\x00\nmax_age: 99999999999"))
	f.Add([]byte("\xef\xbb\xbfversion: STSv1\n\nmx: b\u00fccher.test"))
	pattern := regexp.MustCompile(`^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*$`)
	f.Fuzz(func(t *testing.T, file []byte) {
		p, err := ParsePolicy(file)
		if err != nil {
			checkLine(t, err.Error())
			return
		}
		switch {
		case p.Mode != Enforce && p.Mode != Testing && p.Mode != None:
			t.Errorf("mode %q", p.Mode)
		case p.Mode != None && len(p.MX) == 0:
			t.Errorf("mode %s without mx", p.Mode)
		case p.MaxAge < 0 || p.MaxAge > MaxMaxAge:
			t.Errorf("max_age %v", p.MaxAge)
		case len(p.Lines) != 3+len(p.MX):
			t.Errorf("%d lines beside %d mx", len(p.Lines), len(p.MX))
		}
		for _, mx := range p.MX {
			if !pattern.MatchString(mx) {
				t.Errorf("mx %q", mx)
			}
			if !MatchMX(mx, strings.Replace(mx, "*", "host", 1)) {
				t.Errorf("mx %q does not match its own kind", mx)
			}
		}
		for _, line := range p.Lines {
			for i := range len(line) {
				if line[i] < ' ' || line[i] > '~' {
					t.Errorf("byte 0x%02x in line %q", line[i], line)
				}
			}
		}
		again, err := ParsePolicy([]byte(strings.Join(p.Lines, "\r\n")))
		if err != nil {
			t.Fatalf("lines do not parse: %v", err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Errorf("lines parse to another policy:\n%s", diff)
		}
		// The line end says nothing.
		unix := bytes.ReplaceAll(file, []byte("\r\n"), []byte("\n"))
		if again, err := ParsePolicy(unix); err != nil || !cmp.Equal(p, again) {
			t.Errorf("with LF alone: %+v, %v", again, err)
		}
	})
}
