package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/internal/tlsrpt"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
)

// parts is what answers lookups, put together.
type parts struct {
	handler   socketmap.Handler
	resolvers []netip.AddrPort // that are asked at this moment
	trustAD   bool             // their AD bits count (7672 §2.1.3)
	entries   int              // records in the store

	// For the operator.
	cache    *policymap.Map
	store    store.Store
	fleet    share.Fleet // nil: none
	metrics  *admin.Metrics
	changes  *admin.Changes
	resolver *atomic.Pointer[dnsclient.Client] // in force
	roots    func() error                      // mtasts.ErrNoRoots when there are none now

	dialer *dialer // of lookups

	// reconfigure puts new settings in force, or returns why that cannot be.
	// The parts that are only built once keep theirs.
	reconfigure func(config.Config) error
	override    func(config.Config) // its override lines alone

	// stop ends the background work, waits for it and closes the store. It is
	// called once, after the last lookup was answered or cut off.
	stop func(context.Context) error
}

// newParts opens the store and builds everything behind the socket. The log
// may be used until stop has returned.
func newParts(_ context.Context, cfg config.Config, log *slog.Logger) (*parts, error) {
	var built atomic.Pointer[policymap.Map]
	changed := func(servers []netip.AddrPort, trusted bool) {
		logResolvers(log, servers, trusted)
		if m := built.Load(); m != nil {
			m.Reread()
		}
	}
	dial := new(dialer)
	resolver, settings, err := mapConfig(cfg, dial.DialContext, changed)
	if err != nil {
		return nil, err
	}
	db, err := bolt.Open(cfg.Cache.Path, bolt.Options{MaxEntries: cfg.Cache.MaxEntries, MaxBytes: cfg.Cache.MaxBytes, Log: log})
	if err != nil {
		return nil, databaseError(cfg.Cache.Path, err)
	}
	observer := logging.NewObserver(log)
	metrics := admin.NewMetrics(adminBuild())
	changes := admin.NewChanges(cfg.Cache.Path+".changes", log)
	current := new(atomic.Pointer[dnsclient.Client])
	current.Store(resolver)
	var fetcher atomic.Pointer[mtasts.Fetcher]
	fetcher.Store(settings.Fetcher.(*mtasts.Fetcher))
	hosts, err := newFleet(cfg, log)
	if err != nil {
		_ = db.Close() // nothing was written
		return nil, err
	}
	reports := tlsrpt.NewSender(func(domain string, what tlsrpt.Outcome, err error) {
		metrics.Reported(what)
		observer.Reported(domain, what, err)
	})
	reports.Use(cfg.TLSRPT.Socket, resolver)
	m := policymap.New(policymap.Options{
		Store: db, Config: settings, Fleet: hosts.engine(),
		Observer: policymap.Observers{observer, metrics, changes, failedFetches{Sender: reports}}, Concurrency: cfg.Fetch.Concurrency,
		Client: socketmap.ClientName,
	})
	built.Store(m)
	return &parts{
		handler:   logging.Lookups{Next: m, Log: log, Except: probeKey},
		dialer:    dial,
		resolvers: resolver.Servers(),
		trustAD:   resolver.Trusted(),
		entries:   db.Len(),
		cache:     m, store: db, fleet: hosts.engine(), metrics: metrics, changes: changes, resolver: current,
		roots: func() error {
			_, err := fetcher.Load().Roots()
			return err
		},
		override: func(cfg config.Config) { m.SetOverrides(mapOverrides(cfg)) },
		reconfigure: func(cfg config.Config) error {
			next, settings, err := mapConfig(cfg, dial.DialContext, changed)
			if err != nil {
				return err
			}
			if err := hosts.renew(cfg); err != nil {
				return err
			}
			m.Reconfigure(settings)
			if !slices.Equal(next.Servers(), resolver.Servers()) || next.Trusted() != resolver.Trusted() {
				logResolvers(log, next.Servers(), next.Trusted())
			}
			reports.Use(cfg.TLSRPT.Socket, next)
			resolver = next
			current.Store(next)
			fetcher.Store(settings.Fetcher.(*mtasts.Fetcher))
			return nil
		},
		stop: func(ctx context.Context) error {
			done := make(chan error, 1)
			go func() {
				m.Close()
				hosts.close()
				reports.Close()
				observer.Close()
				changes.Close()
				done <- db.Close()
			}()
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return errors.New("the database does not finish writing")
			}
		},
	}, nil
}

// failedFetches has fetches that failed reported.
type failedFetches struct {
	policymap.Observers // none: all other events are dropped
	*tlsrpt.Sender
}

// Fetched implements policymap.Observer.
func (r failedFetches) Fetched(f policymap.Fetch) {
	if f.Err != nil {
		r.Failed(tlsrpt.Failure{Domain: f.Domain, Err: f.Err, InForce: f.InForce})
	}
}

