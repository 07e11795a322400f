package e2e

// doctorPlaces says of every code of docs/doctor.md whether the
// end-to-end tests provoke it on a real host and make it go away again. "" is
// yes; anything else is why they cannot.
func doctorPlaces() map[string]string {
	const systemd = "needs systemd as the first process: packaging/test.sh boots one, and has them there"
	places := map[string]string{
		"clock-wrong":             "the clock is that of the whole machine, and no namespace has another",
		"unit-missing":            systemd,
		"unit-ok":                 systemd,
		"unit-inactive":           systemd,
		"unit-disabled":           systemd,
		"unit-restarting":         systemd,
		"config-unreadable":       systemd,
		"tlsrpt-socket-denied":    "needs systemd, whose unit names the daemon's user: the tests of doctor have the socket",
		"resolver-nxdomain-wrong": "no server here can be made to fail for what does not exist: the tests of doctor have one",
	}
	for _, code := range []string{
		"share-ok", "share-file-unreadable", "share-unreachable", "share-denied", "share-not-writable", "share-not-encrypted",
		"share-clock-differs", "share-inconclusive",
	} {
		places[code] = "needs Valkey or Redis: TestFleet has the first ones, the tests of doctor the others"
	}
	for _, code := range []string{
		"config-ok", "config-invalid", "config-inconclusive",
		"postfix-absent", "postfix-unreadable", "postfix-version-ok", "postfix-version-old", "postfix-other-instances",
		"postfix-dnssec-on", "postfix-dnssec-off", "postfix-dns-off",
		"postfix-level-ok", "postfix-level-none", "postfix-level-strict", "postfix-insecure-mx-policy", "postfix-level-differs",
		"map-ok", "map-missing", "map-name-unknown", "map-tlsrpt-unsupported", "map-tlsrpt-unused", "map-unreachable",
		"map-shadowed", "map-after-other", "map-before-other", "map-proxy-refused",
		"map-malformed", "map-missing-in-service", "postfix-sts-patterns-off",
		"socket-ok", "socket-missing", "socket-not-a-socket", "socket-denied", "socket-no-answer", "socket-other-program",
		"socket-slow", "socket-inconclusive",
		"tlsrpt-socket-ok", "tlsrpt-socket-unused", "tlsrpt-socket-missing", "tlsrpt-socket-inconclusive",
		"network-down", "resolver-ok", "resolver-no-answer", "resolver-failed", "resolver-not-validating",
		"resolver-accepts-bogus", "resolver-inconclusive", "resolver-untrusted", "resolver-differs",
		"resolv-conf-unreadable", "chroot-resolv-conf-stale", "dns-isolated", "resolver-forwarder",
		"database-ok", "database-missing", "database-inconclusive", "database-damaged", "database-newer", "database-failed",
		"database-owner", "database-mode", "disk-ok", "disk-low", "disk-full",
		"clock-ok", "clock-unsynchronized", "clock-inconclusive",
		"trust-store-ok", "trust-store-empty",
		"postfix-ca-ok", "postfix-ca-none", "postfix-ca-missing", "postfix-ca-chroot", "postfix-ca-differs",
		"daemon-ok", "daemon-down", "daemon-inconclusive", "daemon-other-version",
		"systemd-absent", "unit-inconclusive",
	} {
		places[code] = ""
	}
	return places
}
