package main

import (
	"log/slog"
	"slices"
	"strings"

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
	log         *slog.Logger
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
	changed := config.Changes(r.cfg, cfg)
	waiting := slices.DeleteFunc(slices.Clone(changed), func(key string) bool { return !slices.Contains(restartOnly[:], key) })
	changed = slices.DeleteFunc(changed, func(key string) bool { return slices.Contains(restartOnly[:], key) })
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
	cfg.Share.URL, cfg.Share.SentinelMaster, cfg.Share.Cluster, cfg.Share.Prefix = was.URL, was.SentinelMaster, was.Cluster, was.Prefix
	cfg.Log.Format = r.cfg.Log.Format
	return cfg
}

func list(keys []string) string {
	if len(keys) == 0 {
		return "nothing"
	}
	return strings.Join(keys, ", ")
}
