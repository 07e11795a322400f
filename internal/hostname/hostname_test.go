package hostname_test

import (
	"strings"
	"testing"

	"tlspolicyd/internal/hostname"
)

func TestParse(t *testing.T) {
	long := strings.Repeat("a.", 124) + "test1" // 253 characters
	for in, want := range map[string]string{
		"Mail.Example.TEST.": "mail.example.test",
		"bücher.test":        "xn--bcher-kva.test",
		"straße.test":        "xn--strae-oqa.test", // non-transitional: not "strasse"
		"my_dom.test":        "my_dom.test",
		"_25._tcp.mx.test":   "_25._tcp.mx.test",
		"1.2.3.test":         "1.2.3.test",
		"mailhost":           "mailhost",
		"0xmail":             "0xmail",
		long:                 long,
	} {
		if got, err := hostname.Parse(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                "want a host name",
		".":                               "want a host name",
		"a..test":                         "empty label",
		"a.test..":                        "want a host name without final dot",
		".a.test":                         "empty label",
		"192.0.2.1":                       "want a host name, not an address",
		"2001:db8::1":                     "want a host name, not an address",
		"1.2.3":                           "want a host name, not an address: the last label is a number",
		"mail.0x10":                       "want a host name, not an address: the last label is a number",
		"mail.0X":                         "want a host name, not an address: the last label is a number",
		"-a.test":                         "label begins or ends with a hyphen",
		"a-.test":                         "label begins or ends with a hyphen",
		"a b.test":                        "' ' is not allowed in a host name",
		"*.test":                          "'*' is not allowed in a host name",
		"a\x00.test":                      `'\x00' is not allowed in a host name`,
		"b\xfccher.test":                  "not UTF-8",
		"xn--ü.test":                      "not a valid international domain name",
		strings.Repeat("a", 64) + ".test": "label has 64 characters: want 63 at most",
		strings.Repeat("a.", 126) + "ab":  "host name has 254 characters: want 253 at most",
	} {
		if got, err := hostname.Parse(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}
