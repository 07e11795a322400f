//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Domains for rows of BEHAVIOUR §5 that need two mail hosts, or two address
// families, with different evidence. They have a zone of their own because one
// test changes it and signs it again.

const (
	// silentServer is where Unbound asks for one TLSA record. It never answers.
	silentServer = "127.0.0.58"

	rowsData = `  local-zone: "mx1.dual.rows.test." typetransparent
  local-data: "mx1.dual.rows.test. AAAA 64:ff9b::7f00:104"
  local-zone: "mx1.dualsts.rows.test." typetransparent
  local-data: "mx1.dualsts.rows.test. AAAA 64:ff9b::7f00:104"`
	rowsForwards = `
forward-zone:
  name: "_25._tcp.mx2.strict.rows.test."
  forward-addr: ` + silentServer + `
forward-zone:
  name: "_25._tcp.mx2.stricttls.rows.test."
  forward-addr: ` + silentServer + "\n"

	// More ways of delivery for both senders.
	rowsTransports = `encrypt@strict.rows.test=encrypt:, encrypt@stricttls.rows.test=encrypt:,` +
		` map@onefails.rows.test=oldmap:, map@onedown.rows.test=oldmap:, b@rolling.rows.test=oldmap:,` +
		` dual.rows.test=dual:, dualsts.rows.test=dual:, v6@dual.rows.test=dual6:, `
	rowsServices = `
encrypt unix - - y - - smtp
  -o smtp_tls_security_level=encrypt
  -o smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/strict.sock:postfix
oldmap unix - - y - - smtp
  -o smtp_tls_policy_maps=socketmap:unix:run/tlspolicyd/socketmap.sock:postfix
dual unix - - y - - smtp
  -o inet_protocols=all
  -o smtp_address_preference=ipv4
dual6 unix - - y - - smtp
  -o inet_protocols=all
  -o smtp_address_preference=ipv6
`
	// SMTP has no use for usage 1 (RFC 7672 §3.1.3).
	tlsaUnusable = "1 1 1 00000000000000000000000000000000000000000000000000000000000000cc"
)

// rowsHost is what DNS has for a mail host, and which listener it is.
type rowsHost struct{ address, tlsa string }

// rowsDomains are the domains with their mail hosts mx1, mx2 by preference.
func rowsDomains(good, dane keyPair) map[string][]rowsHost {
	return map[string][]rowsHost{
		"unusable":      {{goodHost, tlsaUnusable}, {goodHost, tlsaUnusable}},
		"unusablebad":   {{mismatchHost, tlsaUnusable}, {mismatchHost, tlsaUnusable}},
		"unusableone":   {{goodHost, tlsaUnusable}, {goodHost, ""}},
		"unusableonly":  {{daneHost, tlsaUnusable}, {daneHost, tlsaUnusable}},
		"unusableplain": {{plainHost, tlsaUnusable}, {plainHost, tlsaUnusable}},
		"rolling":       {{daneHost, dane.tlsa()}, {goodHost, good.tlsa()}},
		"onefails":      {{goodHost, ""}, {secondHost, tlsaSigned}},
		"onedown":       {{downHost, ""}, {secondHost, tlsaSigned}},
		"seconddown":    {{mismatchHost, ""}, {downHost, ""}},
		"oneshared":     {{downHost, ""}, {goodHost, tlsaSigned}},
		"strict":        {{plainHost, ""}, {plainHost, dane.tlsa()}}, // the server of this one is silent
		"stricttls":     {{goodHost, ""}, {plainHost, dane.tlsa()}},
		"dual":          {{daneHost, dane.tlsa()}},
		"dualsts":       {{daneHost, dane.tlsa()}},
	}
}

// rowsEnforced are those of the domains that have a policy in mode enforce. It
// names all their hosts.
func rowsEnforced() []string {
	return []string{"unusable", "unusablebad", "unusableone", "onefails", "onedown", "seconddown", "oneshared", "dualsts"}
}

func rowsZone(good, dane keyPair) testZone {
	return rowsZoneOf(rowsDomains(good, dane))
}

func rowsZoneOf(domains map[string][]rowsHost) testZone {
	z := testZone{
		origin: "rows.test", signing: signed,
		// A TLSA record with tlsaSigned is SERVFAIL.
		tamper: [2]string{tlsaSigned[len("3 1 1 "):], tlsaForged},
	}
	for name, hosts := range domains {
		for i, host := range hosts {
			mx := fmt.Sprintf("mx%d.%s", i+1, name)
			z.records += fmt.Sprintf("%s MX %d %s\n%s A %s\n", name, 10*(i+1), mx, mx, host.address)
			if host.tlsa != "" {
				z.records += "_25._tcp." + mx + " TLSA " + host.tlsa + "\n"
			}
		}
	}
	for _, name := range rowsEnforced() {
		z.records += "_mta-sts." + name + " TXT \"v=STSv1; id=1;\"\nmta-sts." + name + " A " + policyHost + "\n"
	}
	return z
}

