package config

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/internal/hostname"
)

// overrideSection is the one section whose keys are free.
const overrideSection = "override"

// setting ties one key of the file to its field in a Config.
type setting struct {
	key string // "section.name"
	doc string // what WriteTOML says about it, lines joined by \n
	value
}

func (s setting) section() string {
	section, _, _ := strings.Cut(s.key, ".")
	return section
}

func (s setting) name() string {
	_, name, _ := strings.Cut(s.key, ".")
	return name
}

// settings is the list of all keys but the overrides, in the order in which
// they are shown, tied to the fields of c.
func (c *Config) settings() []setting {
	return []setting{
		{"listen.socketmap", "Addresses for Postfix: \"unix:/path\" or \"tcp:host:port\". With 0.0.0.0, [::] or\nno host, any host that can reach the port can query.\nIgnored under systemd socket activation.", atLeastOne(list(&c.Listen.Socketmap, "unix:/path or tcp:host:port", parseAddress, asIs))},
		{"listen.socket_mode", "Mode of these Unix sockets. Local users with write access can query.", scalar(&c.Listen.SocketMode, `an octal mode in quotes, e.g. "0660"`, parseMode, formatMode)},
		{"listen.socket_group", "Group of these Unix sockets, e.g. \"postfix\" with socket_mode = \"0660\".", scalar(&c.Listen.SocketGroup, `the name of a group or ""`, parseGroup, asIs)},
		{"listen.admin", "Unix socket for the cache commands, mode 0600.", scalar(&c.Listen.Admin, `unix:/path or ""`, optional(parseUnixAddress), asIs)},
		{"listen.http", "TCP address or Unix socket for /metrics, /healthz, /readyz and a read-only\nstatus page, e.g. \"127.0.0.1:9461\" or \"unix:/run/tlspolicyd/http.sock\"; the\nsocket has the mode and group above. Empty: none.", scalar(&c.Listen.HTTP, `host:port, unix:/path or ""`, optional(parseHTTPAddress), asIs)},
		{"listen.http_hosts", "Host names by which clients reach listen.http, beside addresses, localhost and\nthe name of this host. Requests to other names are refused.", list(&c.Listen.HTTPHosts, "a host name, e.g. \"mail.example.net\"", hostname.Parse, asIs)},
		{"listen.max_connections", "Connection limit. At the limit a new connection closes the longest idle one of\nthe client with the most connections.", number(&c.Listen.MaxConnections, 1, 65536)},

		{"dns.servers", "Resolvers, e.g. \"127.0.0.1\", \"127.0.0.1:5353\", \"[::1]:53\". An IPv6 address\nwith a port needs brackets. Empty: those of /etc/resolv.conf, read again when\nit changes.", list(&c.DNS.Servers, "an address with or without port, e.g. 127.0.0.1, 127.0.0.1:5353 or [::1]:53", parseServer, formatServer)},
		{"dns.trust_ad", "Trust the AD bit of resolvers that are not on loopback. Set it only where\npackets on the way to them cannot be forged: DANE depends on it.", boolean(&c.DNS.TrustAD)},
		{"dns.timeout", "How long to wait for the reply to one query.", duration(&c.DNS.Timeout, 100*time.Millisecond, 15*time.Second)},

		{"fetch.wait", "How long the first lookup of a domain waits for its policy host.", duration(&c.Fetch.Wait, 100*time.Millisecond, 15*time.Second)},
		{"fetch.timeout", "How long a fetch may take in all. It goes on after fetch.wait.", duration(&c.Fetch.Timeout, time.Second, time.Minute)},
		{"fetch.ca_file", "Certificate authorities (PEM) to use instead of the system's.", scalar(&c.Fetch.CAFile, `an absolute path or ""`, optional(parsePath), asIs)},
		{"fetch.allow_networks", "Networks that are not public and may have policy hosts, e.g. \"10.0.0.0/8\".", list(&c.Fetch.AllowNetworks, "a network, e.g. 10.0.0.0/8", parsePrefix, netip.Prefix.String)},
		{"fetch.proxy", "HTTP proxy for policy hosts, e.g. \"http://proxy.example:3128\".", scalar(&c.Fetch.Proxy, `http://host:port or ""`, parseProxy, formatProxy)},
		{"fetch.concurrency", "Background fetches at a time.", number(&c.Fetch.Concurrency, 1, 1024)},

		{"cache.path", "The database file.", scalar(&c.Cache.Path, "an absolute path", parsePath, asIs)},
		{"cache.max_entries", "Maximum number of domains.", number(&c.Cache.MaxEntries, 1000, 100_000_000)},
		{"cache.max_bytes", "Maximum size of all records in bytes; the file may be twice as large. Large\nrecords are evicted first.", number(&c.Cache.MaxBytes, 16<<20, 1<<40)},

		{"refresh.interval", "How often each MTA-STS policy is fetched again. A new value applies to a\npolicy from its next fetch on.", duration(&c.Refresh.Interval, time.Minute, 720*time.Hour)},
		{"refresh.unused_for", "A domain without a lookup for this long is no longer refreshed, and expires.", duration(&c.Refresh.UnusedFor, time.Hour, 8784*time.Hour)},

		{"share.url", "Valkey or Redis in which several hosts share the policies that they fetched:\n\"redis://host:port\", \"rediss://host:port\" (TLS) or \"unix:/path\"; several hosts\nare separated by commas. Empty: none.", scalar(&c.Share.URL, wantEngine, parseEngine, EngineURL.String)},
		{"share.sentinel_master", "Name of the master, where the hosts in url are Sentinels.", scalar(&c.Share.SentinelMaster, `a name or ""`, parseName, asIs)},
		{"share.cluster", "Whether the hosts in url are nodes of a cluster.", boolean(&c.Share.Cluster)},
		{"share.username", "User of the engine. Empty: its default user.", scalar(&c.Share.Username, `a name or ""`, parseName, asIs)},
		{"share.password_file", "File with the password; \"${CREDENTIALS_DIRECTORY}/name\" is one of systemd's\ncredentials, and changes with a restart only.", scalar(&c.Share.PasswordFile, `an absolute path or ""`, optional(parseSecretPath), asIs)},
		{"share.key_file", "File with the key that signs what is shared, the same on all hosts: of\n\"openssl rand -base64 32\". Required unless the engine is on loopback or a Unix\nsocket. The first line signs, each line verifies.", scalar(&c.Share.KeyFile, `an absolute path or ""`, optional(parseSecretPath), asIs)},
		{"share.ca_file", "Certificate authorities (PEM) of the engine instead of the system's.", scalar(&c.Share.CAFile, `an absolute path or ""`, optional(parsePath), asIs)},
		{"share.cert_file", "Client certificate (PEM) for the engine.", scalar(&c.Share.CertFile, `an absolute path or ""`, optional(parseSecretPath), asIs)},
		{"share.cert_key_file", "Its private key (PEM).", scalar(&c.Share.CertKeyFile, `an absolute path or ""`, optional(parseSecretPath), asIs)},
		{"share.prefix", "Prefix of all keys in the engine.", scalar(&c.Share.Prefix, "letters, digits and -._:", parseKeyPrefix, asIs)},
		{"share.timeout", "How long a lookup waits for the engine, at the same time as for DNS.", duration(&c.Share.Timeout, 10*time.Millisecond, 5*time.Second)},
		{"share.verify_after", "How often this host itself fetches a policy that others renew for it, while\nthe domain is asked for.", duration(&c.Share.VerifyAfter, time.Minute, 8784*time.Hour)},

		{"policy.insecure_mx", "Which standard applies when the MX answer is not signed, some MX host has TLSA\nrecords and an MTA-STS policy is enforced: \"mta-sts\" or \"dane\".", choice(&c.Policy.InsecureMX, DANE, MTASTS)},
		{"policy.partial", "Which standard applies when only some MX hosts have TLSA records and an\nMTA-STS policy is enforced: \"dane\" or \"mta-sts\".", choice(&c.Policy.Partial, DANE, MTASTS)},
		{"policy.testing", "MTA-STS policies in mode testing: \"ignore\" (deliver as without a policy) or\n\"enforce\".", choice(&c.Policy.Testing, IgnoreTesting, EnforceTesting)},
		{"policy.postfix_level", "Postfix's own smtp_tls_security_level. Where no TLSA record is known and a\nlookup fails, no answer is weaker than this level.", choice(&c.Policy.PostfixLevel, "none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure")},
		{"policy.override_file", "Files with more overrides: a section [override] and nothing else. They are\nread again when they change. Of lines for the same name that of this file\ncounts, then that of the file named first.", atMost(maxOverrideFiles, list(&c.Policy.OverrideFile, "an absolute path", parsePath, asIs))},

		{"tlsrpt.socket", "Unix socket of the TLSRPT collector on this host, to which failed fetches are\nreported (smtp_tlsrpt_socket_name of Postfix). Empty: none.", scalar(&c.TLSRPT.Socket, `an absolute path or ""`, optional(parseSocketPath), asIs)},

		{"log.level", "\"debug\", \"info\", \"warn\" or \"error\".", scalar(&c.Log.Level, `"debug", "info", "warn" or "error"`, parseLevel, formatLevel)},
		{"log.format", "\"auto\" (journal fields under systemd, text elsewhere), \"text\" or \"json\".", choice(&c.Log.Format, LogAuto, LogText, LogJSON)},
	}
}

