package doctor

// The codes of all findings. They are stable: scripts rely on them, and
// docs/doctor.md has what each means and what mends it.
const (
	// PostfixAbsent: there is no postconf on this host.
	PostfixAbsent = "postfix-absent"
	// PostfixUnread: postconf is there and did not tell what was asked.
	PostfixUnread = "postfix-unread"
	// PostfixVersion: the version knows all that our answers hold.
	PostfixVersion = "postfix-version"
	// PostfixTooOld: before 3.4 Postfix defers on "servername=".
	PostfixTooOld = "postfix-too-old"
	// PostfixInstances: there are more instances than the one looked at.
	PostfixInstances = "postfix-instances"

	// DNSSECOn: smtp(8) asks for DNSSEC.
	DNSSECOn = "dnssec-on"
	// DNSSECOff: without it mail for "dane-only" is deferred.
	DNSSECOff = "dnssec-off"
	// HostLookupWithoutDNS: DANE does not apply to hosts that DNS did not name.
	HostLookupWithoutDNS = "host-lookup-without-dns"

	// TLSLevel: the default level suits mail to the world.
	TLSLevel = "tls-level"
	// TLSLevelNone: mail to domains without a policy goes in the clear.
	TLSLevelNone = "tls-level-none"
	// TLSLevelStrict: mail to hosts without TLS does not go at all.
	TLSLevelStrict = "tls-level-strict"
	// InsecureMXPolicy: "dane" is less than it says where the MX is unsigned.
	InsecureMXPolicy = "insecure-mx-policy"

	// MapPresent: Postfix asks this daemon, by the right map.
	MapPresent = "map-present"
	// MapAbsent: Postfix does not ask this daemon.
	MapAbsent = "map-absent"
	// MapNameUnknown: every lookup is PERM, and mail is deferred.
	MapNameUnknown = "map-name-unknown"
	// MapTLSRPTTooNew: this Postfix defers on the attributes of postfix-tlsrpt.
	MapTLSRPTTooNew = "map-tlsrpt-too-new"
	// MapTLSRPTMissing: this Postfix could hold MX names against the policy.
	MapTLSRPTMissing = "map-tlsrpt-missing"
	// MapUnreachable: the address in the map leads smtp(8) nowhere.
	MapUnreachable = "map-unreachable"
	// MapShadowed: a table before ours answers everything.
	MapShadowed = "map-shadowed"
	// MapBehindOther: another program answers before us.
	MapBehindOther = "map-behind-other"
	// MapBeforeOther: another program is asked where we have no policy.
	MapBeforeOther = "map-before-other"
	// MapProxyRefused: proxymap(8) does not open our map.
	MapProxyRefused = "map-proxy-refused"
	// MapNested: it is asked from inside of another table.
	MapNested = "map-nested"
	// MapFileMissing: a table beside ours has no file, and every lookup fails.
	MapFileMissing = "map-file-missing"
	// ServiceWithoutMap: a service of master.cf does not ask this daemon.
	ServiceWithoutMap = "service-without-map"

	// STSPatternsOff: MX names are not held against the policy.
	STSPatternsOff = "sts-patterns-off"
	// TLSRPTOn: TLSRPT is on, and its socket is there.
	TLSRPTOn = "tlsrpt-on"
	// TLSRPTNoSocket: TLSRPT is on, and nobody takes the reports.
	TLSRPTNoSocket = "tlsrpt-no-socket"

	// SocketAnswers: the socket answers the one who is to ask.
	SocketAnswers = "socket-answers"
	// SocketMissing: there is no such socket.
	SocketMissing = "socket-missing"
	// SocketNoSocket: something else than a socket has its place.
	SocketNoSocket = "socket-no-socket"
	// SocketDenied: Postfix's user may not connect.
	SocketDenied = "socket-denied"
	// SocketSilent: nobody listens, or nobody answers.
	SocketSilent = "socket-silent"
	// SocketForeign: another program answers.
	SocketForeign = "socket-foreign"
	// SocketSlow: an answer that needs nothing takes long.
	SocketSlow = "socket-slow"
	// SocketUntold: only root can tell.
	SocketUntold = "socket-untold"

	// NetworkDown: this host does not reach the Internet, nor its resolvers.
	NetworkDown = "network-down"
	// ResolverValidates: the resolver answers and validates.
	ResolverValidates = "resolver-validates"
	// ResolverSilent: the resolver does not answer.
	ResolverSilent = "resolver-silent"
	// ResolverFails: the resolver answers, and not with what was asked.
	ResolverFails = "resolver-fails"
	// ResolverNotValidating: no AD bit for a signed name.
	ResolverNotValidating = "resolver-not-validating"
	// ResolverBelieves: a name whose signature is broken is passed on.
	ResolverBelieves = "resolver-believes-broken"
	// ResolverUntold: the broken name could not be looked up.
	ResolverUntold = "resolver-untold"
	// ResolverUntrusted: AD bits could be forged on the way (7672 §2.1.3).
	ResolverUntrusted = "resolver-untrusted"
	// ResolverDiffers: Postfix asks other resolvers than the daemon.
	ResolverDiffers = "resolver-differs"
	// ResolvConfUnread: a resolv.conf could not be read.
	ResolvConfUnread = "resolv-conf-unread"
	// ChrootResolvConf: the copy in the queue directory says something else.
	ChrootResolvConf = "chroot-resolv-conf"
	// TrustADMissing: this Postfix gets no AD bit from glibc.
	TrustADMissing = "trust-ad-missing"

	// DatabaseGood: it opens, or the daemon that has it open is content.
	DatabaseGood = "database-good"
	// DatabaseAbsent: there is none yet.
	DatabaseAbsent = "database-absent"
	// DatabaseUntold: it cannot be looked into.
	DatabaseUntold = "database-untold"
	// DatabaseDamaged: it will be set aside at the next start.
	DatabaseDamaged = "database-damaged"
	// DatabaseNewer: the daemon will not start with it.
	DatabaseNewer = "database-newer"
	// DatabaseFails: the running daemon cannot use it.
	DatabaseFails = "database-fails"
	// DatabaseOwner: it is not the daemon's own.
	DatabaseOwner = "database-owner"
	// DatabaseMode: others may read or change it.
	DatabaseMode = "database-mode"
	// DiskRoom: there is room for the database to grow.
	DiskRoom = "disk-room"
	// DiskLow: little room is left.
	DiskLow = "disk-low"
	// DiskFull: nothing can be written any more.
	DiskFull = "disk-full"

	// ClockRight: the kernel says that the clock is synchronised.
	ClockRight = "clock-right"
	// ClockUnsynchronised: nothing keeps the clock right.
	ClockUnsynchronised = "clock-unsynchronised"
	// ClockWrong: the clock cannot be right.
	ClockWrong = "clock-wrong"
	// ClockUntold: the kernel does not say.
	ClockUntold = "clock-untold"

	// TrustStore: certificates of policy hosts can be verified.
	TrustStore = "trust-store"
	// TrustStoreEmpty: no policy can be fetched.
	TrustStoreEmpty = "trust-store-empty"
	// PostfixCA: Postfix can verify certificates.
	PostfixCA = "postfix-ca"
	// PostfixCANone: no certificate passes, "secure" defers all.
	PostfixCANone = "postfix-ca-none"
	// PostfixCAMissing: what is configured is not there, or empty.
	PostfixCAMissing = "postfix-ca-missing"
	// PostfixCAChroot: the directory is not inside the chroot.
	PostfixCAChroot = "postfix-ca-chroot"
	// PostfixCADiffers: Postfix trusts others than the daemon.
	PostfixCADiffers = "postfix-ca-differs"

	// DaemonRuns: the daemon answers, and is of this version.
	DaemonRuns = "daemon-runs"
	// DaemonDown: no daemon has the control socket.
	DaemonDown = "daemon-down"
	// DaemonUntold: the control socket is closed to us, or there is none.
	DaemonUntold = "daemon-untold"
	// DaemonOtherVersion: an upgrade waits for a restart.
	DaemonOtherVersion = "daemon-other-version"
	// SystemdAbsent: systemd does not run this host.
	SystemdAbsent = "systemd-absent"
	// UnitUntold: systemctl did not answer.
	UnitUntold = "unit-untold"
	// UnitAbsent: systemd has no such unit.
	UnitAbsent = "unit-absent"
	// UnitActive: the unit runs, and will after a reboot.
	UnitActive = "unit-active"
	// UnitInactive: the unit does not run.
	UnitInactive = "unit-inactive"
	// UnitDisabled: after a reboot it would not run.
	UnitDisabled = "unit-disabled"
)