func rowsPolicies() (all []policy) {
	for _, name := range rowsEnforced() {
		domain := name + ".rows.test"
		mx := []string{"mx1." + domain, "mx2." + domain}
		if name == "dualsts" {
			mx = mx[:1]
		}
		all = append(all, enforced(domain, mx...))
	}
	return all
}

func rowsGoodNames() (names []string) {
	for name := range rowsDomains(keyPair{}, keyPair{}) {
		names = append(names, "mx1."+name+".rows.test")
	}
	return append(names, "mx2.unusable.rows.test", "mx2.unusableone.rows.test", "mx2.oneshared.rows.test")
}

func rowsSecondNames() []string {
	return []string{"mx2.onefails.rows.test", "mx2.onedown.rows.test"}
}

// testRows: what Postfix makes of the answer where the mail hosts of a domain
// differ (BEHAVIOUR §5).
func testRows(t *testing.T, w *world) {
	askStrict := w.startStrict(t)
	both := []*sender{w.postfix37, w.postfix310}
	for _, s := range both {
		s.addTransports(t, rowsTransports, rowsServices)
	}
	// wantAnswer checks what the daemon answers now.
	wantAnswer := func(t *testing.T, name, want string) {
		t.Helper()
		got := w.postfix37.query(t, w.daemon.table("postfix"), name+".rows.test")
		if got != (reply{value: want, found: true}) {
			t.Fatalf("%s: got %+v, want %s", name, got, want)
		}
	}
	match := func(name string, hosts ...string) string {
		for i, host := range hosts {
			hosts[i] = host + "." + name + ".rows.test"
		}
		return "secure match=" + strings.Join(hosts, ":") + " servername=hostname"
	}

	t.Run("no usable TLSA record, policy", func(t *testing.T) {
		for _, name := range []string{"unusable", "unusableone"} {
			wantAnswer(t, name, match(name, "mx1", "mx2"))
			for _, s := range both {
				wantDelivered(t, s.send(t, "a@"+name+".rows.test"), "mx1."+name+".rows.test", "good", "Verified")
			}
		}
		wantAnswer(t, "unusablebad", match("unusablebad", "mx1", "mx2"))
		for _, s := range both {
			wantDeferred(t, s.send(t, "a@unusablebad.rows.test"), "4.7.5", "Server certificate not verified")
		}
	})
	t.Run("no usable TLSA record, no policy", func(t *testing.T) {
		wantAnswer(t, "unusableonly", "dane")
		wantAnswer(t, "unusableplain", "dane")
		for _, s := range both {
			wantDelivered(t, s.send(t, "a@unusableonly.rows.test"), "mx1.unusableonly.rows.test", "dane", "Untrusted")
			wantDeferred(t, s.send(t, "a@unusableplain.rows.test"), "4.7.4", "TLS is required, but was not offered")
		}
	})
	t.Run("TLSA of one host fails, policy", func(t *testing.T) {
		wantAnswer(t, "onefails", match("onefails", "mx1"))
		for _, s := range both {
			for _, user := range []string{"a", "map"} {
				wantDelivered(t, s.send(t, user+"@onefails.rows.test"), "mx1.onefails.rows.test", "good", "Verified")
			}
		}
	})
	t.Run("TLSA of one host fails, the other is down, policy", func(t *testing.T) {
		wantAnswer(t, "onedown", match("onedown", "mx1"))
		const pattern = "does not match STS MX pattern"
		wantNotSent(t, w.postfix37.send(t, "a@onedown.rows.test"), "Server certificate not verified")
		wantNotSent(t, w.postfix310.send(t, "map@onedown.rows.test"), "Server certificate not verified")
		wantNotSent(t, w.postfix310.send(t, "a@onedown.rows.test"), pattern)
		// Where mx2 has a certificate that names mx1 too, only the pattern holds
		// the message back.
		wantNotSent(t, w.postfix310.send(t, "a@oneshared.rows.test"), pattern)
	})
	t.Run("one host with insecure addresses beside secure ones", func(t *testing.T) {
		for _, name := range []string{"dual", "dualsts"} {
			wantAnswer(t, name, "dane")
			for _, s := range both {
				wantDelivered(t, s.send(t, "a@"+name+".rows.test"), "mx1."+name+".rows.test", "dane", "Verified")
			}
		}
		// Postfix evaluates DANE for the address that it tries first, and keeps
		// the result for the other addresses of the host.
		for _, s := range both {
			o := s.send(t, "v6@dual.rows.test")
			wantDelivered(t, o, "mx1.dual.rows.test", "dane", "Untrusted")
			if !strings.Contains(o.log, "[64:ff9b::7f00:104]:25") {
				t.Errorf("Postfix has not tried the insecure address:\n%s", o.log)
			}
		}
	})
	t.Run("TLSA of one host is not answered, Postfix encrypts anyway", func(t *testing.T) {
		for name, got := range askStrict(t) {
			if got != (reply{}) {
				t.Errorf("%s with postfix_level = encrypt: got %+v, want NOTFOUND", name, got)
			}
		}
		wantAnswer(t, "strict", "dane")
		for _, s := range both {
			wantDeferred(t, s.send(t, "encrypt@strict.rows.test"), "4.7.4", "TLS is required, but was not offered")
			wantDelivered(t, s.send(t, "encrypt@stricttls.rows.test"), "mx1.stricttls.rows.test", "good", "Trusted")
		}
	})
	t.Run("TLSA records of one host go, those of the other fail", func(t *testing.T) {
		testRolling(t, w, wantAnswer)
	})
}

