package valkey

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tlspolicyd/share"
	"tlspolicyd/share/sharetest"
)

var (
	key      = share.Keys{[]byte("a key of this fleet alone")}
	file     = share.Policy{File: []byte(sharetest.File), ID: "1"}
	noLease  = share.Lease{}
	discards = slog.New(slog.DiscardHandler)
)

// offer has a policy written, and waits for that.
func offer(t *testing.T, s *server, c *Client, domain string) {
	t.Helper()
	before := c.Stats().Stored
	c.Offer(domain, file, noLease)
	s.until(func() bool { return c.Stats().Stored > before })
}

func (s *server) must(args ...string) {
	s.t.Helper()
	if err := s.command(args...); err != nil {
		s.t.Fatal(args, err)
	}
}

// Keys of another program under the same prefix, and entries that were written by
// hand, are refused and counted; those of a newer version are left as they are.
func TestEntriesOfOthers(t *testing.T) {
	s := startServer(t)
	var log lockedBuffer
	c := join(t, Engine{Network: "unix", Hosts: []string{s.socket}}, "a.test", Settings{Keys: key}, slog.New(slog.NewTextHandler(&log, nil)))
	s.must("SET", "p:1:{string.test}", "x")
	s.must("HSET", "p:1:{large.test}", "format", "1", "file", strings.Repeat("x", 1<<20))
	s.must("HSET", "p:1:{longid.test}", "format", "1", "file", "x", "id", strings.Repeat("x", 1<<20))
	s.must("HSET", "p:1:{empty.test}", "format", "1")
	s.must("HSET", "p:1:{odd.test}", "format", "one", "more", "x")
	s.must("HSET", "p:1:{newer.test}", "format", "2", "fence", "1", "policy", "x")
	s.must("HSET", "p:1:{NOT.a.domain}", "format", "1")
	s.must("SET", "p:1:lease:{string.test}", "another", "PX", "60000")
	refused := uint64(0)
	for _, domain := range []string{"string.test", "large.test", "longid.test", "empty.test", "odd.test", "newer.test"} {
		if p, err := c.Ask(t.Context(), domain); err == nil || errors.Is(err, share.ErrNone) {
			t.Errorf("%s: %v, %v", domain, p, err)
		}
		refused++
	}
	if n := c.Stats().Refused; n != refused || !c.Stats().Up {
		t.Errorf("%+v", c.Stats())
	}
	c.Offer("newer.test", file, noLease)
	s.until(func() bool { return c.Stats().Fenced == 1 })
	offer(t, s, c, "example.test")
	if v, err := c.engine.do(t.Context(), "", "HGET", "p:1:{newer.test}", "format"); err != nil || string(v.text) != "2" {
		t.Errorf("the entry of a newer version was overwritten: %+v, %v", v, err)
	}
	if n := c.Stats().Fenced; n != 1 {
		t.Errorf("%d were fenced", n)
	}
	// A lease or an entry of another program is no failure of the engine.
	s.must("SADD", "p:1:lease:{set.test}", "x")
	for range 2 * failures {
		if lease, _, err := c.Claim(t.Context(), "set.test"); lease.Token != "" || errors.Is(err, share.ErrNone) {
			t.Error("a lease of another program was granted")
		}
		before := c.Stats().Dropped
		c.Offer("string.test", file, noLease)
		s.until(func() bool { return c.Stats().Dropped > before })
	}
	if !c.Stats().Up {
		t.Error("the engine counts as down")
	}
	// A fence that cannot be true does not count.
	for _, fence := range []string{"9e18", "inf", "nan", "x"} {
		s.must("HSET", "p:1:{fence.test}", "format", "1", "fence", fence)
		offer(t, s, c, "fence.test")
	}
	s.must("DEL", "p:1:{fence.test}")
	// A change that is too large to be read is passed over.
	ended, seen := make(chan struct{}), make(chan string, 100)
	go func() {
		defer close(ended)
		c.Watch(c.ctx, func(domain string, _ share.Policy) { seen <- domain })
	}()
	defer func() { c.cancel(); <-ended }()
	s.until(func() bool { return c.Stats().Watching })
	s.must("XADD", "p:1:changes", "*", "domain", strings.Repeat("x", 200<<10))
	s.must("XADD", "p:1:changes", "*", "domain", "example.test")
	for range 2 { // all are read again
		if got := <-seen; got != "example.test" {
			t.Errorf("saw %q", got)
		}
	}
	var listed []string
	if err := c.Each(t.Context(), func(domain string, _ share.Policy) error { listed = append(listed, domain); return nil }); err != nil || len(listed) != 1 {
		t.Errorf("listed %v, %v", listed, err)
	}
	if text := log.String(); strings.Count(text, "not believed") > int(refused) || !strings.Contains(text, "another program") {
		t.Errorf("log:\n%s", text)
	}
}

