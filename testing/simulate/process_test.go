//go:build linux

package simulate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/socketmap"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
	"tlspolicyd/testing/lab"
	"tlspolicyd/testing/lab/postfix"
)

// daemon is the process: everything between the socket and the file.
type daemon struct {
	w     *world
	dir   string
	path  string
	files int
	steps *atomic.Int64 // of the wall clock, nanoseconds
	set   policy.Settings

	*process
}

// process is one life of the daemon.
type process struct {
	db     *disk
	m      *policymap.Map
	server *socketmap.Server
	ln     *pipeListener
	served chan error
	dead   chan struct{} // closed by kill: replies after that do not count
	once   sync.Once
}

func (d *daemon) start() error {
	p := &process{db: &disk{path: d.path}, ln: newPipeListener(), served: make(chan error, 1), dead: make(chan struct{})}
	p.db.kill = p.kill
	var err error
	if p.db.Store, err = bolt.Open(d.path, bolt.Options{Log: slog.New(p.db)}); err != nil {
		return err
	}
	p.m = policymap.New(policymap.Options{
		Store: p.db, Config: d.config(), Concurrency: 4, MemorySize: 1024,
		Wall: func() time.Time { return time.Now().Add(time.Duration(d.steps.Load())) },
	})
	p.server = &socketmap.Server{Handler: p.m, MaxConnections: 24}
	go func() { p.served <- p.server.Serve(p.ln) }()
	d.process = p
	return nil
}

func (d *daemon) config() policymap.Config {
	resolver, err := dnsclient.New(dnsclient.Config{Servers: []netip.AddrPort{d.w.DNSAddr(), secondDNS}, Dial: d.w.Dial})
	if err != nil {
		panic(err)
	}
	return policymap.Config{
		Resolver: resolver, Settings: d.set,
		Fetcher: &mtasts.Fetcher{
			Resolver: resolver, RootCAs: d.w.Roots(), Dial: d.w.Dial,
			AllowNetworks: []netip.Prefix{netip.MustParsePrefix(lab.Network)},
		},
	}
}

// kill marks the process as dead.
func (p *process) kill() { p.once.Do(func() { close(p.dead) }) }

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// crash ends the process as SIGKILL does. The next one finds the file as it was
// at that moment, or, if the process died in a write, as that write left it.
func (d *daemon) crash() error {
	d.kill()
	refusing := d.db.refusing
	d.db.held = nil
	d.db.hang(false)
	file := d.db.left()
	if file == nil {
		var err error
		if file, err = os.ReadFile(d.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	d.db.refuse(false)
	d.server.Close()
	if err := d.end(); err != nil {
		return err
	}
	d.files++
	old := d.path
	d.path = filepath.Join(d.dir, fmt.Sprint(d.files, ".db"))
	if file != nil {
		if err := os.WriteFile(d.path, file, 0o600); err != nil {
			return err
		}
	}
	os.Remove(old)
	if err := d.start(); err != nil {
		return err
	}
	return d.db.refuse(refusing)
}

// restart ends the process in order.
func (d *daemon) restart() error {
	d.db.hang(false)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := d.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("requests were not answered within 20 s: %w", err)
	}
	refusing := d.db.refusing
	err := d.end()
	if err != nil && !refusing {
		return err
	}
	if err := d.start(); err != nil {
		return err
	}
	return d.db.refuse(refusing)
}

func (p *process) end() error {
	if err := <-p.served; !errors.Is(err, socketmap.ErrServerClosed) {
		return err
	}
	p.m.Close()
	err := p.db.Close()
	p.db.refuse(false)
	return err
}

// disk is the database on a disk that can refuse writes, in which the process
// can be killed.
type disk struct {
	*bolt.Store
	slog.Handler // of the store's log, from which the end of an outage is read
	path         string
	kill         func()

	refusing bool
	fd       int // of the database, while it refuses writes
	saved    int // the same with the right to write

	mu         sync.Mutex
	killIn     int            // writes until the process is killed; 0: it is not
	moment     int            // of that write: 0 before, 1 after, 2 in the middle of it
	killAtEnd  bool           // of the outage: with its first write
	hasWritten bool           // since the outage
	hung       chan struct{}  // closed when the disk no longer hangs; nil: it does not
	held       []store.Record // written then
	whatWas    []byte         // the file as a write left it in which the process was killed
}

// killLater has the process killed at the nth call of Put from now on.
func (d *disk) killLater(n, moment int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killIn, d.moment = n, moment
}

// recovers says whether the process is killed when the first write after an outage
// succeeds. If none has failed there was no outage.
func (d *disk) recovers(kill bool) {
	failing := d.Stats().Failing
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killAtEnd, d.hasWritten = kill && failing, false
}

// wrote reports whether the last outage is over by the store's log.
func (d *disk) wrote() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hasWritten
}

// Enabled implements slog.Handler.
func (d *disk) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (d *disk) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "database can be written again" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hasWritten = true
	if d.killAtEnd {
		d.killAtEnd = false
		d.whatWas, _ = os.ReadFile(d.path)
		d.kill()
	}
	return nil
}

