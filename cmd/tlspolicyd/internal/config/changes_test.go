package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChangesNamesEveryKeyThatDiffers(t *testing.T) {
	old, same := Default(), Default()
	if got := Changes(old, same); got != nil {
		t.Errorf("equal settings: %v", got)
	}
	for _, s := range old.settings() {
		new, err := Parse([]byte(s.key+" = "+otherValue(t, s)+"\n"), "test.toml")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{s.key}, Changes(old, new)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	new := Default()
	new.Override = map[string]string{"example.test": "skip"}
	new.DNS.Timeout = time.Second
	if d := cmp.Diff([]string{"dns.timeout", "override"}, Changes(old, new)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// otherValue is a value in TOML that is not the default.
func otherValue(t *testing.T, s setting) string {
	t.Helper()
	value, ok := map[string]string{
		"listen.socketmap": `["tcp:127.0.0.1:8461"]`, "listen.socket_mode": `"0600"`, "listen.socket_group": `"mail"`,
		"listen.admin": `""`, "listen.http": `"127.0.0.1:9461"`, "listen.http_hosts": `["mail.test"]`, "listen.max_connections": "7",
		"dns.servers": `["127.0.0.1"]`, "dns.trust_ad": "true", "dns.timeout": `"1s"`,
		"fetch.wait": `"1s"`, "fetch.timeout": `"9s"`, "fetch.ca_file": `"/ca.pem"`, "fetch.allow_networks": `["10.0.0.0/8"]`,
		"share.url": `"redis://valkey.test"`, "share.sentinel_master": `"mail"`, "share.cluster": "true", "share.username": `"mail"`,
		"share.password_file": `"/p"`, "share.key_file": `"/k"`, "share.ca_file": `"/ca"`, "share.cert_file": `"/c"`, "share.cert_key_file": `"/ck"`,
		"share.prefix": `"x"`, "share.timeout": `"1s"`, "share.verify_after": `"24h"`,
		"fetch.proxy": `"http://proxy.test:3128"`, "fetch.concurrency": "7",
		"cache.path": `"/elsewhere.db"`, "cache.max_entries": "7000", "cache.max_bytes": "70000000",
		"refresh.interval": `"7h"`, "refresh.unused_for": `"7h"`,
		"policy.insecure_mx": `"dane"`, "policy.partial": `"mta-sts"`, "policy.postfix_level": `"encrypt"`, "policy.testing": `"enforce"`,
		"policy.override_file": `["/etc/tlspolicyd/shared.toml"]`,
		"tlsrpt.socket":        `"/tlsrpt.sock"`,
		"log.level":            `"debug"`, "log.format": `"json"`,
	}[s.key]
	if !ok {
		t.Fatalf("no value for %s", s.key)
	}
	return value
}
