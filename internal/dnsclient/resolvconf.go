package dnsclient

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	maxServers     = 8        // the C library stops at 3; containers sometimes list more
	maxResolvConf  = 64 << 10 // bytes that are read of the file
	followInterval = time.Second
)

// resolvConf follows a resolv.conf(5) file. The file is read on use, at most
// once a second: it is smaller than what it takes to find out reliably whether
// it has changed.
type resolvConf struct {
	path    string
	changed func([]netip.AddrPort)

	mu   sync.Mutex
	list []netip.AddrPort // replaced as a whole, never written to
	read time.Time
}

// load reads the file for the first time.
func (r *resolvConf) load() error {
	list, err := readResolvConf(r.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("DNS servers: %w", err)
	}
	if len(list) == 0 {
		list = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	r.list, r.read = list, time.Now()
	return nil
}

// servers returns the servers of the file as it is now, give or take a second.
// A file that is gone, cannot be read or names no server is taken for one that
// is just being rewritten.
func (r *resolvConf) servers() []netip.AddrPort {
	r.mu.Lock()
	// Elapsed time by the monotonic clock: a wall clock that jumps back must
	// not stop us from looking.
	if time.Since(r.read) < followInterval {
		defer r.mu.Unlock()
		return r.list
	}
	r.read = time.Now()
	list, err := readResolvConf(r.path)
	if err != nil || len(list) == 0 || slices.Equal(list, r.list) {
		defer r.mu.Unlock()
		return r.list
	}
	r.list = list
	r.mu.Unlock()
	r.changed(list)
	return list
}

func readResolvConf(path string) ([]netip.AddrPort, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxResolvConf))
	if err != nil {
		return nil, err
	}
	return parseResolvConf(b), nil
}

// parseResolvConf returns the nameserver lines of a resolv.conf(5) file, port
// 53. Lines that are something else, or no address, are ignored.
func parseResolvConf(b []byte) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "nameserver" {
			continue
		}
		addr, err := netip.ParseAddr(string(fields[1]))
		if err != nil {
			continue
		}
		if s := netip.AddrPortFrom(addr, 53); !slices.Contains(list, s) {
			list = append(list, s)
		}
		if len(list) == maxServers {
			break
		}
	}
	return list
}
