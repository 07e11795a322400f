// Package config is the configuration file: TOML to one typed struct, with a
// default for every key, so that an empty or absent file is valid. Every mistake
// is refused with its line and column and with what would be right.
package config

import (
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"time"
)

// DefaultPath is read when no other file is named. It may be absent.
const DefaultPath = "/etc/tlspolicyd/tlspolicyd.toml"

// Config holds every setting, checked and complete. The keys of the file are
// the field names in lower case, as listed by WriteTOML.
type Config struct {
	Listen  Listen
	DNS     DNS
	Fetch   Fetch
	Cache   Cache
	Refresh Refresh
	Share   Share
	Policy  Policy

	// Override maps a policy domain or ".parent" (A-labels, lower case, no
	// final dot) to OverrideSkip, OverrideLookup or a literal Postfix policy.
	Override map[string]string
	// FileOverride has those of Policy.OverrideFile, by the same names, but those
	// that Override has too.
	FileOverride map[string]FileOverride

	TLSRPT TLSRPT
	Log    Log
}

// Listen says where the daemon can be reached.
type Listen struct {
	Socketmap      []string    // "unix:/path" or "tcp:host:port"; at least one
	SocketMode     fs.FileMode // permission bits of the Unix sockets in Socketmap
	SocketGroup    string      // group of these sockets; empty: that of the process
	Admin          string      // "unix:/path"; empty: no admin socket
	HTTP           string      // "host:port"; empty: none
	HTTPHosts      []string    // further names of this host that a request to HTTP may have
	MaxConnections int
}

// DNS says which resolvers the stub resolver asks.
type DNS struct {
	Servers []netip.AddrPort // empty: those of /etc/resolv.conf
	TrustAD bool             // trust the AD bit of servers that are not on loopback (7672 §2.1.3)
	Timeout time.Duration    // of one try
}

// Fetch says how policy files are fetched.
type Fetch struct {
	Wait          time.Duration  // how long a first lookup waits for a policy host
	Timeout       time.Duration  // how long the fetch itself may take
	CAFile        string         // PEM file used instead of the system's trust store; empty: the system's
	AllowNetworks []netip.Prefix // addresses that policy hosts may have although they are not public
	Proxy         *url.URL       // HTTP proxy; nil: none
	Concurrency   int            // fetches at a time
}

// Cache says where what was learned is kept.
type Cache struct {
	Path       string // of the database file, absolute
	MaxEntries int
	MaxBytes   int64
}

// Refresh says when what was learned is looked up again.
type Refresh struct {
	Interval  time.Duration // between two fetches of the same policy
	UnusedFor time.Duration // a domain without a lookup for so long is left to expire
}

// Policy holds the choices of the decision table (docs/behaviour.md §5).
type Policy struct {
	InsecureMX Standard // which one applies when the MX answer is insecure and both apply
	Partial    Standard // which one applies when only some MX hosts have TLSA records

	PostfixLevel string   // smtp_tls_security_level of main.cf
	Testing      Testing  // what a policy in mode testing means
	OverrideFile []string // files with more overrides, absolute
}

// Standard is one of the two standards for the mail hosts of a domain.
type Standard string

// The two standards: RFC 7672 and RFC 8461.
const (
	DANE   Standard = "dane"
	MTASTS Standard = "mta-sts"
)

// Testing is what to do with a policy in mode testing (8461 §5).
type Testing string

// Testing policies are ignored, as RFC 8461 §5 has it, or enforced all the same.
const (
	IgnoreTesting  Testing = "ignore"
	EnforceTesting Testing = "enforce"
)

// TLSRPT says where failed fetches are reported (8460).
type TLSRPT struct {
	Socket string // of the collector, absolute; empty: none
}

// Log says what is logged and how.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// LogFormat is the form of a log line.
type LogFormat string

// The log formats. LogAuto means journal fields under systemd, text elsewhere.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Default returns the settings of an empty file. Only the paths depend on the
// environment: see DefaultDirs.
func Default() Config {
	return defaults(DefaultDirs())
}

func defaults(d Dirs) Config {
	return Config{
		Listen: Listen{
			Socketmap:      []string{"unix:" + d.Runtime + "/socketmap.sock"},
			SocketMode:     0o666,
			Admin:          "unix:" + d.Runtime + "/admin.sock",
			MaxConnections: 4096,
		},
		DNS: DNS{Timeout: 5 * time.Second},
		Fetch: Fetch{
			Wait:        5 * time.Second,
			Timeout:     time.Minute,
			Concurrency: 32,
		},
		Cache:    Cache{Path: d.State + "/policies.db", MaxEntries: 1000000, MaxBytes: 1 << 30},
		Refresh:  Refresh{Interval: 24 * time.Hour, UnusedFor: 720 * time.Hour},
		Share:    Share{Prefix: "tlspolicyd", Timeout: 250 * time.Millisecond, VerifyAfter: 7 * 24 * time.Hour},
		Policy:   Policy{InsecureMX: MTASTS, Partial: DANE, Testing: IgnoreTesting, PostfixLevel: "may"},
		Override: map[string]string{},
		Log:      Log{Level: slog.LevelInfo, Format: LogAuto},
	}
}

// Load reads the settings from a file. With an empty path it reads
// DefaultPath, which may be absent; a file that was named must exist. A
// mistake in the file is an *Error.
func Load(path string) (Config, error) {
	name := path
	if name == "" {
		name = DefaultPath
	}
	data, exposed, err := readFile(name)
	if path == "" && os.IsNotExist(err) {
		return Default(), nil
	}
	if err != nil {
		return Config{}, err
	}
	c, err := parse(data, name, exposed)
	if err == nil {
		c.FileOverride, err = ReadOverrides(c.Policy.OverrideFile, c.Override)
	}
	if err != nil {
		return Config{}, err
	}
	return c, nil
}