// value reads and shows one field. set takes what the TOML library decoded;
// its error says what is wrong and what would be right.
type value struct {
	set func(v any) error
	get func() any // string, int64, bool or []string
}

// scalar is a field that the file gives as a string.
func scalar[T any](p *T, want string, parse func(string) (T, error), format func(T) string) value {
	return value{
		set: func(v any) error {
			x, err := parseString(v, want, parse)
			if err == nil {
				*p = x
			}
			return err
		},
		get: func() any { return format(*p) },
	}
}

// list is a field that the file gives as an array of strings, all different.
func list[T any](p *[]T, want string, parse func(string) (T, error), format func(T) string) value {
	return value{
		set: func(v any) error {
			array, ok := v.([]any)
			if !ok {
				return fmt.Errorf("%s: want an array of strings, each %s", show(v), want)
			}
			all := make([]T, 0, len(array))
			seen := make(map[string]bool)
			for i, elem := range array {
				x, err := parseString(elem, want, parse)
				if err == nil && seen[format(x)] {
					err = fmt.Errorf("%s: listed twice: want it once", show(elem))
				}
				if err != nil {
					return elementError{i, err}
				}
				seen[format(x)] = true
				all = append(all, x)
			}
			*p = all
			return nil
		},
		get: func() any {
			all := make([]string, 0, len(*p))
			for _, x := range *p {
				all = append(all, format(x))
			}
			return all
		},
	}
}

