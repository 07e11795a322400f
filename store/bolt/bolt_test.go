package bolt

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tlspolicyd/store"
	"tlspolicyd/store/storetest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashChildEnv); path != "" {
		crashChild(path)
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, maxEntries int) func() store.Store {
		path := filepath.Join(t.TempDir(), "policies.db")
		return func() store.Store {
			s, err := Open(path, Options{MaxEntries: maxEntries})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}

// logBuffer takes what the store logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines returns the logged lines that contain part.
func (l *logBuffer) lines(part string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, part) {
			lines = append(lines, line)
		}
	}
	return lines
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "policies.db") }

func openStore(t testing.TB, path string, opts Options) *Store {
	t.Helper()
	s, err := Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustPut(t testing.TB, s *Store, recs ...store.Record) {
	t.Helper()
	if err := s.Put(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
}

// policy is a record as it is kept of a domain with MTA-STS.
func policy(domain string) store.Record {
	at := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	return store.Record{
		Domain: domain,
		STS: &store.STS{
			Policy:    fmt.Appendf(nil, "version: STSv1\r\nmode: enforce\r\nmx: mx1.%[1]s\r\nmx: mx2.%[1]s\r\nmax_age: 604800\r\n", domain),
			PolicyID:  "20260329010000",
			FetchedAt: at,
			TXTID:     "20260329010000",
			CheckedAt: at,
			TXTTTL:    time.Hour,
		},
		DANE:     []store.DANE{{Port: 25, State: 1, KnownAt: at, ExpiresAt: at.Add(time.Hour)}},
		LastUsed: at,
		Due:      at.Add(24 * time.Hour),
		Class:    store.Positive,
	}
}

func wantRecord(t testing.TB, s *Store, domain string) {
	t.Helper()
	if _, err := s.Get(domain); err != nil {
		t.Errorf("get %s: %v", domain, err)
	}
}
