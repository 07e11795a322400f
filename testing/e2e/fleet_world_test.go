//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tlspolicyd/socketmap"
)

const (
	fleetDir    = workDir + "/fleet"
	fleetAccess = logDir + "/fleet-access.log"
)

// fleet is several hosts that send mail, each with an Unbound and a daemon of
// its own, and the domains that they send to.
type fleet struct {
	bookworm, trixie string // folders for chroot(2)
	binary           string
	domains          []string // the first ones have a policy in enforce mode
	policies         int
	ids              map[string]string // of policies that were changed
	hosts            []*fleetHost
	late             *fleetHost // joins them later
	share            string     // the configuration's [share] section; "" for none
	engine           *engine    // emptied by fresh, if not nil
	refresh          time.Duration
	ca               *authority
	names            *nameServers
	web              *process
	marks            int
}

// fleetHost is one of them.
type fleetHost struct {
	fleet    *fleet
	name     string // of its namespace
	address  string
	resolver *process
	daemon   *process
	share    string // instead of the fleet's, if not ""
}

func newFleet(hosts, domains, policies int) (*fleet, error) {
	cache, built := os.Getenv("TLSPOLICYD_E2E_CACHE"), os.Getenv("TLSPOLICYD_E2E_DAEMON")
	if cache == "" || built == "" {
		return nil, errors.New("TLSPOLICYD_E2E_CACHE or TLSPOLICYD_E2E_DAEMON is not set: run it with make e2e or make fleet")
	}
	resolvConf := workDir + "/resolv.conf"
	err := errors.Join(makePrivate(), os.MkdirAll(logDir, 0o755), write(resolvConf, "nameserver 127.0.0.1\n"),
		os.MkdirAll("/run/netns", 0o755), makeBridge(), addHost("engine", fleetEngine))
	if err != nil {
		return nil, err
	}
	f := &fleet{policies: policies, ids: map[string]string{}, binary: workDir + "/tlspolicyd", refresh: 24 * time.Hour}
	if f.bookworm, err = mountRoot(filepath.Join(cache, "bookworm"), resolvConf); err != nil {
		return nil, err
	}
	if f.trixie, err = mountRoot(filepath.Join(cache, "trixie"), resolvConf); err != nil {
		return nil, err
	}
	program, err := os.ReadFile(built)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.binary, program, 0o755); err != nil {
		return nil, err
	}
	for i := range domains {
		zone := "open.test"
		if i%6 == 5 {
			zone = "signed.test"
		}
		f.domains = append(f.domains, fmt.Sprintf("d%04d.%s", i, zone))
	}
	if err := f.startInternet(); err != nil {
		return nil, err
	}
	for i := range hosts + 1 {
		h := &fleetHost{fleet: f, name: fmt.Sprintf("mail%d", i+1), address: fmt.Sprintf("10.99.1.%d", i+1)}
		if err := errors.Join(addHost(h.name, h.address), h.resolve("")); err != nil {
			return nil, err
		}
		if i < hosts {
			f.hosts = append(f.hosts, h)
		} else {
			f.late = h
		}
	}
	return f, nil
}

// startInternet starts NSD with the domains and nginx with their policies.
func (f *fleet) startInternet() (err error) {
	if f.ca, err = newAuthority(); err != nil {
		return err
	}
	for _, d := range f.domains[:f.policies] {
		if err := f.publish(d, "mx."+d); err != nil {
			return err
		}
	}
	err = errors.Join(write(workDir+"/ca.pem", f.ca.pem), write(fleetDir+"/nginx.conf", fleetNginx))
	if err != nil {
		return err
	}
	if f.names, err = startNSD(f.bookworm, "test", fleetServer, f.zones()); err != nil {
		return err
	}
	if f.web, err = start(f.bookworm, 0, "/usr/sbin/nginx", "-e", "stderr", "-c", fleetDir+"/nginx.conf"); err != nil {
		return err
	}
	return listening(fleetWeb + ":443")
}

// zones are those of the domains.
func (f *fleet) zones() []testZone {
	open, secure := testZone{origin: "open.test", signing: unsigned}, testZone{origin: "signed.test", signing: signed}
	for i, d := range f.domains {
		label, zone, _ := strings.Cut(d, ".")
		records := label + " MX 10 mx." + label + "\nmx." + label + " A " + fleetMX + "\n"
		if i < f.policies {
			records += "_mta-sts." + label + " TXT \"v=STSv1; id=" + cmp.Or(f.ids[d], "1") + ";\"\n" +
				"mta-sts." + label + " A " + fleetWeb + "\n"
		}
		if zone == open.origin {
			open.records += records
		} else {
			secure.records += records
		}
	}
	return []testZone{open, secure}
}

