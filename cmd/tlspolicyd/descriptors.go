package main

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/socketmap"
)

// connectionLimits returns how many lookup connections are served and how many
// may wait: as configured, if the process may open enough files (RLIMIT_NOFILE,
// which Go has raised to the hard limit), and fewer if not.
func connectionLimits(configured int, log *slog.Logger) (serve, wait int) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return configured, 0
	}
	serve, wait = shareFiles(configured, uint64(files.Cur))
	if serve < configured {
		log.Warn("fewer connections than configured: the process may open too few files",
			"setting", "listen.max_connections", "configured", configured, "limit", serve, "files", files.Cur)
	}
	return serve, wait
}

// shareFiles divides the files that may be open between lookup connections, an
// eighth of which are served above the limit, and all else: a quarter, at least
// 128, is for lookups, the database and the operator.
func shareFiles(configured int, files uint64) (serve, wait int) {
	const enough = 1 << 22 // for the largest listen.max_connections
	n := int(min(files, enough))
	n -= min(max(n/4, 128), n/2)
	serve = max(min(configured, n/2), 1)
	wait = max(min(max(serve, 1024), n-serve-serve/8), 1)
	return serve, wait
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer connects for lookups. When the process can open no more files, it closes
// idle lookup connections and tries once more.
type dialer struct {
	net.Dialer
	server atomic.Pointer[socketmap.Server] // nil: not serving yet
}

// DialContext connects as net.Dialer does.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	nc, err := d.Dialer.DialContext(ctx, network, address)
	if s := d.server.Load(); s != nil && dnsclient.LocalFault(err) && s.CloseIdle() {
		return d.Dialer.DialContext(ctx, network, address)
	}
	return nc, err
}
