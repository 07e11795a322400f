package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"tlspolicyd/socketmap"
)

// notify sends a state to the service manager (sd_notify(3)), if there is one.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify the service manager", "state", state, "error", err)
	}
}

// probeKey is a key that is answered without any lookup (docs/behaviour.md §2).
const probeKey = ".watchdog.invalid"

// watchdog reports to the service manager, twice in each of its intervals, that the
// daemon works, as long as lookups are answered. The service manager restarts a
// daemon that hangs; until then Postfix defers. watchdog returns when ctx ends.
func watchdog(ctx context.Context, h socketmap.Handler, log *slog.Logger) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("no watchdog", "error", err)
	}
	if err != nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if answers(ctx, h, interval/4) {
			notify(log, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("lookups hang: the service manager will restart the daemon")
		}
	}
}

// answers reports whether a lookup is answered in time.
func answers(ctx context.Context, h socketmap.Handler, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan bool, 1)
	go func() { done <- len(h.Lookup(ctx, []byte("postfix"), []byte(probeKey))) > 0 }()
	select {
	case ok := <-done:
		return ok
	case <-ctx.Done():
		return false
	}
}