// What is written expires with the policy, and a lease by itself.
func TestNothingStaysForEver(t *testing.T) {
	s := startServer(t)
	c := s.client("a.test", Settings{Keys: key})
	offer(t, s, c, "example.test")
	if lease, _, err := c.Claim(t.Context(), "example.test"); lease.Token == "" || err != nil {
		t.Fatal(lease, err)
	}
	c.Renew(Settings{Keys: key, Timeout: 5 * time.Second, Lease: time.Hour}) // fetch.timeout was reloaded
	if lease, _, err := c.Claim(t.Context(), "later.test"); lease.Token == "" {
		t.Fatal(err)
	}
	for k, most := range map[string]int64{"p:1:{example.test}": 604800, "p:1:lease:{example.test}": 60, "p:1:lease:{later.test}": 3600} {
		conn, err := c.engine.dial(t.Context(), s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		v, err := conn.do(t.Context(), "TTL", k)
		if err != nil || v.n < most-30 || v.n > most {
			t.Errorf("%s: %+v, %v", k, v, err)
		}
	}
}

// The first command after a restart of the server is sent again, and changes are
// seen again.
func TestServerRestarts(t *testing.T) {
	s := startServer(t)
	a, b := s.client("a.test", Settings{Keys: key}), s.client("b.test", Settings{Keys: key})
	seen := make(chan string, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Watch(b.ctx, func(domain string, _ share.Policy) { seen <- domain })
	}()
	defer func() { b.cancel(); <-ended }()
	saw := func(domain string) {
		for <-seen != domain { // what is written while all are read may be seen twice
		}
	}
	offer(t, s, a, "one.test")
	saw("one.test")
	s.stop()
	s.start()
	if _, err := a.Ask(t.Context(), "one.test"); !errors.Is(err, share.ErrNone) { // it had no file
		t.Error(err)
	}
	s.until(func() bool { return b.Stats().Watching })
	offer(t, s, a, "two.test")
	saw("two.test")
	s.must("FLUSHALL")
	offer(t, s, a, "three.test")
	saw("three.test")
}

// A server that was stopped and goes on.
func TestServerIsStopped(t *testing.T) {
	s := startServer(t)
	c := s.client("a.test", Settings{Keys: key, Timeout: 50 * time.Millisecond, Lease: time.Hour})
	offer(t, s, c, "example.test")
	_ = s.process.Process.Signal(syscall.SIGSTOP)
	for range failures {
		if _, err := c.Ask(t.Context(), "example.test"); err == nil {
			t.Fatal("a stopped server answers")
		}
	}
	if _, err := c.Ask(t.Context(), "example.test"); !errors.Is(err, share.ErrDown) {
		t.Error(err)
	}
	c.Offer("meanwhile.test", file, noLease)
	_ = s.process.Process.Signal(syscall.SIGCONT)
	s.until(func() bool { return c.Stats().Up })
	s.until(func() bool { _, err := c.Ask(t.Context(), "meanwhile.test"); return err == nil }) // it is offered again
}

// The commands of docs/fleet.md are all that is needed. Less is an error that names
// the command, and none of them shows the password.
func TestUsersAndRights(t *testing.T) {
	s := startServer(t)
	rights := "+auth +eval +time +hstrlen +hmget +hset +pexpire +get +set +del +scan +xadd +xrange +xrevrange +xread"
	for user, list := range map[string]string{"all": rights, "reader": strings.NewReplacer("+set ", "", "+hset ", "").Replace(rights), "none": "+auth"} {
		s.must(append([]string{"ACL", "SETUSER", user, "on", ">s3cret", "resetkeys", "~p:1:*", "-@all"}, strings.Fields(list)...)...)
	}
	login := func(user, password string) Settings {
		return Settings{Keys: key, Login: Login{Username: user, Password: password}}
	}
	sharetest.Run(t, func(t *testing.T) func(string, share.Keys) share.Fleet {
		s.must("FLUSHALL")
		return func(host string, keys share.Keys) share.Fleet {
			set := login("all", "s3cret")
			set.Keys = keys
			return join(t, Engine{Network: "unix", Hosts: []string{s.socket}}, host, set, discards)
		}
	})
	reader := s.client("a.test", login("reader", "s3cret"))
	if _, err := reader.Ask(t.Context(), "unknown.test"); !errors.Is(err, share.ErrNone) {
		t.Error(err)
	}
	if lease, _, err := reader.Claim(t.Context(), "unknown.test"); lease.Token != "" || errors.Is(err, share.ErrNone) {
		t.Error("a lease without the right to write")
	}
	for _, set := range []Settings{login("none", "s3cret"), login("all", "wrong-s3cret"), login("", "")} {
		c := s.client("b.test", set)
		if _, err := c.Ask(t.Context(), "example.test"); err == nil || errors.Is(err, share.ErrNone) || strings.Contains(err.Error(), "s3cret") {
			if set.Login.Password != "" { // the default user may do everything
				t.Errorf("%s: %v", set.Login.Username, err)
			}
		}
		c.Renew(login("all", "s3cret"))
		if _, err := c.Ask(t.Context(), "unknown.test"); !errors.Is(err, share.ErrNone) {
			t.Errorf("with another login: %v", err)
		}
	}
}

// Full, or a replica: what is there can be read, and nothing is written. What was
// missed is written after the first policy that is taken again, and before that no
// failure leads to another one.
func TestServerThatTakesNothing(t *testing.T) {
	for name, tt := range map[string]struct{ begin, end []string }{
		"full":              {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}},
		"read-only replica": {[]string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			c := s.client("a.test", Settings{Keys: key})
			offer(t, s, c, "example.test")
			s.must(tt.begin...)
			for range 2 * failures {
				if _, err := c.Ask(t.Context(), "example.test"); err != nil {
					t.Error(err)
				}
				if lease, _, err := c.Claim(t.Context(), "other.test"); lease.Token != "" || errors.Is(err, share.ErrNone) {
					t.Error("a lease was granted")
				}
			}
			var missed []string
			for i := range uint64(10) {
				missed = append(missed, fmt.Sprintf("missed%d.test", i))
				c.Offer(missed[i], file, noLease)
			}
			s.until(func() bool { return c.Stats().Dropped == 10 })
			if _, err := c.Ask(t.Context(), "example.test"); err != nil || !c.Stats().Up { // reading works
				t.Error(err)
			}
			c.offerAgain() // as after a reconnect
			s.until(func() bool { return c.Stats().Dropped == 11 })
			s.must(tt.end...)
			offer(t, s, c, "after.test")
			s.until(func() bool { return c.Stats().Stored == 12 })
			for _, domain := range missed {
				if _, err := c.Ask(t.Context(), domain); err != nil {
					t.Error(domain, err)
				}
			}
			if n := c.Stats().Dropped; n != 11 {
				t.Errorf("%d failures", n)
			}
		})
	}
}

