package policy

import (
	"strings"
	"testing"
)

// §2: the forms of keys.
func TestNextHopForms(t *testing.T) {
	hop := func(domain string, literal bool, port uint16) NextHop { return NextHop{domain, literal, port} }
	for key, want := range map[string]NextHop{
		"example.test":                      hop("example.test", false, 25),
		"EXAMPLE.Test.":                     hop("example.test", false, 25),
		"example.test:25":                   hop("example.test", false, 25),
		"example.test:587":                  hop("example.test", false, 587),
		"example.test:submission":           hop("example.test", false, 587),
		"example.test:smtp":                 hop("example.test", false, 25),
		"example.test:LMTP":                 hop("example.test", false, 24), // Debian's /etc/services lacks it
		"[mail.example.test]":               hop("mail.example.test", true, 25),
		"[Mail.Example.TEST.]:587":          hop("mail.example.test", true, 587),
		"bücher.test":                       hop("xn--bcher-kva.test", false, 25),
		"BÜCHER.test:587":                   hop("xn--bcher-kva.test", false, 587),
		"straße.test":                       hop("xn--strae-oqa.test", false, 25), // non-transitional: not "strasse"
		"[bücher.test]":                     hop("xn--bcher-kva.test", true, 25),
		"xn--bcher-kva.test":                hop("xn--bcher-kva.test", false, 25),
		"mailhost":                          hop("mailhost", false, 25),
		"my_dom.test":                       hop("my_dom.test", false, 25), // Postfix takes it
		"[mail_relay.test]":                 hop("mail_relay.test", true, 25),
		"3com.test":                         hop("3com.test", false, 25),
		"1.2.3.test":                        hop("1.2.3.test", false, 25),
		strings.Repeat("a.", 124) + "test1": hop(strings.Repeat("a.", 124)+"test1", false, 25),
	} {
		if got, ok := ParseNextHop(key); !ok || got != want {
			t.Errorf("%q: got %+v %v, want %+v", key, got, ok, want)
		}
		if again, ok := ParseNextHop(want.String()); !ok || again != want {
			t.Errorf("%q: canonical form %q parses to %+v %v", key, want.String(), again, ok)
		}
	}
}

// §2: a container may be without /etc/services.
func TestMailServicesWithoutTheSystem(t *testing.T) {
	for service, want := range map[string]uint16{
		"lmtp": 24, "smtp": 25, "smtps": 465, "submissions": 465, "submission": 587, "Submission": 587,
		"http": 0, "": 0, "nosuchservice": 0,
	} {
		if port, ok := mailPort(service); port != want || ok != (want != 0) {
			t.Errorf("%q: got %d %v, want %d", service, port, ok, want)
		}
	}
}

// §2: keys about which nothing can be known.
func TestNextHopNothingToKnow(t *testing.T) {
	for _, key := range []string{
		"", ".", ".example.test", "192.0.2.1", "192.0.2.1:25", "[192.0.2.1]", "[192.0.2.1]:587",
		"[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]:25", "[2001:db8::1]", "2001:db8::1", "::1", "[::ffff:192.0.2.1]",
		"/var/spool/lmtp", "unix:/var/run/lmtp", "example.test:nosuchservice", "example.test:", "example.test:0",
		"example.test:65536", "example.test:+25", "example.test:25:26", "[example.test", "example.test]", "[]", "[]:25", "[example.test]25",
		"exa mple.test", "example..test", "-example.test", "example-.test", "exam\x00ple.test",
		"example.test\n", "256.1.1.1", "1.2.3.4.5", "0x7f.1", "example.0x10", "example.123", "\xff\xfe.test", "a\u0300\u200d.test",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 125) + "test1", strings.Repeat("ü", 2000),
	} {
		if got, ok := ParseNextHop(key); ok {
			t.Errorf("%.40q: got %+v, want nothing", key, got)
		}
	}
}

// §5: overrides are matched against the host without brackets and port; the
// longest match wins; ".parent" covers children only.
func TestOverrideMatch(t *testing.T) {
	o := Overrides{
		"broken.test": {Policy: "skip"}, ".partner.test": {Policy: "secure"}, "ok.partner.test": {Policy: "lookup"},
		".deep.partner.test": {Policy: "encrypt"}, "partner.test": {Policy: "may"},
	}
	for host, want := range map[string]string{
		"broken.test": "skip", "x.broken.test": "", "partner.test": "may", "a.partner.test": "secure",
		"ok.partner.test": "lookup", "x.ok.partner.test": "secure", "x.deep.partner.test": "encrypt",
		"deep.partner.test": "secure", "test": "", "notpartner.test": "",
	} {
		if got, _ := o.Find(host); got.Policy != want {
			t.Errorf("%s: got %+v, want %q", host, got, want)
		}
	}
}
