package share

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

const file = "version: STSv1\nmode: enforce\nmx: mx.example.test\nmax_age: 604800\n"

func TestKeys(t *testing.T) {
	keys, err := ParseKeys([]byte("\r\nthe first key of some length\r\n\n  the second key of some length \n"))
	if err != nil || len(keys) != 2 || string(keys[1]) != "the second key of some length" {
		t.Errorf("%q, %v", keys, err)
	}
	for _, text := range []string{"", "\n\n", "short\n", "a key that is long enough\nshort\n"} {
		if _, err := ParseKeys([]byte(text)); err == nil || strings.Contains(err.Error(), "short") {
			t.Errorf("%q: %v", text, err)
		}
	}
	// A key is replaced host by host: all verify with both, then all sign with the new one.
	now := time.Now()
	e := keys[1:].Seal("example.test", Policy{File: []byte(file)}, now, 1)
	if _, err := keys.Open("example.test", e, now); err != nil {
		t.Error(err)
	}
	if _, err := keys[:1].Open("example.test", e, now); err == nil {
		t.Error("another key is believed")
	}
}

// Every part of an entry is signed, and so is where each one ends.
func TestEveryPartIsSigned(t *testing.T) {
	keys, now := Keys{[]byte("a key of this fleet alone")}, time.Now()
	sealed := keys.Seal("example.test", Policy{File: []byte(file), ID: "12", Host: "3.test"}, now, 7)
	if p, err := keys.Open("example.test", sealed, now.Add(time.Hour)); err != nil || p.Age < time.Hour || p.ID != "12" || p.Host != "3.test" {
		t.Fatal(p, err)
	}
	for name, change := range map[string]func(e *Entry){
		"file":  func(e *Entry) { e.File = bytes.Replace(e.File, []byte("604800"), []byte("604801"), 1) },
		"id":    func(e *Entry) { e.ID = "13" },
		"ends":  func(e *Entry) { e.ID, e.Host = "123", ".test" },
		"time":  func(e *Entry) { e.Time-- },
		"fence": func(e *Entry) { e.Fence++ },
		"host":  func(e *Entry) { e.Host = "4.test" },
		"none":  func(e *Entry) { e.MAC = nil },
	} {
		e := sealed
		change(&e)
		if _, err := keys.Open("example.test", e, now); err == nil {
			t.Errorf("%s can be changed", name)
		}
	}
	if _, err := keys.Open("other.test", sealed, now); err == nil {
		t.Error("the domain can be changed")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add("example.test", int64(1), []byte(file), "1", int64(1700000000000), int64(5), "a.test", []byte("x"), true)
	f.Fuzz(func(t *testing.T, domain string, format int64, text []byte, id string, at, fence int64, host string, mac []byte, sign bool) {
		now := time.UnixMilli(1700000000000)
		keys := Keys{[]byte("a key of this fleet alone")}
		e := Entry{Format: format, File: text, ID: id, Time: at, Fence: fence, Host: host, MAC: mac}
		if _, err := keys.Open(domain, e, now); err == nil {
			t.Fatal("a forged entry is believed")
		}
		if sign {
			e = keys.Seal(domain, Policy{File: text, ID: id, Host: host}, time.UnixMilli(at), fence)
		}
		p, err := Keys(nil).Open(domain, e, now)
		if err != nil {
			if !errors.Is(err, ErrNone) && strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("a reason of several lines: %q", err)
			}
			return
		}
		if p.Age < 0 || len(p.File) > 64<<10 || len(p.ID) > MaxID || len(p.Host) > MaxHost || strings.ContainsAny(p.Host+p.ID, "\n\x1b") {
			t.Errorf("%+v", p)
		}
	})
}