// atLeastOne refuses the empty array.
func atLeastOne(v value) value {
	set := v.set
	v.set = func(x any) error {
		if array, ok := x.([]any); ok && len(array) == 0 {
			return errors.New("empty: want at least one")
		}
		return set(x)
	}
	return v
}

// atMost refuses an array of more elements.
func atMost(n int, v value) value {
	set := v.set
	v.set = func(x any) error {
		if array, ok := x.([]any); ok && len(array) > n {
			return fmt.Errorf("%d elements: want at most %d", len(array), n)
		}
		return set(x)
	}
	return v
}

func parseString[T any](v any, want string, parse func(string) (T, error)) (T, error) {
	var zero T
	s, ok := v.(string)
	if !ok {
		return zero, fmt.Errorf("%s: want a string: %s", show(v), want)
	}
	x, err := parse(s)
	switch {
	case err != nil && strings.Contains(strings.ToLower(err.Error()), "want "):
		return zero, fmt.Errorf("%s: %w", show(v), err)
	case errors.Is(err, errNotAbsolute) && strings.HasPrefix(want, "an absolute path"):
		return zero, fmt.Errorf("%s: want %s", show(v), want) // the reason would say the same
	case err != nil:
		return zero, fmt.Errorf("%s: %w: want %s", show(v), err, want)
	}
	return x, nil
}