// change gives a domain of the unsigned zone another policy under another id.
func (f *fleet) change(domain, id, mx string) error {
	f.ids[domain] = id
	_, err := f.names.publish(f.zones()[0])
	return errors.Join(err, f.publish(domain, mx), f.names.nsd.stop(syscall.SIGTERM), f.names.startNSD())
}

// publish puts a policy, and the first time a certificate, where nginx reads it.
func (f *fleet) publish(domain, mx string) error {
	host := "mta-sts." + domain
	certificate := fleetDir + "/certificates/" + host + ".pem"
	if _, err := os.Stat(certificate); err != nil {
		pair, err := f.ca.certificate(host)
		if err := errors.Join(err, write(certificate, pair.pem)); err != nil {
			return err
		}
	}
	return write(fleetDir+"/policies/"+host+"/.well-known/mta-sts.txt", enforced(domain, mx).text)
}

const fleetNginx = `
daemon off;
user root;
pid ` + fleetDir + `/nginx.pid;
error_log stderr error;
worker_processes 1;
events { worker_connections 2048; }
http {
  log_format count '$remote_addr $host $status';
  access_log ` + fleetAccess + ` count;
  types { text/plain txt; }
  client_body_temp_path ` + fleetDir + `/tmp-body;
  proxy_temp_path       ` + fleetDir + `/tmp-proxy;
  fastcgi_temp_path     ` + fleetDir + `/tmp-fastcgi;
  uwsgi_temp_path       ` + fleetDir + `/tmp-uwsgi;
  scgi_temp_path        ` + fleetDir + `/tmp-scgi;
  server {
    listen ` + fleetWeb + `:443 ssl;
    ssl_certificate     ` + fleetDir + `/certificates/$ssl_server_name.pem;
    ssl_certificate_key ` + fleetDir + `/certificates/$ssl_server_name.pem;
    root ` + fleetDir + `/policies/$host;
  }
  server { listen ` + fleetWeb + `:80; location / { return 204; } }
}
`

// fetches returns how many policies nginx has served so far, and to which
// addresses. A request of the test's own marks the end in its log.
func (f *fleet) fetches() (total int, by map[string]int, err error) {
	f.marks++
	mark := fmt.Sprintf("mark%d.test", f.marks)
	request, err := http.NewRequest(http.MethodGet, "http://"+fleetWeb+"/", nil)
	if err != nil {
		return 0, nil, err
	}
	request.Host = mark
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	response.Body.Close()
	err = waitFor(func() error {
		text, err := os.ReadFile(fleetAccess)
		if err == nil && !strings.Contains(string(text), mark) {
			err = errors.New("nginx does not log the test's request")
		}
		if err != nil {
			return err
		}
		total, by = 0, map[string]int{}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[2] == "200" {
				total++
				by[fields[0]]++
			}
		}
		return nil
	})
	return total, by, err
}

// fetchedBy runs f and returns how many policies nginx served meanwhile.
func (f *fleet) fetchedBy(work func() error) (int, error) {
	before, _, err1 := f.fetches()
	err2 := work()
	after, _, err3 := f.fetches()
	return after - before, errors.Join(err1, err2, err3)
}

// resolve starts the Unbound of a host afresh, with more lines in its server
// clause.
func (h *fleetHost) resolve(extra string) (err error) {
	if h.resolver != nil {
		if err := h.resolver.stop(syscall.SIGKILL); err != nil {
			return err
		}
	}
	config := `
server:
  interface: 127.0.0.1
  access-control: 127.0.0.0/8 allow
  username: ""
  chroot: ""
  directory: "` + dnsDir + `"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-ip6: no
  num-threads: 1
  module-config: "validator iterator"
  root-hints: "` + dnsDir + `/hints"
  trust-anchor-file: "` + dnsDir + `/anchor"
  local-zone: "test." nodefault
` + extra + `
remote-control:
  control-enable: no
`
	if err := write(h.dir()+"/unbound.conf", config); err != nil {
		return err
	}
	h.resolver, err = startIn(h.name, h.fleet.bookworm, 0, "/usr/sbin/unbound", "-d", "-p", "-c", h.dir()+"/unbound.conf")
	if err != nil {
		return err
	}
	return waitFor(func() error {
		return inNamespace(h.name, func() error { return answersOnce("127.0.0.1", ".") })
	})
}

// blocking are lines for Unbound by which every TXT lookup of a policy remains
// without an answer ("deny"), or is refused ("always_refuse").
func (f *fleet) blocking(how string) string {
	var b strings.Builder
	for _, d := range f.domains {
		fmt.Fprintf(&b, "  local-zone: \"_mta-sts.%s.\" %s\n", d, how)
	}
	return b.String()
}

func (h *fleetHost) dir() string { return fleetDir + "/" + h.name }

