package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"tlspolicyd/socketmap"
)

func TestConnectionsLeaveFilesForLookups(t *testing.T) {
	for _, tt := range []struct {
		configured  int
		files       uint64
		serve, wait int
	}{
		{4096, 1 << 20, 4096, 4096},
		{4096, syscall.RLIM_INFINITY & (1<<63 - 1), 4096, 4096},
		{4096, 16384, 4096, 4096},
		{4096, 4096, 1536, 1344},
		{4096, 1024, 384, 336},
		{50, 1024, 50, 712},
		{50, 4096, 50, 1024},
		{4096, 64, 16, 14},
		{65536, 1 << 20, 65536, 65536},
	} {
		serve, wait := shareFiles(tt.configured, tt.files)
		if serve != tt.serve || wait != tt.wait {
			t.Errorf("%d of %d files: %d and %d, want %d and %d", tt.configured, tt.files, serve, wait, tt.serve, tt.wait)
		}
		if uint64(serve+max(serve/8, 1)+wait) > tt.files-min(tt.files/4, 128) {
			t.Errorf("%d of %d files: none are left for lookups", tt.configured, tt.files)
		}
	}
}

// A local user who opens more connections than the process may open files does
// not keep it from looking up.
func TestLookupsWorkWhileConnectionsUseUpTheFiles(t *testing.T) {
	dir, err := os.MkdirTemp("", "files") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	file := filepath.Join(dir, "tlspolicyd.toml")
	text := fmt.Sprintf("listen.socketmap = [%q]\nlisten.admin = \"\"\ndns.servers = [%q]\n", "unix:"+socket, emptyDNS(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("sh", "-c", `ulimit -n 256 && exec `+programName+` serve --config "$1"`, "sh", file)
	cmd.Env = append(os.Environ(), "RUNTIME_DIRECTORY="+dir, "STATE_DIRECTORY="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ask := func() (socketmap.Reply, error) { // and leave the connection open
		client, err := socketmap.NewClient("unix:" + socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return client.Lookup(t.Context(), "postfix", ".idle.test")
	}
	for {
		_, err := ask()
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	for range 400 {
		if _, err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 20 {
		// The test has all connections, so one of its own may be refused or closed for
		// another. What counts is the reply.
		lookup := func() (reply socketmap.Reply, err error) {
			client, err := socketmap.NewClient("unix:" + socket)
			if err != nil {
				return reply, err
			}
			defer client.Close()
			return client.Lookup(t.Context(), "postfix", fmt.Sprintf("d%d.test", n))
		}
		reply, err := lookup()
		for tries := 1; err != nil && tries < 1000; tries++ {
			reply, err = lookup()
		}
		if err != nil || reply.Status != socketmap.NotFound {
			t.Errorf("got %v, %v; want NOTFOUND", reply, err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(log.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "fewer connections than configured") || strings.Contains(string(b), "too many open files") {
		t.Errorf("log: %s", b)
	}
}
