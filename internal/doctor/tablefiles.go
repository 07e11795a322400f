package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tlspolicyd/internal/finding"
)

// file is what Postfix opens of a table on disk, "" for other tables. made tells
// that postmap(1) makes it of the file that the table is named after.
func (t Table) file() (path string, made bool) {
	if t.Name == "" || strings.HasPrefix(t.Name, "{") { // the lines of a table themselves
		return "", false
	}
	switch t.Type {
	case "texthash", "regexp", "pcre", "cidr":
		return t.Name, false
	case "hash", "btree":
		return t.Name + ".db", true
	case "cdb", "lmdb":
		return t.Name + "." + t.Type, true
	case "dbm", "sdbm":
		return t.Name + ".pag", true
	}
	return "", false
}

// inQueueDir is a path as Postfix's daemons have it, before their chroot.
func (p Postfix) inQueueDir(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(p.queue(), path)
}

// missingFiles are those of the tables in smtp_tls_policy_maps that are not
// there, and what they are made of where that is not there either.
func (p Postfix) missingFiles() []string {
	var missing []string
	for _, s := range p.clients() {
		for _, t := range leaves(parseTables(p.param(s, policyMaps))) {
			opened, made := t.file()
			if opened == "" {
				continue
			}
			for _, path := range []string{opened, t.Name} {
				path = p.inQueueDir(path)
				if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) && !slices.Contains(missing, path) {
					missing = append(missing, path)
				}
				if !made {
					break
				}
			}
		}
	}
	return missing
}

// judgeTableFiles looks at the operator's own tables. smtp(8) opens them before its
// chroot; one that has no file answers every lookup with an error.
func (p Postfix) judgeTableFiles(tables []Table) []finding.Finding {
	var all []finding.Finding
	for _, t := range leaves(tables) {
		opened, made := t.file()
		if opened == "" || !p.lacks(opened) {
			continue
		}
		source := shellQuote(p.inQueueDir(t.Name))
		fix := "touch " + source
		if made {
			fix = p.command("postmap", shellQuote(t.Type+":"+p.inQueueDir(t.Name)))
			if p.lacks(t.Name) {
				fix = "touch " + source + " && " + fix
			}
		}
		all = append(all, fail(MapFileMissing, "", "A table of "+policyMaps+" has no file, so that its lookups fail: all mail that comes to it is deferred.",
			printable(t.Text)+" needs "+printable(p.inQueueDir(opened)), "Make the file, or take the table out.", fix+" && "+p.reload()))
	}
	return all
}

func (p Postfix) lacks(path string) bool { return slices.Contains(p.Missing, p.inQueueDir(path)) }