// newResolver returns the configured resolver; changed, when not nil, gets
// other servers in /etc/resolv.conf.
func newResolver(cfg config.Config, dial dialFunc, changed func([]netip.AddrPort, bool)) (*dnsclient.Client, error) {
	return dnsclient.New(dnsclient.Config{
		Servers: cfg.DNS.Servers, TrustAD: cfg.DNS.TrustAD, Timeout: cfg.DNS.Timeout, Dial: dial, OnChange: changed,
	})
}

func logResolvers(log *slog.Logger, servers []netip.AddrPort, trusted bool) {
	log.Info("resolvers changed", "resolvers", servers, "ad_trusted", trusted)
	if !trusted {
		warnNoDANE(log)
	}
}

func newFetcher(cfg config.Config, dial dialFunc, resolver dnsclient.Resolver) (*mtasts.Fetcher, error) {
	roots, err := trustStore(cfg.Fetch.CAFile)
	if err != nil {
		return nil, err
	}
	return &mtasts.Fetcher{
		Resolver: resolver, RootCAs: roots, System: new(mtasts.SystemRoots), AllowNetworks: cfg.Fetch.AllowNetworks,
		Proxy: cfg.Fetch.Proxy, Timeout: cfg.Fetch.Timeout, Dial: dial,
	}, nil
}

// trustStore reads a file of certificate authorities; without one it is nil,
// which stands for the system's.
func trustStore(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fetch.ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("fetch.ca_file: %s: no certificate in it: want PEM", path)
	}
	return pool, nil
}

// checkHost holds the settings against this host: what the file alone
// does not show to be wrong. Its errors are mistakes of the configuration.
func checkHost(cfg config.Config) error {
	if _, err := trustStore(cfg.Fetch.CAFile); err != nil {
		return usageError("%w", err)
	}
	if err := checkShare(cfg.Share); err != nil {
		return usageError("%w", err)
	}
	if group := cfg.Listen.SocketGroup; group != "" {
		_, err := user.LookupGroup(group)
		if _, number := strconv.ParseUint(group, 10, 31); err != nil && number != nil { // socketmap.ListenOptions takes both
			return usageError("listen.socket_group: %q: no such group on this host: create it, or name another", group)
		}
	}
	return nil
}

// mapConfig builds what may change while the daemon runs.
func mapConfig(cfg config.Config, dial dialFunc, changed func([]netip.AddrPort, bool)) (*dnsclient.Client, policymap.Config, error) {
	resolver, err := newResolver(cfg, dial, changed)
	if err != nil {
		return nil, policymap.Config{}, err
	}
	fetcher, err := newFetcher(cfg, dial, resolver)
	if err != nil {
		return nil, policymap.Config{}, err
	}
	return resolver, policymap.Config{
		Resolver:        resolver,
		Fetcher:         fetcher,
		Settings:        mapSettings(cfg),
		Overrides:       mapOverrides(cfg),
		FetchWait:       cfg.Fetch.Wait,
		RefreshInterval: cfg.Refresh.Interval,
		UnusedFor:       cfg.Refresh.UnusedFor,
		Host:            fleetHost(cfg.Share),
		ShareTimeout:    cfg.Share.Timeout,
		VerifyAfter:     cfg.Share.VerifyAfter,
	}, nil
}

// mapOverrides are the operator's own lines: those of the configuration before
// those of other files.
func mapOverrides(cfg config.Config) policy.Overrides {
	all := make(policy.Overrides, len(cfg.FileOverride)+len(cfg.Override))
	for name, line := range cfg.FileOverride {
		all[name] = policy.OverrideLine(line)
	}
	for name, literal := range cfg.Override {
		all[name] = policy.OverrideLine{Policy: literal}
	}
	return all
}

func mapSettings(cfg config.Config) policy.Settings {
	return policy.Settings{
		InsecureMXPrefersDANE: cfg.Policy.InsecureMX == config.DANE,
		PartialPrefersSTS:     cfg.Policy.Partial == config.MTASTS,
		StrictDefault:         cfg.Policy.PostfixLevel != "none" && cfg.Policy.PostfixLevel != "may",
		EnforceTesting:        cfg.Policy.Testing == config.EnforceTesting,
	}
}

// databaseError names the setting behind an error of opening the database, and
// the next step.
func databaseError(path string, err error) error {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("cache.path: %s: %w: is another tlspolicyd running? Stop it, or name another file", path, store.ErrLocked)
	case statErr == nil && info.IsDir():
		return fmt.Errorf("cache.path: %s is a directory: name a file, e.g. %s", path, filepath.Join(path, "policies.db"))
	case errors.Is(err, fs.ErrPermission):
		at := path
		if errors.Is(statErr, fs.ErrNotExist) {
			at = filepath.Dir(path) // where the file cannot be created
		}
		return fmt.Errorf("cache.path: %s: permission denied for user %s: 'chown %[2]s %s', or name another file", path, userName(), at)
	}
	return fmt.Errorf("cache.path: %w", err)
}

// userName is who runs the daemon: the number where there is no name.
func userName() string {
	id := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
