package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// files are what Postfix opens of a table on disk, none for other tables. Any of
// them will do. made tells that postmap(1) makes it of the file that the table is
// named after.
func (p Postfix) files(t Table) (opened []string, made bool) {
	if t.Name == "" || strings.HasPrefix(t.Name, "{") { // the lines of a table themselves
		return nil, false
	}
	switch t.Type {
	case "texthash", "regexp", "pcre", "cidr":
		return []string{t.Name}, false
	case "hash":
		return p.berkeleyFiles(t.Name, p.Params["default_database_type"]), true
	case "btree":
		return p.berkeleyFiles(t.Name, p.Params["default_cache_db_type"]), true
	case "cdb", "lmdb":
		return []string{t.Name + "." + t.Type}, true
	case "dbm", "sdbm":
		return []string{t.Name + ".pag"}, true
	}
	return nil, false
}

// berkeleyFiles are those of a hash: or btree: table. Postfix 3.11 can be told to
// open one of another type in its place, and to make that of the one with .db
// (NON_BERKELEYDB_README). non_bdb_custom_mapping may choose other than the default.
func (p Postfix) berkeleyFiles(name, instead string) []string {
	db, lmdb, cdb := name+".db", name+".lmdb", name+".cdb"
	level := p.Params["non_bdb_migration_level"]
	if level != "enable-redirect" && level != "enable-reindex" {
		return []string{db}
	}
	all := []string{lmdb, cdb}
	if instead == "cdb" {
		all = []string{cdb, lmdb}
	}
	if level == "enable-reindex" {
		all = append(all, db)
	}
	return all
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
	there := func(path string) bool {
		_, err := os.Stat(p.inQueueDir(path))
		return !errors.Is(err, fs.ErrNotExist)
	}
	add := func(paths ...string) { // the first stands for all of them
		first := p.inQueueDir(paths[0])
		if !slices.ContainsFunc(paths, there) && !slices.Contains(missing, first) {
			missing = append(missing, first)
		}
	}
	for _, s := range p.clients() {
		for _, t := range leaves(parseTables(p.param(s, policyMaps))) {
			opened, made := p.files(t)
			if len(opened) == 0 {
				continue
			}
			add(opened...)
			if made {
				add(t.Name)
			}
		}
	}
	return missing
}

// judgeTableFiles looks at the operator's own tables. smtp(8) opens them before its
// chroot; one that has no file answers every lookup with an error.
func (p Postfix) judgeTableFiles(tables []Table) []audit.Finding {
	var all []audit.Finding
	for _, t := range leaves(tables) {
		opened, made := p.files(t)
		if len(opened) == 0 || !p.lacks(opened[0]) {
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
			oneLine(t.Text)+" needs "+oneLine(p.inQueueDir(opened[0])), "Make the file, or take the table out.", fix+" && "+p.reload()))
	}
	return all
}

func (p Postfix) lacks(path string) bool { return slices.Contains(p.Missing, p.inQueueDir(path)) }