// refuse makes writes fail, or ends that. It puts a descriptor without the right
// to write in the place of bbolt's: reads and the mapping go on.
func (d *disk) refuse(on bool) error {
	if on == d.refusing {
		return nil
	}
	if !on {
		d.refusing = false
		defer syscall.Close(d.saved)
		if at, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", d.fd)); at != d.path {
			return nil // the store has closed it
		}
		return syscall.Dup3(d.saved, d.fd, syscall.O_CLOEXEC)
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if at, _ := os.Readlink("/proc/self/fd/" + e.Name()); at != d.path {
			continue
		}
		d.fd, err = strconv.Atoi(e.Name())
		if err == nil {
			d.saved, err = syscall.Dup(d.fd)
		}
		if err != nil {
			return err
		}
		readOnly, err := syscall.Open(d.path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(readOnly)
		d.refusing = true
		return syscall.Dup3(readOnly, d.fd, syscall.O_CLOEXEC)
	}
	return nil // no file is open
}

// hang makes writes wait for the disk, or ends that.
func (d *disk) hang(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case on && d.hung == nil:
		d.hung = make(chan struct{})
	case !on && d.hung != nil:
		for _, rec := range d.held {
			d.Store.PutLater(rec)
		}
		close(d.hung)
		d.hung, d.held = nil, nil
	}
}

// hanging returns what is closed when writes go on; nil: they do.
func (d *disk) hanging() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hung
}

// PutLater implements store.Store.
func (d *disk) PutLater(rec store.Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hung == nil {
		d.Store.PutLater(rec)
	} else {
		d.held = append(d.held, rec)
	}
}

// Get implements store.Store.
func (d *disk) Get(domain string) (store.Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, rec := range slices.Backward(d.held) {
		if rec.Domain == domain {
			return rec, nil
		}
	}
	return d.Store.Get(domain)
}

// Put implements store.Store.
func (d *disk) Put(ctx context.Context, recs ...store.Record) error {
	if hung := d.hanging(); hung != nil {
		select {
		case <-hung:
		case <-ctx.Done():
			for _, rec := range recs {
				d.PutLater(rec) // which may still happen
			}
			return context.Cause(ctx)
		}
	}
	d.mu.Lock()
	mine := d.killIn == 1
	d.killIn = max(d.killIn-1, 0)
	moment := d.moment
	d.mu.Unlock()
	if !mine {
		return d.Store.Put(ctx, recs...)
	}
	before, _ := os.ReadFile(d.path)
	err := d.Store.Put(ctx, recs...)
	after, _ := os.ReadFile(d.path)
	switch moment {
	case 0:
		after = before
	case 2:
		after = torn(before, after)
	}
	d.mu.Lock()
	d.whatWas = append([]byte{}, after...)
	d.mu.Unlock()
	d.kill()
	return err
}

// left returns the file as a write left it in which the process was killed.
func (d *disk) left() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.whatWas
}

// torn is a file in which some pages of a transaction were written, but not the
// meta page that makes them count. A write that failed changed nothing.
func torn(before, after []byte) []byte {
	page := os.Getpagesize()
	if len(before) < 2*page || len(after) < len(before) {
		return before
	}
	r := rand.New(rand.NewPCG(uint64(len(before)), uint64(before[page-1])))
	file := bytes.Clone(before)
	for at := 2 * page; at < len(before); at += page {
		if r.IntN(2) == 0 {
			copy(file[at:at+page], after[at:])
		}
	}
	return file
}

// pipeListener hands out connections in memory.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "simulated", Net: "unix"} }

// dial connects as Postfix does.
func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, syscall.ECONNREFUSED
	}
}

// ask makes one lookup. Postfix connects once more if the server closed the
// connection.
func (p *process) ask(name, key string) (reply string, err error) {
	for range 2 {
		if reply, err = p.askOnce(name, key); !errors.Is(err, io.EOF) {
			return reply, err
		}
	}
	return "", err
}

func (p *process) askOnce(name, key string) (string, error) {
	c, err := p.ln.dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(100 * time.Second)); err != nil {
		return "", err
	}
	request := name + " " + key
	if _, err := fmt.Fprintf(c, "%d:%s,", len(request), request); err != nil {
		return "", io.EOF // closed by the server
	}
	br := bufio.NewReader(c)
	size, err := br.ReadString(':')
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(size[:len(size)-1])
	if err != nil || n > 100_000 {
		return "", fmt.Errorf("no netstring that Postfix reads: %q", size)
	}
	reply := make([]byte, n+1)
	if _, err := io.ReadFull(br, reply); err != nil {
		return "", err
	}
	if reply[n] != ',' {
		return "", fmt.Errorf("no comma behind %q", reply)
	}
	return string(reply[:n]), nil
}

// flood opens connections one after the other that send half a request or none,
// and closes them after a minute or when the server does.
func (p *process) flood(n int) {
	for i := range n {
		go func() {
			time.Sleep(time.Duration(i) * 97 * time.Microsecond)
			c, err := p.ln.dial()
			if err != nil {
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			if i%2 == 0 {
				_, _ = io.WriteString(c, "17:postfix d")
			}
			_, _ = c.Read(make([]byte, 1))
		}()
	}
}

// read reads a reply as Postfix does, and returns what matters in it.
func read(reply string, tlsrpt bool, domain string) (string, error) {
	r, err := postfix.ParseReply([]byte(reply))
	if err != nil || r.Status != postfix.OK {
		return strings.ToLower(string(r.Status)), err
	}
	p, err := postfix.ParsePolicy(r.Data)
	switch {
	case err != nil || p.Level != "secure":
		return p.Level, err
	case p.Servername != "hostname":
		return "", errors.New("another name than the host's goes")
	case tlsrpt != (p.Type == "sts" && p.Domain == domain && len(p.MXPatterns) > 0 && len(p.Strings) > 2):
		return "", errors.New("attributes for TLSRPT")
	}
	return "secure " + strings.Join(p.Match, ":"), nil
}
