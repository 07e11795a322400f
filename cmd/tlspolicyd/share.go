package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/printable"
	"tlspolicyd/share"
	"tlspolicyd/share/valkey"
)

// leaseSlack is what a lease is longer than a fetch: TXT lookup, and writing.
const leaseSlack = 15 * time.Second

// fleet is the hosts that share policies with this one; client nil: none do.
type fleet struct {
	client *valkey.Client
	url    config.EngineURL // in force
}

// newFleet returns the fleet of the settings. The engine is connected to in the
// background, for ever: no start waits for it or fails for it.
func newFleet(cfg config.Config, log *slog.Logger) (*fleet, error) {
	s := cfg.Share
	if s.URL.Hosts == nil {
		return &fleet{}, nil
	}
	set, err := fleetSettings(s)
	if err != nil {
		return nil, err
	}
	set.Lease = cfg.Fetch.Timeout + leaseSlack
	return &fleet{url: s.URL, client: valkey.New(valkey.Options{
		Engine: valkey.Engine{
			Network: s.URL.Network, Hosts: s.URL.Hosts, Database: s.URL.Database,
			SentinelMaster: s.SentinelMaster, Cluster: s.Cluster,
		},
		Prefix: s.Prefix, Host: fleetHost(s), Log: log,
	}, set)}, nil
}

// engine returns the fleet as others use it; nil: there is none.
func (f *fleet) engine() share.Fleet {
	if f.client == nil {
		return nil
	}
	return f.client
}

// renew puts settings in force that need no restart, user and password in share.url
// among them, and reads the files with secrets anew. Those of another engine wait for
// the restart with its URL: without a key, for example, the one in use would be
// believed whatever it says.
func (f *fleet) renew(cfg config.Config) error {
	s := cfg.Share
	if f.client == nil || s.URL.String() != f.url.String() {
		return nil
	}
	set, err := fleetSettings(s)
	if err == nil {
		set.Lease = cfg.Fetch.Timeout + leaseSlack
		f.client.Renew(set)
	}
	return err
}

func (f *fleet) close() {
	if f.client != nil {
		f.client.Close()
	}
}

// fleetHost is what the other hosts call this one; "": there are none.
func fleetHost(s config.Share) string {
	if s.URL.Hosts == nil {
		return ""
	}
	name, _ := os.Hostname() // without a name they have nothing to call it
	return printable.Line(name, share.MaxHost)
}

// checkShare holds [share] against this host and in itself.
func checkShare(s config.Share) error {
	switch {
	case s.URL.Hosts == nil:
		return nil
	case s.Cluster && s.SentinelMaster != "":
		return errors.New("share.cluster: there is a share.sentinel_master too: want one of the two")
	case s.Cluster && s.URL.Database != 0:
		return errors.New("share.url: a cluster has no databases: want none after the hosts")
	case s.KeyFile == "" && !s.URL.Local():
		return errors.New("share.key_file: missing: want the key that signs what is shared, the same on all hosts: " +
			"'openssl rand -base64 32 >FILE', mode 0640 and the group of the daemon")
	case s.PasswordFile != "" && s.URL.Password != "":
		return errors.New("share.password_file: share.url has a password too: want one of the two")
	case (s.CAFile != "" || s.CertFile != "") && !s.URL.TLS:
		return errors.New("share.ca_file, share.cert_file: share.url is without TLS: want rediss://")
	case (s.CertFile == "") != (s.CertKeyFile == ""):
		return errors.New("share.cert_file, share.cert_key_file: want both or none")
	}
	if _, err := os.Stat(os.Getenv("CREDENTIALS_DIRECTORY")); err != nil && usesCredentials(s) {
		// 'config check' outside of the unit, or in its ExecReload=, to which systemd 252
		// closes the directory. newFleet reports what is wrong.
		return nil
	}
	_, err := fleetSettings(s)
	return err
}

func usesCredentials(s config.Share) bool {
	return strings.Contains(s.PasswordFile+s.KeyFile+s.CertFile+s.CertKeyFile, "${CREDENTIALS_DIRECTORY}")
}

// fleetSettings reads the files that [share] names.
func fleetSettings(s config.Share) (set valkey.Settings, err error) {
	set.Timeout = s.Timeout
	set.Login = valkey.Login{Username: s.URL.Username, Password: string(s.URL.Password)}
	if s.Username != "" {
		set.Login.Username = s.Username
	}
	if s.PasswordFile != "" {
		text, err := readSecret("share.password_file", s.PasswordFile)
		if err != nil {
			return set, err
		}
		set.Login.Password = strings.TrimRight(string(text), "\r\n")
	}
	if s.KeyFile != "" {
		text, err := readSecret("share.key_file", s.KeyFile)
		if err != nil {
			return set, err
		}
		if set.Keys, err = share.ParseKeys(text); err != nil {
			return set, fmt.Errorf("share.key_file: %s: %w", s.KeyFile, err)
		}
	}
	if s.URL.TLS {
		set.Login.TLS, err = fleetTLS(s)
	}
	return set, err
}

func fleetTLS(s config.Share) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("share.ca_file: %w", err)
		}
		if cfg.RootCAs = x509.NewCertPool(); !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("share.ca_file: %s: no certificate in it: want PEM", s.CAFile)
		}
	}
	if s.CertFile == "" {
		return cfg, nil
	}
	path, err := config.SecretPath(s.CertFile, os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("share.cert_file: %w", err)
	}
	certificate, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("share.cert_file: %w", err)
	}
	key, err := readSecret("share.cert_key_file", s.CertKeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("share.cert_file, share.cert_key_file: %w", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

const maxSecret = 64 << 10 // bytes of a file with a secret

// readSecret reads a file with a secret, which other local users must not be able
// to. Its errors never show what is in it.
func readSecret(setting, path string) ([]byte, error) {
	at, err := config.SecretPath(path, os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	info, err := os.Stat(at)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", setting, err)
	case !info.Mode().IsRegular() || info.Size() > maxSecret:
		return nil, fmt.Errorf("%s: %s: want a file of a few lines", setting, path)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s: %s: every local user can read it (mode %#o): 'chmod o-rwx %s'", setting, path, info.Mode().Perm(), at)
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return text, nil
}