// A claim that the server granted after the caller had stopped waiting keeps no host
// from fetching.
func TestClaimOfUnknownOutcomeIsReleased(t *testing.T) {
	s := startServer(t)
	c := s.client("a.test", Settings{Keys: key, Timeout: 50 * time.Millisecond, Lease: time.Hour})
	offer(t, s, c, "example.test") // it is connected
	_ = s.process.Process.Signal(syscall.SIGSTOP)
	if lease, _, err := c.Claim(t.Context(), "example.test"); lease.Token != "" || err == nil {
		t.Errorf("%+v, %v", lease, err)
	}
	_ = s.process.Process.Signal(syscall.SIGCONT)
	other := s.client("b.test", Settings{Keys: key})
	s.until(func() bool {
		lease, _, _ := other.Claim(t.Context(), "example.test")
		return lease.Token != ""
	})
}

// A host whose key was wrong reads again what it did not believe.
func TestKeyIsCorrected(t *testing.T) {
	s := startServer(t)
	a, b := s.client("a.test", Settings{Keys: key}), s.client("b.test", Settings{Keys: share.Keys{[]byte("another key of some length")}})
	offer(t, s, a, "example.test")
	ended, seen := make(chan struct{}), make(chan string, 10)
	go func() {
		defer close(ended)
		b.Watch(b.ctx, func(domain string, _ share.Policy) { seen <- domain })
	}()
	defer func() { b.cancel(); <-ended }()
	s.until(func() bool { return b.Stats().Refused > 0 })
	b.Renew(Settings{Keys: key, Timeout: 5 * time.Second})
	if got := <-seen; got != "example.test" {
		t.Errorf("saw %q", got)
	}
}

// freePort returns a port that is free, and so is the one of the cluster bus.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port > 55000 {
			continue
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+10000)); err == nil {
			_ = l.Close()
			return strconv.Itoa(port)
		}
	}
}

