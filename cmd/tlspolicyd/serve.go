package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/socketmap"
)

// How long each step of stopping may take. A lookup in flight takes 15 s at
// most; systemd kills after 90 s.
const (
	stopServing = 20 * time.Second
	stopParts   = 10 * time.Second
	stopLog     = 2 * time.Second
)

func newServe(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `serve answers Postfix until it gets SIGTERM or SIGINT. It listens on the
configured sockets, or on those that systemd passes to it.

On SIGHUP it reads its configuration again. Most settings are in force at once;
the log names those that need a restart. A file with a mistake changes nothing.

Without root and without configuration its sockets are in
$XDG_RUNTIME_DIR/tlspolicyd and its database in ~/.local/state/tlspolicyd.`,
		Example: `  tlspolicyd serve
  tlspolicyd serve --config /etc/tlspolicyd/tlspolicyd.toml`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (config.Config, error) {
				cfg, err := o.load()
				if err == nil {
					err = checkHost(cfg)
				}
				return cfg, err
			}
			cfg, err := load()
			if err != nil {
				return err
			}
			if err := serve(cmd.Context(), cfg, load, cmd.ErrOrStderr()); err != nil {
				return unknownError(err)
			}
			return nil
		},
	}
}

// serve runs the daemon until ctx ends or a signal asks it to stop, and then
// stops it in order: sockets, background work and store, log. load reads the
// settings anew for a reload.
func serve(ctx context.Context, cfg config.Config, load func() (config.Config, error), stderr io.Writer) error {
	// Never touched, so no memory, but the garbage collector counts it and lets twice
	// as much garbage gather: with the few MiB in use it would run after each hundred
	// first lookups.
	ballast := make([]byte, 4<<20)
	defer runtime.KeepAlive(ballast)
	// A reader of stderr that goes away must not take the daemon with it:
	// without this, Go ends the process at the first write.
	signal.Ignore(syscall.SIGPIPE)
	// Nothing that is created is for others, but the sockets, whose mode is set.
	defer syscall.Umask(syscall.Umask(0o077))

	level := new(slog.LevelVar)
	level.Set(cfg.Log.Level)
	log := logging.New(stderr, logging.Options{Level: level, Format: logging.Format(cfg.Log.Format)})
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopLog)
		defer cancel()
		_ = log.Close(ctx) // there is no log left
	}()

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	listeners, err := openListeners(ctx, cfg)
	if err != nil {
		return err
	}
	p, err := newParts(ctx, cfg, log.Logger)
	if err != nil {
		closeAll(listeners)
		return err
	}
	server := &socketmap.Server{Handler: p.handler, Log: log.Logger}
	server.SetLimits(connectionLimits(cfg.Listen.MaxConnections, log.Logger))
	p.dialer.server.Store(server)
	r := &reloader{load: load, cfg: cfg, level: level, server: server, reconfigure: p.reconfigure, override: p.override, log: log.Logger}
	op, err := startOperator(ctx, cfg, p, server, listeners, log)
	if err == nil {
		logStart(log.Logger, cfg, p, listeners)
		go r.watchOverrides(ctx, overridePoll)
		err = answer(ctx, stop, server, listeners, hup, r.reload)
		op.stop()
	} else {
		closeAll(listeners)
	}

	stopCtx, cancel := context.WithTimeout(context.Background(), stopParts)
	defer cancel()
	if stopErr := p.stop(stopCtx); stopErr != nil {
		err = errors.Join(err, fmt.Errorf("stop: %w", stopErr))
	}
	if err == nil {
		log.Info("stopped")
	}
	return err
}

// openListeners takes the sockets from systemd, or opens those configured, and
// creates the directories that are needed.
func openListeners(ctx context.Context, cfg config.Config) ([]net.Listener, error) {
	listeners, err := activated()
	if err != nil {
		return nil, err
	}
	var sockets []string
	if len(listeners) == 0 {
		sockets = append(sockets, cfg.Listen.Socketmap...)
	}
	if err := makeDirs(cfg, config.DefaultDirs(), append(sockets, cfg.Listen.Admin)); err != nil {
		closeAll(listeners)
		return nil, err
	}
	if len(listeners) > 0 {
		return listeners, nil
	}
	return listen(ctx, cfg.Listen)
}

// answer serves the listeners until ctx ends or one of them fails. Before that
// the service manager hears that the daemon is ready, afterwards that it stops.
func answer(ctx context.Context, stop func(), server *socketmap.Server, listeners []net.Listener, hup <-chan os.Signal, reload func()) error {
	log := server.Log
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- server.Serve(l) }()
	}
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() { defer close(watching); watchdog(ctx, server.Handler, log) }()
	notify(log, daemon.SdNotifyReady)

	var err error
	running := len(listeners)
	for err == nil && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
			running--
			err = fmt.Errorf("accept connections: %w", err)
		case <-hup:
			reload()
		}
	}
	// A second signal ends the process at once.
	stop()
	cancel()
	notify(log, daemon.SdNotifyStopping)
	log.Info("stopping")
	<-watching
	stopCtx, cancelStop := context.WithTimeout(context.Background(), stopServing)
	defer cancelStop()
	if stopErr := server.Shutdown(stopCtx); stopErr != nil {
		log.Warn("lookups were cut off", "error", stopErr)
	}
	for range running {
		<-failed
	}
	return err
}

// logStart logs in one line what runs, and in others when DANE (docs/behaviour.md
// §4) or MTA-STS cannot work.
func logStart(log *slog.Logger, cfg config.Config, p *parts, listeners []net.Listener) {
	log.Info("started", "version", readBuildInfo().Version, "sockets", addresses(listeners),
		"resolvers", p.resolvers, "ad_trusted", p.trustAD, "database", cfg.Cache.Path, "entries", p.entries)
	for _, address := range openToNetwork(listeners) {
		log.Warn("listening on all interfaces: any host that can reach this port can query and cause lookups: "+
			"name one address in listen.socketmap, e.g. tcp:127.0.0.1:8461, or use a firewall", "socket", address)
	}
	if !p.trustAD {
		warnNoDANE(log)
	}
	if err := p.roots(); err != nil {
		log.Warn("MTA-STS is off: no policy can be fetched", "reason", err)
	}
}

// warnNoDANE says what it means that AD bits do not count, and what to do.
func warnNoDANE(log *slog.Logger) {
	log.Warn("DANE is off: a resolver is not on loopback, so its AD bits could be forged on the way " +
		"(RFC 7672 section 2.1.3): run a validating resolver on this host and name it in dns.servers, " +
		"or set dns.trust_ad = true if the path to it is safe")
}
