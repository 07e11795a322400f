package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/socketmap"
)

// restartOnly are the settings that are used once, when the daemon starts.
var restartOnly = [...]string{
	"listen.socketmap", "listen.socket_mode", "listen.socket_group", "listen.admin", "listen.http", "listen.http_hosts",
	"fetch.concurrency", "cache.path", "cache.max_entries", "cache.max_bytes", "log.format",
	"share.url", "share.sentinel_master", "share.cluster", "share.prefix",
}

// reloader puts the settings of a changed configuration file in force.
type reloader struct {
	load        func() (config.Config, error) // reads the file, and holds it against this host
	cfg         config.Config                 // in force
	level       *slog.LevelVar
	server      *socketmap.Server
	reconfigure func(config.Config) error
	override    func(config.Config) // puts the override lines alone in force
	log         *slog.Logger

	mu sync.Mutex // guards cfg, and what is in force: signals and watchOverrides change both
}

// reload reads the file and reports the result to the service manager and the log.
// A file with a mistake changes nothing.
func (r *reloader) reload() {
	notify(r.log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
	status := ""
	if err := r.apply(); err != nil {
		reason := oneLine(err.Error())
		r.log.Error("reload refused, the old settings stay", "reason", reason)
		// sd_notify has no message for a failed reload, but systemctl status shows this.
		status = "reload refused, the old settings stay: " + reason
	}
	notify(r.log, daemon.SdNotifyReady+"\nSTATUS="+status)
}

func (r *reloader) apply() error {
	cfg, err := r.load()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := config.Changes(r.cfg, cfg)
	waiting := slices.DeleteFunc(slices.Clone(changed), func(key string) bool { return !slices.Contains(restartOnly[:], key) })
	changed = slices.DeleteFunc(changed, func(key string) bool { return slices.Contains(restartOnly[:], key) })
	if was, next := r.cfg.Share.URL, cfg.Share.URL; was.String() == next.String() && (was.Username != next.Username || was.Password != next.Password) {
		changed = append(changed, "share.url")
	}
	if err := r.reconfigure(cfg); err != nil {
		return err
	}
	r.server.SetLimits(connectionLimits(cfg.Listen.MaxConnections, r.log))

	// The line about it is to be seen by the old level as well as by the new.
	r.level.Set(min(r.cfg.Log.Level, cfg.Log.Level))
	r.log.Info("settings reloaded", "changed", list(changed))
	if len(waiting) > 0 {
		r.log.Warn("settings changed that need a restart", "settings", list(waiting))
	}
	r.level.Set(cfg.Log.Level)
	r.cfg = r.keepFixed(cfg)
	return nil
}

// keepFixed returns the new settings with those of restartOnly as they are in force,
// so that the next reload names them again.
func (r *reloader) keepFixed(cfg config.Config) config.Config {
	limit := cfg.Listen.MaxConnections
	cfg.Listen = r.cfg.Listen
	cfg.Listen.MaxConnections = limit
	cfg.Fetch.Concurrency = r.cfg.Fetch.Concurrency
	cfg.Cache = r.cfg.Cache
	was := r.cfg.Share
	if cfg.Share.URL.String() != was.URL.String() { // else only the login in it can be another one
		cfg.Share.URL = was.URL
	}
	cfg.Share.SentinelMaster, cfg.Share.Cluster, cfg.Share.Prefix = was.SentinelMaster, was.Cluster, was.Prefix
	cfg.Log.Format = r.cfg.Log.Format
	return cfg
}

// overridePoll is how often the files of policy.override_file are looked at.
const overridePoll = 20 * time.Second

// watchOverrides puts changed override files in force until ctx ends. A file that
// cannot be read, or has a mistake, changes nothing. A network file system that hangs
// holds up nothing else.
func (r *reloader) watchOverrides(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	read, before := "", "" // states of the files: when they were read, and a tick ago
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		cfg := r.cfg
		r.mu.Unlock()
		state := stateOf(cfg.Policy.OverrideFile)
		settled := state == before // a file may be half written
		before = state
		if !settled || state == read {
			continue
		}
		read = state
		lines, err := config.ReadOverrides(cfg.Policy.OverrideFile, cfg.Override)
		if err != nil {
			r.log.Error("override files refused, the old overrides stay", "reason", oneLine(err.Error()))
			continue
		}
		r.useOverrides(ctx, cfg, lines)
	}
}

// useOverrides puts override lines in force that were read for a configuration,
// unless that is not in force any more.
func (r *reloader) useOverrides(ctx context.Context, of config.Config, lines map[string]config.FileOverride) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil || len(config.Changes(of, r.cfg)) > 0 || maps.Equal(lines, r.cfg.FileOverride) {
		return
	}
	r.cfg.FileOverride = lines
	r.override(r.cfg)
	r.log.Info("override files reloaded", "overrides", len(lines))
}

// stateOf changes when one of the files does.
func stateOf(paths []string) string {
	var all strings.Builder
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintln(&all, err)
			continue
		}
		fmt.Fprintln(&all, path, info.Size(), info.ModTime().UnixNano())
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintln(&all, st.Dev, st.Ino)
		}
	}
	return all.String()
}

func list(keys []string) string {
	if len(keys) == 0 {
		return "nothing"
	}
	return strings.Join(keys, ", ")
}
