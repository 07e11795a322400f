// Package doctor audits the host that a mail server runs on: whether Postfix
// asks tlspolicyd and understands its answers, whether smtp(8) reaches the
// socket from inside its chroot, whether the resolvers validate, and whether
// configuration, database, clock, trust store and units are as they should be.
//
// Gathering (Gather) collects facts, one file a source, and changes nothing.
// Judging (Judge) is pure functions from facts to findings. fix.go writes a
// script of what can be fixed in main.cf; only the operator runs it.
package doctor

import (
	"cmp"
	"context"
	"sync"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/resolverprobe"
	"tlspolicyd/share/valkey"
)

// Limit is how long Gather takes at most.
const Limit = 18 * time.Second

// DefaultBroken has a wrong DS record on purpose. Comcast keeps it for tests
// like this.
const DefaultBroken = "dnssec-failed.org"

// Options say which host this is.
type Options struct {
	Config     config.Config
	ConfigFile string // that Config is read from; it may be absent
	ConfigErr  error  // the mistake in ConfigFile, whose place Config's defaults take; nil: none
	Build      admin.Build

	// Sockets are where the daemon listens, unless systemd says otherwise:
	// "unix:/path" or "tcp:host:port".
	Sockets []string
	Admin   string // path of the control socket; "": there is none

	PostfixConfig string // directory for postconf -c; "": Postfix's default
	Signed        string // a name with a valid signature; "": the root
	Broken        string // a name with a wrong signature; "": DefaultBroken

	Engine    *valkey.Login // of Config.Share; nil: there is none, or EngineErr
	EngineErr error         // why its files cannot be read

	// Of the host; "" is where they are. For tests.
	ResolvConf string // /etc/resolv.conf
	Systemd    string // /run/systemd/system, which exists where systemd runs
}

func (o Options) withDefaults() Options {
	o.Signed = cmp.Or(o.Signed, resolverprobe.Root)
	o.Broken = cmp.Or(o.Broken, DefaultBroken)
	o.ResolvConf = cmp.Or(o.ResolvConf, "/etc/resolv.conf")
	o.Systemd = cmp.Or(o.Systemd, "/run/systemd/system")
	return o
}

// Facts are what was seen of a host.
type Facts struct {
	Config   ConfigFile
	Postfix  Postfix
	Sockets  []Probe
	Resolver Resolvers
	Database Database
	Clock    Clock
	Trust    Trust
	Units    Units
	Daemon   Daemon

	Collector Collector
	Share     Share
}

// Gather collects facts, within Limit. It changes nothing, but asking a socket
// of systemd starts the daemon: the units are read before, the daemon is asked
// afterwards.
func Gather(ctx context.Context, o Options) Facts {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	o = o.withDefaults()
	f := Facts{Clock: gatherClock(time.Now())}
	var first, then sync.WaitGroup
	first.Go(func() { f.Postfix = gatherPostfix(ctx, o.PostfixConfig) })
	first.Go(func() { f.Units = gatherUnits(ctx, o.Systemd) })
	first.Wait() // they say where the rest is to be found
	then.Go(func() {
		f.Sockets = gatherSockets(ctx, f.Postfix, listening(f.Units, o.Sockets))
		f.Daemon = gatherDaemon(ctx, o)
		f.Database = gatherDatabase(o.Config.Cache.Path, f.Daemon.Store)
	})
	then.Go(func() { f.Share = gatherShare(ctx, o, f.Units.Service) })
	then.Go(func() { f.Resolver = gatherResolvers(ctx, o, f.Postfix) })
	then.Go(func() { f.Trust = gatherTrust(o.Config.Fetch.CAFile, f.Postfix) })
	then.Go(func() { f.Collector = gatherCollector(o, f.Postfix, f.Units.Service) })
	then.Go(func() { f.Config = gatherConfig(o, f.Units.Service.User) })
	then.Wait()
	return f
}

// Report is what doctor --json prints. docs/doctor.md documents it: fields may be
// added to, but none may change its name or meaning.
type Report struct {
	Grade  audit.Grade   `json:"grade"` // the worst of all findings
	Topics []audit.Topic `json:"topics"`
}

// Judge says what the facts mean, topic by topic.
func Judge(f Facts) []audit.Topic {
	topics := []audit.Topic{
		{Name: "configuration", Findings: judgeConfig(f)},
		{Name: "postfix", Findings: judgePostfix(f)},
		{Name: "socket", Findings: append(judgeSockets(f), judgeCollector(f)...)},
		{Name: "resolver", Findings: judgeResolvers(f)},
		{Name: "database", Findings: judgeDatabase(f)},
		{Name: "shared cache", Findings: judgeShare(f)},
		{Name: "clock", Findings: judgeClock(f)},
		{Name: "trust store", Findings: judgeTrust(f)},
		{Name: "unit", Findings: judgeUnits(f)},
	}
	for i := range topics {
		if topics[i].Findings == nil {
			topics[i].Findings = []audit.Finding{} // in JSON it is not null
		}
	}
	return topics
}
