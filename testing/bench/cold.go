package main

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"

	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/load"
)

// What the network in the lab takes: each question, and three times that a policy
// host.
const (
	dnsDelay  = 20 * time.Millisecond
	httpDelay = 3 * dnsDelay

	coldConnections = 50
	silentEvery     = 20 // 5 % of the policy hosts
)

// coldKinds are what new domains may be, with the shortest way through the
// network to what the answer rests on: three questions one after the other for
// DANE (MX, address, TLSA), two and the policy host for MTA-STS.
var coldKinds = []struct {
	name  string
	chain time.Duration
}{
	{"none", 3 * dnsDelay},
	{"dane", 3 * dnsDelay},
	{"sts", 2*dnsDelay + httpDelay},
}

const coldPolicy = "version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: 604800\n"

func coldName(kind string, i int) string { return fmt.Sprintf("d%d.%s.test", i, kind) }

// labRole is the role of the internet: a directory for its CA, how many domains
// there are of each kind, every which policy host never answers (0: none), and how
// long DNS takes.
func labRole(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	silent, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	delay, err := time.ParseDuration(args[3])
	if err != nil {
		return err
	}
	w := lab.New()
	defer w.Close()
	if err := w.WriteCA(filepath.Join(args[0], "ca.pem")); err != nil {
		return err
	}
	peopled(w, n, silent)
	w.Delay(delay)
	w.DelayHTTP(3 * delay)
	dns, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		return err
	}
	var proxy netip.AddrPort
	if proxy, err = w.ListenProxy("127.0.0.1:0"); err != nil {
		return err
	}
	runtime.GC()
	fmt.Println(dns, proxy)
	untilStdinEnds()
	return nil
}

func peopled(w *lab.World, n, silent int) {
	w.Zone("mx.test. A 192.0.2.1\nmx.dane.test. A 192.0.2.2")
	w.Zone("_25._tcp.mx.dane.test. TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
	for i := range n {
		w.Zone(coldName("none", i) + ". MX 10 mx.test.")
		w.Zone(coldName("dane", i) + ". MX 10 mx.dane.test.")
		domain := coldName("sts", i)
		w.Zone(domain + ". MX 10 mx.test.")
		host := w.PolicyHost(domain, coldPolicy)
		if silent > 0 && i%silent == 0 {
			host.Fault(lab.HostFault{Stall: lab.AtHandshake})
		}
	}
}

// cold asks for domains that the daemon has never heard of.
func cold(ctx context.Context, s settings) error {
	w := table("domains", "silent hosts", "chain", "p50", "of chain", "p90", "p99", "lookups/s", "CPU each: daemon", "lab")
	for _, silent := range []int{0, silentEvery} {
		for _, kind := range coldKinds {
			if silent > 0 && kind.name != "sts" {
				continue
			}
			r, used, err := coldRun(ctx, s, kind.name, silent, dnsDelay, coldConnections)
			if err != nil {
				return err
			}
			var times []time.Duration // of hosts that answer
			for i, d := range r.Took {
				if silent == 0 || i%silent != 0 {
					times = append(times, d)
				}
			}
			slices.Sort(times)
			at := func(share float64) time.Duration { return times[int(share*float64(len(times)-1))] }
			ms := func(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/1e6) }
			share := "none"
			if silent > 0 {
				share = fmt.Sprintf("%d %% (not counted)", 100/silent)
			}
			row(w, fmt.Sprintf("%d %s", len(times), kind.name), share, kind.chain, ms(at(0.5)),
				fmt.Sprintf("%.2f", float64(at(0.5))/float64(kind.chain)), ms(at(0.9)), ms(at(0.99)),
				fmt.Sprintf("%.0f", r.Rate()), micros(float64(used.daemon)/float64(r.Asked)), micros(float64(used.lab)/float64(r.Asked)))
		}
	}
	return w.Flush()
}

// instant is cold in a network that takes no time: what is left is the daemon's
// work, and the disk's.
func instant(ctx context.Context, s settings) error {
	w := table("clients", "domains", "p50", "p99", "lookups/s", "CPU each: daemon", "lab")
	for _, clients := range []int{1, coldConnections} {
		for _, kind := range coldKinds {
			r, used, err := coldRun(ctx, s, kind.name, 0, 0, clients)
			if err != nil {
				return err
			}
			slices.Sort(r.Took)
			at := func(share float64) string { return micros(float64(r.Took[int(share*float64(len(r.Took)-1))])) }
			row(w, clients, fmt.Sprintf("%d %s", len(r.Took), kind.name), at(0.5), at(0.99), fmt.Sprintf("%.0f", r.Rate()),
				micros(float64(used.daemon)/float64(r.Asked)), micros(float64(used.lab)/float64(r.Asked)))
		}
	}
	return w.Flush()
}

type coldCPU struct{ daemon, lab time.Duration }

// coldRun asks for new domains of one kind, from a new daemon in a new lab.
func coldRun(ctx context.Context, s settings, kind string, silent int, delay time.Duration, connections int) (*load.Result, coldCPU, error) {
	var used coldCPU
	dir, remove, err := tempDir()
	if err != nil {
		return nil, used, err
	}
	defer remove()
	c, err := startChild("as-lab", dir, strconv.Itoa(s.cold), strconv.Itoa(silent), delay.String())
	if err != nil {
		return nil, used, err
	}
	defer c.stop()
	h, err := startHost(ctx, s, dir, labConfig(dir, c))
	if err != nil {
		return nil, used, err
	}
	defer h.Stop()
	keys := make([]string, s.cold)
	for i := range keys {
		keys[i] = coldName(kind, i)
	}
	used = coldCPU{-cpu(h.Pid()), -cpu(c.cmd.Process.Pid)}
	r, err := load.Clients{
		Network: "unix", Address: h.unix, Connections: connections, Once: true,
		Requests: load.Requests("postfix", keys),
	}.Run(ctx)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%d of %d lookups failed", r.Failed, r.Asked)
	}
	used.daemon += cpu(h.Pid())
	used.lab += cpu(c.cmd.Process.Pid)
	return r, used, err
}
