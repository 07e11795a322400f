package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/logging"
	"tlspolicyd/internal/hostname"
	"tlspolicyd/socketmap"
)

// stopOperator is how long the control socket may take to stop.
const stopOperator = 3 * time.Second

// operator is the control socket and the address for metrics, while they run.
type operator struct {
	server    *admin.Server
	log       *logging.Log
	running   int
	ended     chan error
	listening atomic.Bool // lookups are accepted
}

// startOperator opens the sockets that are not for Postfix. They come from the
// configuration under socket activation too.
func startOperator(ctx context.Context, cfg config.Config, p *parts, lookups *socketmap.Server, sockets []net.Listener, log *logging.Log) (*operator, error) {
	var control, public net.Listener
	var err error
	if cfg.Listen.Admin != "" {
		// A client that can connect can change everything: only the mode protects it.
		if control, err = socketmap.Listen(ctx, cfg.Listen.Admin, socketmap.ListenOptions{Mode: 0o600}); err != nil {
			return nil, fmt.Errorf("listen.admin: %w", err)
		}
	}
	if cfg.Listen.HTTP != "" {
		if public, err = listenHTTP(ctx, cfg.Listen); err != nil {
			// A port that is taken must not stop the mail.
			log.Error("metrics are not served", "setting", "listen.http", "reason", err)
		}
	}
	o := &operator{log: log, ended: make(chan error, 2)}
	o.listening.Store(true)
	context.AfterFunc(ctx, func() { o.listening.Store(false) })
	o.server = admin.New(admin.Options{
		Map: p.cache, Store: p.store, Fleet: p.fleet, Metrics: p.metrics, Changes: p.changes, Log: log.Logger,
		Build: adminBuild(), Sockets: addresses(sockets), HTTPNames: httpNames(cfg.Listen),
		Resolver:    func() admin.Resolver { return p.resolver.Load() },
		Connections: lookups.Stats,
		LinesLost:   log.Lost,
		Listening:   o.listening.Load,
		Roots:       p.roots,
		Answers: func(ctx context.Context) error {
			if !answers(ctx, p.handler, time.Second) {
				return errors.New("no answer within a second")
			}
			return nil
		},
	})
	if control != nil {
		o.run("listen.admin", func() error { return o.server.ServeControl(control) })
	}
	if public != nil {
		o.run("listen.http", func() error { return o.server.ServePublic(public) })
	}
	return o, nil
}

// listenHTTP opens listen.http. Over a Unix socket too a request must name this host.
func listenHTTP(ctx context.Context, cfg config.Listen) (net.Listener, error) {
	if strings.HasPrefix(cfg.HTTP, "unix:") {
		return socketmap.Listen(ctx, cfg.HTTP, socketmap.ListenOptions{Mode: cfg.SocketMode, Group: cfg.SocketGroup})
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", cfg.HTTP)
}

func (o *operator) run(setting string, serve func() error) {
	o.running++
	go func() {
		err := serve()
		if err != nil {
			o.log.Error("control or metrics socket failed", "setting", setting, "reason", err) // Postfix is answered all the same
		}
		o.ended <- err
	}()
}

// stop ends what runs for an operator, who is cut off if need be.
func (o *operator) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopOperator)
	defer cancel()
	if err := o.server.Shutdown(ctx); err != nil {
		o.log.Warn("control requests were cut off", "error", err)
	}
	for range o.running {
		<-o.ended
	}
}

// httpNames returns the names that a request to listen.http may have: those
// configured, the one that it listens on, and what the host calls itself.
func httpNames(cfg config.Listen) []string {
	names := slices.Clone(cfg.HTTPHosts)
	listen, port, _ := net.SplitHostPort(cfg.HTTP)
	if strings.HasPrefix(port, "/") {
		listen = "" // of a Unix socket
	}
	own, _ := os.Hostname()
	for _, name := range []string{listen, own} {
		if name, err := hostname.Parse(name); err == nil {
			names = append(names, name)
		}
	}
	return names
}

func adminBuild() admin.Build {
	b := readBuildInfo()
	return admin.Build{Version: b.Version, Revision: b.Revision, Go: b.Go}
}
