package logging

import (
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// isJournal reports whether what is written to w ends up in systemd's journal.
func isJournal(w io.Writer) bool {
	if w != io.Writer(os.Stderr) {
		return false
	}
	ok, err := journal.StderrIsJournalStream()
	return ok && err == nil && journal.Enabled()
}

// toJournal returns a function that sends entries with their fields. When that
// fails, the line goes to w, which the journal reads as well.
func toJournal(send func(string, journal.Priority, map[string]string) error, w io.Writer) func(entry) error {
	return func(e entry) error {
		if send(strings.TrimSuffix(string(e.line), "\n"), e.priority, e.fields) == nil {
			return nil
		}
		_, err := w.Write(e.line)
		return err
	}
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// fieldName names the fields TLSPOLICYD_KEY, so that they cannot be taken for
// those of systemd (systemd.journal-fields(7)) and can be searched for:
//
//	journalctl TLSPOLICYD_DOMAIN=example.com
func fieldName(groups []string, key string) string {
	return "TLSPOLICYD_" + strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(strings.Join(append(slices.Clip(groups), key), "_")))
}
