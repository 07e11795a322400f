// Package doctor audits the host that a mail server runs on: whether Postfix
// asks tlspolicyd and understands its answers, whether smtp(8) can reach the
// socket from inside its chroot, whether the resolvers validate, and whether
// database, clock, trust store and units are as they should be.
//
// One file a source gathers facts (Gather) and changes nothing; the judge_*.go
// files are pure functions from facts to findings (Judge). fix.go makes a script
// of what can be mended in main.cf, and nobody runs it but the operator.
package doctor

import (
	"context"
	"sync"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// Limit is how long Gather takes at most.
const Limit = 18 * time.Second

// The names that a resolver is tested with. The root is signed, and every
// resolver knows it; dnssec-failed.org has a wrong DS record on purpose, and is
// kept by Comcast for tests like this.
const (
	DefaultSigned = "."
	DefaultBroken = "dnssec-failed.org"
)

// Options say which host this is.
type Options struct {
	Config config.Config
	Build  admin.Build // of this program

	// Sockets are where the daemon listens, unless systemd says otherwise:
	// "unix:/path" or "tcp:host:port".
	Sockets []string
	// Admin are the control sockets to try, paths.
	Admin []string

	PostfixConfig string // directory for postconf -c; "": Postfix's default
	Signed        string // a name with a valid signature; "": DefaultSigned
	Broken        string // a name with an invalid signature; "": DefaultBroken

	// Of the host; "" is where they are. For tests.
	ResolvConf string // /etc/resolv.conf
	Systemd    string // /run/systemd/system, whose presence means that systemd runs
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&o.Signed, DefaultSigned},
		{&o.Broken, DefaultBroken},
		{&o.ResolvConf, "/etc/resolv.conf"},
		{&o.Systemd, "/run/systemd/system"},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	return o
}

// Facts are what was seen of a host.
type Facts struct {
	Postfix  Postfix
	Sockets  []Probe
	Resolver Resolvers
	Database Database
	Clock    Clock
	Trust    Trust
	Units    Units
}

// Gather looks at the host, within Limit. It changes nothing.
func Gather(ctx context.Context, o Options) Facts {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	o = o.withDefaults()
	f := Facts{Clock: gatherClock(time.Now())}
	var first, then sync.WaitGroup
	first.Go(func() { f.Postfix = gatherPostfix(ctx, o.PostfixConfig) })
	first.Go(func() { f.Units = gatherUnits(ctx, o) })
	first.Wait() // they say where the rest is to be found
	then.Go(func() { f.Sockets = gatherSockets(ctx, f.Postfix, listening(f.Units, o.Sockets)) })
	then.Go(func() { f.Resolver = gatherResolvers(ctx, o, f.Postfix) })
	then.Go(func() { f.Database = gatherDatabase(o.Config.Cache.Path, f.Units.Daemon.Store) })
	then.Go(func() { f.Trust = gatherTrust(o.Config.Fetch.CAFile, f.Postfix) })
	then.Wait()
	return f
}

// Judge says what the facts mean, topic by topic.
func Judge(f Facts) []audit.Topic {
	return []audit.Topic{
		{Name: "postfix", Findings: judgePostfix(f)},
		{Name: "socket", Findings: judgeSockets(f)},
		{Name: "resolver", Findings: judgeResolvers(f)},
		{Name: "database", Findings: judgeDatabase(f)},
		{Name: "clock", Findings: judgeClock(f)},
		{Name: "trust store", Findings: judgeTrust(f)},
		{Name: "unit", Findings: judgeUnits(f.Units)},
	}
}

// ok, warn, fail and unknown are findings without advice.
func ok(code, subject, text, evidence string) audit.Finding {
	return audit.Finding{Code: code, Grade: audit.OK, Subject: subject, Text: text, Evidence: evidence}
}

func warn(code, subject, text, evidence, advice, fix string) audit.Finding {
	return audit.Finding{Code: code, Grade: audit.Warn, Subject: subject, Text: text, Evidence: evidence, Advice: advice, Fix: fix}
}

func fail(code, subject, text, evidence, advice, fix string) audit.Finding {
	f := warn(code, subject, text, evidence, advice, fix)
	f.Grade = audit.Fail
	return f
}

func unknown(code, subject, text, evidence, advice string) audit.Finding {
	return audit.Finding{Code: code, Grade: audit.Unknown, Subject: subject, Text: text, Evidence: evidence, Advice: advice}
}