// start starts the daemon of a host with what it knew when it was stopped.
func (h *fleetHost) start() error {
	share := h.fleet.share
	if h.share != "" {
		share = h.share
	}
	config := `
[listen]
socketmap = ["unix:` + h.dir() + `/socketmap.sock"]
admin = "unix:` + h.dir() + `/admin.sock"
http = "` + h.address + `:9461"
[dns]
servers = ["127.0.0.1"]
[fetch]
ca_file = "` + workDir + `/ca.pem"
allow_networks = ["10.99.0.0/16"]
[cache]
path = "` + h.dir() + `/policies.db"
[refresh]
interval = "` + h.fleet.refresh.String() + `"
[log]
level = "warn"
` + share
	program := h.dir() + "/tlspolicyd-" + h.name // its log has that name
	err := errors.Join(write(h.config(), config), os.Chown(h.dir(), nobody, nobody))
	if err == nil {
		if err = os.Symlink(h.fleet.binary, program); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	h.daemon, err = startIn(h.name, "", nobody, program, "serve", "--config", h.config())
	if err != nil {
		return err
	}
	return waitFor(func() error {
		select {
		case <-h.daemon.done:
			return fmt.Errorf("tlspolicyd of %s ended", h.name)
		default:
		}
		response, err := http.Get("http://" + h.address + ":9461/healthz")
		if err == nil {
			response.Body.Close()
		}
		return err
	})
}

func (h *fleetHost) config() string { return h.dir() + "/tlspolicyd.toml" }

func (h *fleetHost) stop() error {
	if h.daemon == nil {
		return nil
	}
	defer func() { h.daemon = nil }()
	return h.daemon.stop(syscall.SIGTERM)
}

// forget stops the daemon and deletes all that it knew.
func (h *fleetHost) forget() error {
	err := h.stop()
	if removed := os.Remove(h.dir() + "/policies.db"); !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return err
}

// each runs f for all hosts at once.
func each(hosts []*fleetHost, f func(*fleetHost) error) error {
	errs := make([]error, len(hosts))
	var group sync.WaitGroup
	for i, h := range hosts {
		group.Go(func() { errs[i] = f(h) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// fresh starts all hosts with nothing known.
func (f *fleet) fresh(t *testing.T) {
	t.Helper()
	must(t, each(f.hosts, (*fleetHost).forget))
	if f.engine != nil {
		must(t, commands("FLUSHALL")(f.engine))
	}
	must(t, each(f.hosts, (*fleetHost).start))
	f.waitShared(t, f.hosts...)
}

// run runs a subcommand of the program on a host.
func (h *fleetHost) run(args ...string) (string, error) {
	var stdout string
	err := inNamespace(h.name, func() (err error) {
		stdout, _, err = command("", append([]string{h.fleet.binary}, append(args, "--config", h.config())...)...)
		return err
	})
	return stdout, err
}

// get fetches a page of listen.http.
func (h *fleetHost) get(path string) (status int, body string, err error) {
	response, err := http.Get("http://" + h.address + ":9461" + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	return response.StatusCode, text.String(), err
}

// metric returns a sample of the host's metrics, or 0.
func (h *fleetHost) metric(sample string) (value float64) {
	_, body, _ := h.get("/metrics")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, sample+" "); ok {
			_, _ = fmt.Sscan(rest, &value)
		}
	}
	return value
}

// answersOf is what a host said about some domains.
type answersOf struct {
	secure, notFound int
	wrong            []string // all other answers
	times            []time.Duration
}

// add counts a reply.
func (a *answersOf) add(domain string, r socketmap.Reply, took time.Duration) {
	switch {
	case r.String() == "OK secure match=mx."+domain+" servername=hostname":
		a.secure++
	case r.Status == socketmap.NotFound:
		a.notFound++
	default:
		a.wrong = append(a.wrong, domain+": "+r.String())
	}
	a.times = append(a.times, took)
}

// quantile returns the time within which that part of the answers came.
func (a *answersOf) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(a.times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// ask looks domains up, with as many clients as said, each with one request at
// a time, as Postfix does. Times are in the order of domains for one client.
func (h *fleetHost) ask(domains []string, clients int) (*answersOf, error) {
	var (
		all   answersOf
		mutex sync.Mutex
		next  atomic.Int64
		group sync.WaitGroup
		errs  = make([]error, clients)
	)
	for c := range clients {
		group.Go(func() {
			client, err := socketmap.NewClient("unix:" + h.dir() + "/socketmap.sock")
			if err != nil {
				errs[c] = err
				return
			}
			defer client.Close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(domains) {
					return
				}
				began := time.Now()
				reply, err := client.Lookup(context.Background(), "postfix", domains[i])
				took := time.Since(began)
				if err != nil {
					errs[c] = err
					return
				}
				mutex.Lock()
				all.add(domains[i], reply, took)
				mutex.Unlock()
			}
		})
	}
	group.Wait()
	return &all, errors.Join(errs...)
}