// addTransports gives a Postfix more ways to send until the end of the test.
func (s *sender) addTransports(t *testing.T, transports, services string) {
	t.Helper()
	reload := func() {
		if _, _, err := s.run("postfix", "reload"); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(reload)
	const maps = "transport_maps = inline:{ "
	for name, edit := range map[string]func(string) string{
		"main.cf":   func(text string) string { return strings.Replace(text, maps, maps+transports, 1) },
		"master.cf": func(text string) string { return text + services },
	} {
		path := s.config() + "/" + name
		text, err := os.ReadFile(path)
		if err == nil {
			err = write(path, edit(string(text)))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := write(path, string(text)); err != nil {
				t.Error(err)
			}
		})
	}
	reload()
}

// testRolling takes the TLSA records of a host with DANE away, as its operator
// may, while those of the other host have a broken signature.
func testRolling(t *testing.T, w *world, wantAnswer func(t *testing.T, name, want string)) {
	wantAnswer(t, "rolling", "dane-only")
	for _, s := range []*sender{w.postfix37, w.postfix310} {
		wantDelivered(t, s.send(t, "a@rolling.rows.test"), "mx1.rolling.rows.test", "dane", "Verified")
	}
	domains := rowsDomains(w.mailHosts["good"], w.mailHosts["dane"])
	t.Cleanup(func() {
		if err := w.names.republish(rowsZoneOf(rowsDomains(w.mailHosts["good"], w.mailHosts["dane"]))); err != nil {
			t.Error(err)
		}
	})
	domains["rolling"] = []rowsHost{{daneHost, ""}, {goodHost, tlsaSigned}}
	if err := w.names.republish(rowsZoneOf(domains)); err != nil {
		t.Fatal(err)
	}
	// It exits with 3, because one lookup fails.
	_, _, _ = command("", w.daemon.binary, "cache", "refresh", "rolling.rows.test", "--config", daemonDir+"/tlspolicyd.toml")
	wantAnswer(t, "rolling", "dane")
	// By another smtp(8) process: the one from above has the records cached.
	for _, s := range []*sender{w.postfix37, w.postfix310} {
		wantDelivered(t, s.send(t, "b@rolling.rows.test"), "mx1.rolling.rows.test", "dane", "Untrusted")
	}
}

// startStrict runs a second daemon, with policy.postfix_level = "encrypt", and
// asks it and the first one at once for the domains with a TLSA record that is
// never answered: that takes a lookup's full time. It returns what the second
// one answered.
func (w *world) startStrict(t *testing.T) (answers func(t *testing.T) map[string]reply) {
	t.Helper()
	silent, err := net.ListenPacket("udp4", silentServer+":53")
	if err != nil {
		t.Fatal(err)
	}
	config := variant(t, "strict", "socketmap.sock", "strict.sock", "admin.sock", "strict-admin.sock",
		"policies.db", "strict.db", "[log]", "[policy]\npostfix_level = \"encrypt\"\n[log]")
	proc, err := start("", nobody, w.daemon.binary, "serve", "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(silent.Close(), proc.stop(syscall.SIGTERM)); err != nil {
			t.Error(err)
		}
	})
	socket := daemonDir + "/strict.sock"
	mustWait(t, func() error {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	type answer struct {
		name string
		reply
		err error
	}
	got := make(chan answer, 4)
	names := []string{"strict", "stricttls"}
	for _, name := range names {
		for _, table := range []string{w.daemon.table("postfix"), "socketmap:unix:" + socket + ":postfix"} {
			go func() {
				r, err := w.postfix37.tryQuery(table, name+".rows.test")
				if strings.Contains(table, socket) || err != nil {
					got <- answer{name, r, err}
				}
			}()
		}
	}
	return func(t *testing.T) map[string]reply {
		t.Helper()
		replies := map[string]reply{}
		for len(replies) < len(names) {
			a := <-got
			if a.err != nil {
				t.Fatal(a.err)
			}
			replies[a.name] = a.reply
		}
		return replies
	}
}

// wantNotSent checks that a message was held back for a reason that is in the
// log, and that no listener has it.
func wantNotSent(t *testing.T, o outcome, reason string) {
	t.Helper()
	if o.status != "deferred" || !strings.Contains(o.log, reason) {
		t.Fatalf("status=%s (%s), want it deferred with %q in the log\n%s", o.status, o.text, reason, o.log)
	}
	if text, err := received(o.id); err == nil {
		t.Errorf("a deferred message was received:\n%s", text)
	}
}