func number[T int | int64](p *T, low, high int64) value {
	return value{
		set: func(v any) error {
			n, ok := v.(int64)
			if !ok || n < low || n > high {
				return fmt.Errorf("%s: want a number from %d to %d", show(v), low, high)
			}
			*p = T(n)
			return nil
		},
		get: func() any { return int64(*p) },
	}
}

func boolean(p *bool) value {
	return value{
		set: func(v any) error {
			b, ok := v.(bool)
			if !ok {
				return fmt.Errorf("%s: want true or false", show(v))
			}
			*p = b
			return nil
		},
		get: func() any { return *p },
	}
}

func choice[T ~string](p *T, choices ...T) value {
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = strconv.Quote(string(c))
	}
	last := len(quoted) - 1
	want := strings.Join(quoted[:last], ", ") + " or " + quoted[last]
	return value{
		set: func(v any) error {
			for _, c := range choices {
				if v == any(string(c)) {
					*p = c
					return nil
				}
			}
			return fmt.Errorf("%s: want %s", show(v), want)
		},
		get: func() any { return string(*p) },
	}
}

func duration(p *time.Duration, low, high time.Duration) value {
	want := fmt.Sprintf("a duration from %s to %s, e.g. %q", formatDuration(low), formatDuration(high), formatDuration(*p))
	return value{
		set: func(v any) error {
			s, _ := v.(string)
			d, err := time.ParseDuration(s)
			if err != nil || d < low || d > high {
				return fmt.Errorf("%s: want %s", show(v), want)
			}
			*p = d
			return nil
		},
		get: func() any { return formatDuration(*p) },
	}
}

// formatDuration is Duration.String without the zero parts at its end.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// show describes a value of the file in an error: quoted, on one line, of
// bounded length, and without the password of a URL: errors of a reload are in
// the journal, and in what every user is shown by systemctl status.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return quote(withoutUser(v))
	case int64, otherNumber, bool:
		return fmt.Sprint(v)
	case []any:
		return "an array"
	case map[string]any:
		return "a table"
	}
	return "a date or time"
}

// withoutUser takes what is before the last "@" out of a URL, or of what was
// meant to be one.
func withoutUser(s string) string {
	scheme, rest, ok := strings.Cut(s, "//")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return s
	}
	return scheme + "//..." + rest[at:]
}

// maxShown bounds a string of the file in an error, in bytes.
const maxShown = 80

func quote(s string) string {
	if len(s) > maxShown {
		return strconv.QuoteToASCII(s[:maxShown]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func asIs(s string) string { return s }

// optional also allows the empty string.
func optional(parse func(string) (string, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return parse(s)
	}
}

func parsePath(s string) (string, error) {
	if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
		return "", errNotAbsolute
	}
	return filepath.Clean(s), nil
}

func parseLevel(s string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if s == formatLevel(l) {
			return l, nil
		}
	}
	return 0, errUnknown
}

func formatLevel(l slog.Level) string { return strings.ToLower(l.String()) }

func parseProxy(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" || u.Hostname() == "" {
		return nil, errNotProxy
	}
	if cmp.Or(u.Path, "/") != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errProxyPath
	}
	if _, err := parseHostPort(u.Host); u.Port() != "" && err != nil {
		return nil, errPort
	}
	return u, nil
}

func formatProxy(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.String()
}
