package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Share says how this host shares policies with others.
type Share struct {
	URL            EngineURL // no Hosts: nothing is shared
	SentinelMaster string    // name of the master; the hosts of URL are Sentinels; empty: they are not
	Cluster        bool      // the hosts of URL are nodes of a cluster
	Username       string    // empty: the engine's default user
	PasswordFile   string    // see SecretPath; empty: none
	KeyFile        string    // see SecretPath; empty: entries are not signed
	CAFile         string    // PEM; empty: the system's
	CertFile       string    // PEM; empty: no client certificate
	CertKeyFile    string    // see SecretPath
	Prefix         string    // of all keys in the engine
	Timeout        time.Duration
	VerifyAfter    time.Duration
}

// EngineURL is where the engine is.
type EngineURL struct {
	Network  string   // "tcp" or "unix"
	Hosts    []string // host:port, or one path
	TLS      bool
	Database int

	Username string // before the hosts; empty in most files
	Password Secret
}

// Local reports whether nothing but this host can be behind the URL.
func (u EngineURL) Local() bool {
	for _, address := range u.Hosts {
		host, _, _ := net.SplitHostPort(address)
		ip, err := netip.ParseAddr(host)
		if u.Network == "tcp" && host != "localhost" && (err != nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}

// Secret is text that is printed nowhere.
type Secret string

func (Secret) String() string { return "..." }

// String returns the URL without user and password.
func (u EngineURL) String() string {
	switch {
	case u.Hosts == nil:
		return ""
	case u.Network == "unix":
		return "unix:" + u.Hosts[0]
	}
	s := "redis://"
	if u.TLS {
		s = "rediss://"
	}
	s += strings.Join(u.Hosts, ",")
	if u.Database != 0 {
		s += "/" + strconv.Itoa(u.Database)
	}
	return s
}

const (
	wantEngine = "redis://host:port, rediss://host:port (TLS) or unix:/path; several hosts are separated by commas"

	defaultEnginePort = "6379"
)

// errExposed is for a password in a file that every local user can read.
var errExposed = errors.New("there is a password in it, and every local user can read this file: " +
	"want the password in share.password_file, or 'chmod o-rwx' for this file")

// parseEngine reads share.url.
func parseEngine(s string) (EngineURL, error) {
	if s == "" {
		return EngineURL{}, nil
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		path, err := parsePath(strings.TrimPrefix(path, "//"))
		return EngineURL{Network: "unix", Hosts: []string{path}}, err
	}
	scheme, rest, _ := strings.Cut(s, "://")
	u := EngineURL{Network: "tcp", TLS: scheme == "rediss"}
	if scheme != "redis" && scheme != "rediss" {
		return u, errors.New("not the URL of an engine")
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		u.Username, u.Password, rest = user, Secret(password), rest[at+1:]
	}
	hosts, database, ok := strings.Cut(rest, "/")
	if ok && database != "" {
		n, err := strconv.ParseUint(database, 10, 16)
		if err != nil {
			return u, errors.New("not the number of a database after the hosts")
		}
		u.Database = int(n)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(host)
		if err != nil {
			name, port = strings.Trim(host, "[]"), defaultEnginePort
		}
		address := net.JoinHostPort(name, port)
		if _, err := parseHostPort(address); err != nil || name == "" || port == "0" {
			return u, errNoPort
		}
		u.Hosts = append(u.Hosts, address)
	}
	return u, nil
}

// credentials is how a path in the directory of systemd's credentials begins
// (systemd.exec(5), LoadCredential=).
const credentials = "${CREDENTIALS_DIRECTORY}/"

func parseSecretPath(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, credentials); ok && filepath.IsLocal(name) && !strings.ContainsRune(s, 0) {
		return s, nil
	}
	return parsePath(s)
}

// SecretPath returns where a file with a secret is. It fails where that is in the
// directory of systemd's credentials and there is none.
func SecretPath(path string, getenv func(string) string) (string, error) {
	name, ok := strings.CutPrefix(path, credentials)
	if !ok {
		return path, nil
	}
	dir := getenv("CREDENTIALS_DIRECTORY")
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%s: systemd did not pass credentials: want LoadCredential=%s:/path in the unit", path, name)
	}
	return filepath.Join(dir, name), nil
}

func parseKeyPrefix(s string) (string, error) {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-"
	if s == "" || len(s) > 64 || strings.Trim(s, allowed) != "" {
		return "", errors.New("want 1 to 64 letters, digits, dots, colons, underscores and hyphens")
	}
	return s, nil
}

func parseName(s string) (string, error) {
	if len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errors.New("want up to 255 printable characters without blanks")
	}
	return s, nil
}
