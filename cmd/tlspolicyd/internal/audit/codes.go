package audit

// Code is the registered meaning of a finding's code. Codes are stable: scripts
// rely on them. One has the same meaning in both audits.
type Code struct {
	Name    string
	Check   string // the grades that the audit of a mail domain gives it; "": none
	Doctor  string // the grades that the audit of a host gives it; "": none
	Meaning string
}

// Codes are all codes, in the order of docs/check.md and docs/doctor.md, which
// list them.
func Codes() []Code {
	return []Code{
		// check, topic this host.
		{"dns-down", "unknown", "", "this host gets no answer from DNS about anything, so nothing is known of any domain"},
		{"dns-isolated", "unknown", "unknown", "the resolver denies even the root of DNS, so it does not see the Internet"},
		{"outbound-blocked", "unknown", "", "DNS answers, but no connection to port 443 or port 25 of any host was possible"},
		{"port25-blocked", "unknown", "", "no mail host of any domain in this run accepted a connection to port 25, which looks blocked on the way out of this host: all are silent, or those of several domains, at different addresses, refuse"},
		{"ip-family-unreachable", "unknown", "", "one of IPv4 and IPv6 reached no mail host of any domain in this run, while the other worked"},
		{"proxy-failed", "unknown", "", "the HTTP proxy of the configuration did not connect to the policy host"},
		{"trust-store-empty", "unknown", "fail", "this host has no certificate authorities, so no certificate can be verified and no policy fetched"},

		// check, topic domain.
		{"mx-found", "ok", "", "there are mail hosts"},
		{"mx-null", "ok", "", "a null MX: the domain accepts no mail (RFC 7505)"},
		{"mx-null-mixed", "fail", "", "a null MX beside other MX records (RFC 7505 section 3): Postfix, among others, bounces all mail"},
		{"mx-implicit", "warn", "", "no MX record, so the domain itself is the mail host (RFC 5321 section 5.1)"},
		{"domain-missing", "fail", "", "the domain does not exist (NXDOMAIN)"},
		{"mail-host-missing", "fail", "", "neither an MX record nor an address"},
		{"dns-failed", "fail", "", "the resolver answers about other names but not about the domain"},
		{"dnssec-bogus", "fail", "", "the resolver reports that DNSSEC signatures of the domain are wrong"},
		{"dns-timeout", "unknown", "", "no answer about the domain in time, or a failure and no time left to ask about other names"},
		{"mx-alias", "warn", "", "an MX record names an alias (RFC 5321 section 5.1, RFC 2181 section 10.3)"},
		{"mx-address-missing", "fail, warn", "", "an MX record names a host without an address, or an address instead of a host; warn where another host has one"},
		{"mx-lookup-failed", "fail", "", "the lookup of a mail host's addresses failed"},
		{"mx-too-many", "warn", "", "more mail hosts or addresses than senders try"},

		// check, topic record.
		{"sts-record-ok", "ok", "", "exactly one MTA-STS record, and it is valid"},
		{"sts-record-missing", "warn", "", "no MTA-STS record"},
		{"sts-record-unrecognized", "fail", "", "TXT records at the name, but none that begins with v=STSv1;"},
		{"sts-record-multiple", "fail", "", "more than one MTA-STS record, so senders use none"},
		{"sts-record-invalid", "fail", "", "an MTA-STS record that does not match the grammar"},
		{"sts-record-extra-txt", "warn", "", "other TXT records beside the valid one"},
		{"sts-record-lookup-failed", "fail, unknown", "", "the lookup of the record failed"},

		// check, topic policy file.
		{"policy-fetched", "ok", "", "the policy file was fetched over HTTPS"},
		{"policy-slow", "warn", "", "the fetch took longer than many senders wait"},
		{"policy-certificate-expiring", "warn", "", "the certificate of the policy host expires within two weeks, or within a fifth of its life where that is shorter"},
		{"policy-host-missing", "fail", "", "mta-sts.DOMAIN has no address"},
		{"policy-host-lookup-failed", "fail", "", "the lookup of the policy host's addresses failed"},
		{"policy-host-not-public", "fail", "", "the policy host has only addresses that are not public"},
		{"policy-unreachable", "fail", "", "no TCP connection to the policy host"},
		{"policy-timeout", "fail", "", "the policy host did not answer in time"},
		{"policy-tls-failed", "fail", "", "no TLS session of version 1.2 or later with the policy host"},
		{"policy-certificate-invalid", "fail", "", "the certificate of the policy host is not valid: another name, expired, or no trusted authority"},
		{"policy-http-failed", "fail", "", "no complete HTTP response"},
		{"policy-redirect", "fail", "", "a redirect, which senders do not follow"},
		{"policy-http-status", "fail", "", "an HTTP status other than 200"},
		{"policy-media-type", "fail", "", "the media type is not text/plain"},
		{"policy-encoding", "fail", "", "the file is sent compressed although that was not requested"},
		{"policy-too-large", "fail", "", "the file is larger than senders read"},
		{"policy-line-ok", "ok", "", "a valid line, or how many more there are"},
		{"policy-line-suspicious", "warn", "", "a valid line that has no effect, or another effect than it seems"},
		{"policy-line-invalid", "fail", "", "a line that makes the whole policy invalid"},
		{"policy-line-missing", "fail", "", "a required line is missing"},

		// check, topic mx alignment.
		{"mx-in-policy", "ok", "", "an mx line of the policy matches the mail host"},
		{"mx-not-in-policy", "fail, warn", "", "no mx line of the policy matches the mail host, so senders do not deliver to it; warn in mode testing"},
		{"policy-mx-unused", "warn", "", "an mx line that matches no mail host"},

		// check, topic mail hosts.
		{"smtp-ok", "ok", "", "TLS, with a certificate that is valid for the host, or that its TLSA record names where nothing more is needed"},
		{"smtp-unreachable", "fail, warn", "", "a mail host refuses the connection, or does not answer while this host reached others in the same run; warn where another host works"},
		{"smtp-inconclusive", "unknown", "", "the session was not complete within --timeout, or no time was left to connect"},
		{"smtp-rejected", "unknown", "", "the host rejects the session with this host, for example because of a block list"},
		{"smtp-protocol-error", "fail", "", "what answers at port 25 is not an SMTP server"},
		{"starttls-missing", "fail", "", "the host does not offer STARTTLS"},
		{"starttls-refused", "fail", "", "the host offers STARTTLS and then refuses it"},
		{"smtp-tls-failed", "fail", "", "no TLS session after STARTTLS"},
		{"smtp-tls-version-old", "fail, warn", "", "TLS 1.0 or 1.1 (RFC 8996), which senders refuse under MTA-STS and DANE; warn where no policy applies"},
		{"mx-not-public", "fail", "", "an address of a mail host that is not public"},
		{"mx-certificate-expired", "fail, warn", "", "the certificate of a mail host has expired; this and the following are warn where no policy is enforced"},
		{"mx-certificate-not-yet-valid", "fail, warn", "", "the certificate of a mail host is not valid yet"},
		{"mx-certificate-name-mismatch", "fail, warn", "", "the certificate of a mail host is for other names; the subject alone does not count"},
		{"mx-certificate-untrusted", "fail, unknown, warn", "", "the certificate of a mail host is not signed by a trusted authority, is self-signed, or its intermediates are not sent"},
		{"mx-certificate-expiring", "warn", "", "the certificate of a mail host expires within two weeks, or within a fifth of its life where that is shorter"},

		// check, topic dane.
		{"dane-ok", "ok", "", "the host presents what its TLSA record names"},
		{"dane-absent", "ok", "", "no mail host has TLSA records"},
		{"dane-mismatch", "fail", "", "the host presents something else than its TLSA records name, so senders that use DANE defer"},
		{"dane-unusable", "fail", "", "TLSA records, but none that SMTP can use"},
		{"dane-partly-unusable", "warn", "", "a TLSA record that SMTP cannot use, beside others"},
		{"dane-empty-digest", "fail, warn", "", "a TLSA record is the digest of no data (3 1 1 e3b0c442...b855), which no certificate matches; warn where another record matches"},
		{"dane-partial", "warn", "", "some mail hosts have TLSA records and others have none"},
		{"dane-insecure-mx", "warn", "", "the hosts have TLSA records, but the MX answer is not signed"},
		{"dane-unsigned", "warn", "", "TLSA records in a zone that is not signed"},
		{"dane-lookup-failed", "fail, unknown", "", "the TLSA lookup failed, so senders defer"},
		{"dane-inconclusive", "unknown", "", "TLSA records, but the host presented no certificate to compare with them"},
		{"resolver-untrusted", "unknown", "warn", "the resolver is not on this host and dns.trust_ad is false, so its AD bits do not count and DANE is off (RFC 7672 section 2.1.3)"},

		// check, topic mode.
		{"policy-mode-enforce", "ok", "", "senders enforce the policy"},
		{"policy-mode-testing", "warn", "", "senders report failures but deliver"},
		{"policy-mode-none", "warn", "", "mode none, as in a removal (RFC 8461 section 8.3)"},
		{"policy-max-age-short", "warn", "", "a policy in mode enforce with a max_age under a week"},
		{"policy-unannounced", "fail", "", "a policy file without a record"},
		{"sts-record-without-policy", "fail", "", "a record without a policy file: a removal that was not announced, or a policy host that is down"},

		// check, topic tlsrpt.
		{"tlsrpt-ok", "ok", "", "one valid TLSRPT record"},
		{"tlsrpt-missing", "warn", "", "no TLSRPT record, so failures are not reported"},
		{"tlsrpt-multiple", "warn", "", "more than one TLSRPT record, so senders use none"},
		{"tlsrpt-invalid", "warn", "", "a TLSRPT record that does not match the grammar"},
		{"tlsrpt-lookup-failed", "unknown, warn", "", "the lookup of the TLSRPT record failed"},

		// check, topic senders.
		{"senders-reply", "ok", "", "what tlspolicyd answers Postfix"},
		{"senders-unprotected", "fail", "", "there is no policy, so senders do not require TLS"},
		{"senders-deferred", "fail, unknown", "", "tlspolicyd answers TEMP, so Postfix defers mail to the domain"},
		{"delivery-ok", "ok", "", "delivery to the host succeeds"},
		{"delivery-failed", "fail, warn", "", "delivery to the host fails; warn where another host accepts the mail"},
		{"delivery-inconclusive", "unknown", "", "whether delivery succeeds is unknown; the findings about the host have the reason"},

		// doctor, topic configuration.
		{"config-ok", "", "ok", "the configuration has no mistake, or there is none"},
		{"config-invalid", "", "fail", "the configuration has a mistake; everything else was checked with the default settings"},
		{"config-unreadable", "", "fail", "the daemon's user is not allowed to read the configuration"},
		{"config-inconclusive", "", "unknown", "only root can read the configuration"},

		// doctor, topic postfix.
		{"postfix-absent", "", "unknown", "there is no postconf on this host"},
		{"postfix-unreadable", "", "unknown", "postconf does not print the settings of Postfix"},
		{"postfix-version-ok", "", "ok", "this version of Postfix understands every answer of tlspolicyd"},
		{"postfix-version-old", "", "fail", "Postfix before 3.4 does not know servername= and defers mail to domains with MTA-STS"},
		{"postfix-other-instances", "", "ok", "there are other instances of Postfix, which were not checked; see --postfix-config"},
		{"postfix-dnssec-on", "", "ok", "smtp(8) requests DNSSEC"},
		{"postfix-dnssec-off", "", "fail", "smtp(8) does not request DNSSEC, so mail under dane-only is deferred: smtp_dns_support_level=dnssec"},
		{"postfix-dns-off", "", "fail", "smtp(8) does not look up hosts in DNS, so DANE applies to none: smtp_host_lookup=dns"},
		{"postfix-level-ok", "", "ok", "the default TLS level fits mail to the Internet"},
		{"postfix-level-none", "", "warn", "mail to domains without a policy is sent in the clear: smtp_tls_security_level=dane, or may"},
		{"postfix-level-strict", "", "warn", "mail to hosts that offer less than smtp_tls_security_level is deferred; right where all mail goes to a relayhost"},
		{"postfix-level-differs", "", "warn", "smtp_tls_security_level requires TLS, and policy.postfix_level does not say so"},
		{"postfix-insecure-mx-policy", "", "warn", "dane is weaker than it says where the MX record is not signed: smtp_tls_dane_insecure_mx_policy=dane"},
		{"postfix-sts-patterns-off", "", "warn", "Postfix 3.10.5 or later is set not to check MX names against the policy: smtp_tls_enforce_sts_mx_patterns=yes"},
		{"map-ok", "", "ok", "smtp_tls_policy_maps has the right entry for tlspolicyd"},
		{"map-missing", "", "fail", "smtp_tls_policy_maps has no entry for tlspolicyd"},
		{"map-malformed", "", "fail", "an entry is malformed, for example without the name of the map: smtp(8) stops at it"},
		{"map-name-unknown", "", "fail", "the entry names a map that tlspolicyd does not have, so all mail is deferred: use postfix or postfix-tlsrpt"},
		{"map-tlsrpt-unsupported", "", "fail", "postfix-tlsrpt with Postfix before 3.10, which defers mail because of its attributes: use the map postfix"},
		{"map-tlsrpt-unused", "", "warn", "postfix with Postfix 3.10 or later, which then does not check MX names against the policy: use the map postfix-tlsrpt"},
		{"map-unreachable", "", "fail", "a socketmap of smtp_tls_policy_maps leads to nothing that answers, mostly because of the chroot, so mail is deferred"},
		{"map-shadowed", "", "fail", "a static: table before the entry answers every lookup"},
		{"map-after-other", "", "warn", "another program is asked before tlspolicyd"},
		{"map-before-other", "", "warn", "another program is asked where tlspolicyd has no policy"},
		{"map-proxy-refused", "", "fail", "the entry begins with proxy:, but proxymap(8) may not open it"},
		{"map-missing-in-service", "", "warn", "a service of master.cf has a map of its own, without tlspolicyd; right for hosts of your own"},

		// doctor, topic socket.
		{"socket-ok", "", "ok", "tlspolicyd answers, to Postfix's user and from inside its chroot where it is asked so"},
		{"socket-missing", "", "fail", "there is no such socket, or none in the queue directory of Postfix"},
		{"socket-not-a-socket", "", "fail", "a file or directory is in its place"},
		{"socket-denied", "", "fail", "Postfix's user is not allowed to connect"},
		{"socket-no-answer", "", "fail", "no program listens there, or none answers"},
		{"socket-other-program", "", "fail", "another program answers"},
		{"socket-slow", "", "warn", "an answer that needs no lookup takes more than a second"},
		{"socket-inconclusive", "", "unknown", "only root can query the socket"},
		{"tlsrpt-socket-ok", "", "ok", "the daemon may write to the socket of the TLSRPT collector"},
		{"tlsrpt-socket-unused", "", "warn", "Postfix reports to a TLSRPT collector, and tlsrpt.socket is not set: failed fetches of a policy are not reported"},
		{"tlsrpt-socket-missing", "", "warn", "nothing receives at tlsrpt.socket"},
		{"tlsrpt-socket-denied", "", "warn", "the daemon's user is not allowed to write to tlsrpt.socket"},
		{"tlsrpt-socket-inconclusive", "", "unknown", "only root can test the socket of the TLSRPT collector"},

		// doctor, topic resolver.
		{"network-down", "", "unknown", "no resolver answers, and none is on this host or no route leads to the Internet"},
		{"resolver-ok", "", "ok", "the resolver answers and validates"},
		{"resolver-no-answer", "", "fail, warn", "the resolver does not answer; warn where another one does"},
		{"resolver-failed", "", "fail", "the resolver fails for a name that is signed and exists"},
		{"resolver-not-validating", "", "fail", "no AD bit for a signed name: DANE is off, and Postfix defers mail under dane-only"},
		{"resolver-accepts-bogus", "", "fail", "the resolver returns a name with a wrong signature: its AD bit is worth nothing"},
		{"resolver-nxdomain-wrong", "", "fail", "a name that does not exist does not give NXDOMAIN; where it gives a failure, mail to every domain without a policy is deferred"},
		{"resolver-forwarder", "", "warn", "Docker's 127.0.0.11 or systemd-resolved's 127.0.0.53: the AD bit is that of a resolver elsewhere, and can be forged on the way from there"},
		{"resolver-inconclusive", "", "unknown", "the name with a wrong signature could not be looked up; see --broken-name"},
		{"resolver-differs", "", "warn", "Postfix and tlspolicyd use different resolvers"},
		{"resolv-conf-unreadable", "", "unknown", "a resolv.conf could not be read"},
		{"chroot-resolv-conf-stale", "", "warn, fail", "the copy of resolv.conf in the queue directory is old or missing (missing means 127.0.0.1); fail where its resolver does not answer or does not validate"},

		// doctor, topic database.
		{"database-ok", "", "ok", "the database opens, or the running daemon can use it"},
		{"database-missing", "", "warn", "there is no database yet"},
		{"database-inconclusive", "", "unknown", "the database is closed to this user, or used by a process that was not asked"},
		{"database-damaged", "", "warn", "at its next start the daemon sets the database aside and begins an empty one"},
		{"database-newer", "", "fail", "the database was written by a newer version, and the daemon does not start"},
		{"database-failed", "", "fail", "the running daemon cannot use its database"},
		{"database-owner", "", "fail", "the database does not belong to the owner of its directory"},
		{"database-mode", "", "warn, fail", "other users can read the database; fail where they can write to it, or the daemon cannot"},
		{"disk-ok", "", "ok", "the database has room to grow"},
		{"disk-low", "", "warn", "less than 64 MiB are free"},
		{"disk-full", "", "fail", "less than 2 MiB are free: new facts are lost with a restart"},

		// doctor, topic shared cache.
		{"share-ok", "", "ok", "the engine of share.url can be used"},
		{"share-file-unreadable", "", "fail", "the daemon's user is not allowed to read a file of the section [share], so the daemon does not start"},
		{"share-unreachable", "", "warn", "the engine does not answer, or refuses the user or its password, or the daemon's user is not allowed to connect to its Unix socket"},
		{"share-denied", "", "warn", "the user lacks rights at the engine: they are printed as its line in the ACL file needs them"},
		{"share-not-writable", "", "warn", "the engine is full, or a read-only replica"},
		{"share-not-encrypted", "", "warn", "the engine is on another host, and the connection to it has no TLS"},
		{"share-clock-differs", "", "warn", "the clock of the engine differs from this host's by more than 30 s"},
		{"share-inconclusive", "", "unknown", "the files of the section [share] cannot be read here"},

		// doctor, topic clock.
		{"clock-ok", "", "ok", "the kernel reports that the clock is synchronized"},
		{"clock-unsynchronized", "", "warn", "the kernel reports that nothing synchronizes the clock"},
		{"clock-wrong", "", "fail", "the year cannot be right"},
		{"clock-inconclusive", "", "unknown", "the kernel does not report the state of the clock"},

		// doctor, topic trust store.
		{"trust-store-ok", "", "ok", "tlspolicyd has certificate authorities"},
		{"postfix-ca-ok", "", "ok", "Postfix has certificate authorities"},
		{"postfix-ca-none", "", "fail", "neither smtp_tls_CAfile nor smtp_tls_CApath is set: mail to domains with MTA-STS is deferred"},
		{"postfix-ca-missing", "", "fail", "smtp_tls_CAfile or smtp_tls_CApath is not there, or has no certificate"},
		{"postfix-ca-chroot", "", "fail", "smtp_tls_CApath is read inside the chroot, and is not there: use smtp_tls_CAfile, which is read before"},
		{"postfix-ca-differs", "", "warn", "no certificate authority of Postfix is one that tlspolicyd has"},

		// doctor, topic unit.
		{"daemon-ok", "", "ok", "the daemon answers, and has the version of this program"},
		{"daemon-down", "", "fail", "no daemon answers at the control socket"},
		{"daemon-inconclusive", "", "unknown", "the control socket is closed to this user, or listen.admin is empty"},
		{"daemon-other-version", "", "warn", "the daemon has another version than this program: restart it after an upgrade"},
		{"systemd-absent", "", "ok", "systemd does not run this host"},
		{"unit-inconclusive", "", "unknown", "systemctl does not answer"},
		{"unit-missing", "", "warn", "systemd does not know the unit"},
		{"unit-ok", "", "ok", "the unit is active and enabled"},
		{"unit-inactive", "", "fail, warn", "the unit does not run; warn where its socket unit starts it with the first lookup"},
		{"unit-restarting", "", "fail", "the service fails each time it is started, and systemd starts it again"},
		{"unit-disabled", "", "warn", "the unit does not start after a reboot"},
	}
}