func TestCluster(t *testing.T) {
	var nodes []*server
	var hosts []string
	for range 3 {
		port := freePort(t)
		s := startServer(t, "--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		nodes, hosts = append(nodes, s), append(hosts, "127.0.0.1:"+port)
	}
	for i, r := range [][2]string{{"0", "5460"}, {"5461", "10922"}, {"10923", "16383"}} {
		nodes[i].must("CLUSTER", "ADDSLOTSRANGE", r[0], r[1])
		host, port, _ := net.SplitHostPort(hosts[(i+1)%3])
		nodes[i].must("CLUSTER", "MEET", host, port)
	}
	e := Engine{Network: "tcp", Hosts: hosts, Cluster: true}
	set := Settings{Keys: key}
	ready := join(t, e, "ready.test", set, discards)
	for i := range 100 { // every node has to know all slots
		domain := fmt.Sprintf("d%d.test", i)
		nodes[0].until(func() bool { _, err := ready.ask(t.Context(), domain); return errors.Is(err, share.ErrNone) })
	}
	sharetest.Run(t, func(t *testing.T) func(string, share.Keys) share.Fleet {
		for _, n := range nodes {
			n.must("FLUSHALL")
		}
		return func(host string, keys share.Keys) share.Fleet {
			return join(t, e, host, Settings{Keys: keys}, discards)
		}
	})
	c := join(t, e, "a.test", set, discards)
	for i := range 30 {
		offer(t, nodes[0], c, fmt.Sprintf("d%d.test", i))
	}
	n := 0
	if err := c.Each(t.Context(), func(string, share.Policy) error { n++; return nil }); n < 30 || err != nil {
		t.Errorf("%d of 30, %v", n, err)
	}
	// A slot that moves to another node is found there.
	id := nodes[1].text("CLUSTER", "MYID")
	slot := strconv.Itoa(int(slotOf("p:1:{moved.test}")))
	for _, n := range nodes {
		n.must("CLUSTER", "SETSLOT", slot, "NODE", id)
	}
	nodes[0].until(func() bool { _, err := c.ask(t.Context(), "moved.test"); return errors.Is(err, share.ErrNone) })
	offer(t, nodes[0], c, "moved.test")
}

func (s *server) text(args ...string) string {
	s.t.Helper()
	c, err := dial(s.t.Context(), "unix", s.socket, 0, &Login{}, false)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	v, err := c.do(s.t.Context(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(v.text)
}

func (s *server) number(args ...string) int64 {
	s.t.Helper()
	c, err := dial(s.t.Context(), "unix", s.socket, 0, &Login{}, false)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	v, err := c.do(s.t.Context(), args...)
	if err != nil {
		s.t.Fatal(err)
	}
	if v.kind == '*' {
		return int64(len(v.array))
	}
	return v.n
}

func TestSentinelFailover(t *testing.T) {
	ports := []string{freePort(t), freePort(t), freePort(t)}
	master := startServer(t, "--port", ports[0], "--bind", "127.0.0.1")
	replica := startServer(t, "--port", ports[1], "--bind", "127.0.0.1", "--replicaof", "127.0.0.1", ports[0], "--repl-diskless-sync-delay", "0")
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\nunixsocket %s\ndir %s\nsentinel monitor mail 127.0.0.1 %s 1\n"+
		"sentinel down-after-milliseconds mail 500\nsentinel failover-timeout mail 3000\n", ports[2], filepath.Join(dir, "s"), dir, ports[0])
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := &server{t: t, socket: filepath.Join(dir, "s"), args: []string{conf, "--sentinel"}, bare: true}
	sentinel.start()
	t.Cleanup(sentinel.stop)
	e := Engine{Network: "tcp", Hosts: []string{"127.0.0.1:1", "127.0.0.1:" + ports[2]}, SentinelMaster: "mail"}
	a := join(t, e, "a.test", Settings{Keys: key}, discards)
	offer(t, master, a, "example.test")
	replica.until(func() bool { return replica.number("EXISTS", "p:1:{example.test}") == 1 })
	sentinel.until(func() bool { return sentinel.number("SENTINEL", "REPLICAS", "mail") == 1 })
	master.stop()
	replica.until(func() bool {
		if _, err := a.ask(t.Context(), "example.test"); err != nil {
			return false
		}
		a.Offer("after.test", file, noLease)
		_, err := a.ask(t.Context(), "after.test")
		return err == nil
	})
	e.SentinelMaster = "other"
	_, err := join(t, e, "b.test", Settings{}, discards).Ask(t.Context(), "example.test")
	if err == nil || !strings.Contains(err.Error(), `does not know a master "other"`) {
		t.Error(err)
	}
}
