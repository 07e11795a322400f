package e2e

// doctorPlaces says of every code of cmd/tlspolicyd/internal/audit/doctor/codes.go whether the
// end-to-end tests provoke it on a real host and make it go away again. "" is
// yes; anything else is why they cannot.
func doctorPlaces() map[string]string {
	const systemd = "needs systemd as the first process: packaging/test.sh boots one, and has them there"
	places := map[string]string{
		"clock-wrong":   "the clock is that of the whole machine, and no namespace has another",
		"unit-absent":   systemd,
		"unit-active":   systemd,
		"unit-inactive": systemd,
		"unit-disabled": systemd,
	}
	for _, code := range []string{
		"postfix-absent", "postfix-unread", "postfix-version", "postfix-too-old", "postfix-instances",
		"dnssec-on", "dnssec-off", "host-lookup-without-dns",
		"tls-level", "tls-level-none", "tls-level-strict", "insecure-mx-policy",
		"map-present", "map-absent", "map-name-unknown", "map-tlsrpt-too-new", "map-tlsrpt-missing", "map-unreachable",
		"map-shadowed", "map-behind-other", "map-before-other", "map-proxy-refused",
		"map-nested", "map-file-missing", "service-without-map",
		"sts-patterns-off", "tlsrpt-on", "tlsrpt-no-socket",
		"socket-answers", "socket-missing", "socket-no-socket", "socket-denied", "socket-silent", "socket-foreign",
		"socket-slow", "socket-untold",
		"network-down", "resolver-validates", "resolver-silent", "resolver-fails", "resolver-not-validating",
		"resolver-believes-broken", "resolver-untold", "resolver-untrusted", "resolver-differs",
		"resolv-conf-unread", "chroot-resolv-conf", "trust-ad-missing",
		"database-good", "database-absent", "database-untold", "database-damaged", "database-newer", "database-fails",
		"database-owner", "database-mode", "disk-room", "disk-low", "disk-full",
		"clock-right", "clock-unsynchronised", "clock-untold",
		"trust-store", "trust-store-empty",
		"postfix-ca", "postfix-ca-none", "postfix-ca-missing", "postfix-ca-chroot", "postfix-ca-differs",
		"daemon-runs", "daemon-down", "daemon-untold", "daemon-other-version",
		"systemd-absent", "unit-untold",
	} {
		places[code] = ""
	}
	return places
}
