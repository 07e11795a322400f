package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reaches are the places in the daemon that can open a connection, ask for a
// name or start a program, each with what it talks to. SECURITY.md promises that
// there are no others. Commands other than serve run as whoever calls them.
func reaches() map[string]string {
	return map[string]string{
		"internal/dnsclient/client.go net.Dialer":                "the configured resolvers",
		"internal/mtasts/dial.go net.Dialer":                     "an address of a policy host that was checked, or the configured proxy",
		"internal/mtasts/fetch.go http.Transport":                "over a connection that it is handed; no redirect, no proxy of its own",
		"internal/tlsrpt/sender.go net.DialUnix":                 "the TLSRPT collector at tlsrpt.socket, if one is configured",
		"policymap/policy/nexthop.go net.Resolver":               "LookupPort: /etc/services, and nobody is asked",
		"share/valkey/conn.go net.Dialer":                        "the engine of [share], and what its Sentinels or its cluster name as a server of it",
		"socketmap/client.go net.Dialer":                         "the lookup socket, for tlspolicyd lookup",
		"socketmap/listen.go net.Dialer":                         "a socket that may be stale, before it is replaced",
		"socketmap/listen.go syscall.Socket":                     "the lookup socket itself",
		"cmd/tlspolicyd/internal/admin/client.go net.Dialer":     "the control socket",
		"cmd/tlspolicyd/internal/admin/client.go http.Client":    "the control socket",
		"cmd/tlspolicyd/internal/admin/client.go http.Transport": "the control socket",
	}
}

// TestNothingElseReachesOut reads the sources. A new way out of the process
// belongs into the list above, and into SECURITY.md.
func TestNothingElseReachesOut(t *testing.T) {
	watched := map[string][]string{
		"net":                  {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "Dialer", "Resolver", "DefaultResolver"},
		"net/http":             {"Get", "Head", "Post", "PostForm", "Client", "DefaultClient", "Transport", "DefaultTransport", "ProxyFromEnvironment"},
		"crypto/tls":           {"Dial", "DialWithDialer", "Dialer"},
		"syscall":              {"Socket", "Connect", "Exec", "ForkExec", "StartProcess"},
		"os":                   {"StartProcess"},
		"os/exec":              nil, // all of it
		"net/smtp":             nil,
		"net/rpc":              nil,
		"github.com/miekg/dns": {"Client", "Dial", "DialTimeout", "DialWithTLS", "Exchange", "ExchangeContext", "ExchangeConn"},
	}
	command := []string{"serve.go", "parts.go", "share.go", "control.go", "listen.go", "reload.go", "notify.go", "dirs.go"}
	notDaemon := []string{"testing", "cmd/tlspolicyd/internal/audit", "vendor"}
	found := map[string]bool{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(notDaemon, name) || strings.HasPrefix(d.Name(), ".") && name != "."):
			return filepath.SkipDir
		case filepath.Dir(name) == "cmd/tlspolicyd" && !slices.Contains(command, d.Name()):
			return nil
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, use := range uses(file, watched) {
			found[filepath.ToSlash(name)+" "+use] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for place := range reaches() {
		want[place] = true
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("-listed +found:\n%s", diff)
	}
}

// uses returns the watched names that a file makes use of, and the functions
// net.Lookup... and tls.Dial... under whatever name.
func uses(file *ast.File, watched map[string][]string) []string {
	packages := map[string]string{} // name in the file → import path
	for _, spec := range file.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		packages[name] = path
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		path := packages[pkg.Name]
		names, ok := watched[path]
		if ok && (names == nil || slices.Contains(names, sel.Sel.Name)) ||
			path == "net" && strings.HasPrefix(sel.Sel.Name, "Lookup") {
			out = append(out, pkg.Name+"."+sel.Sel.Name)
		}
		return true
	})
	return out
}

// TestSecurityNamesWhatExists: a promise without a test is none.
func TestSecurityNamesWhatExists(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	definition := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range definition.FindAllSubmatch(source, -1) {
			exists[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllSubmatch(text, -1)
	if len(named) < 40 {
		t.Errorf("%d tests are named", len(named))
	}
	for _, m := range named {
		if !exists[string(m[1])] {
			t.Errorf("%s is named and does not exist", m[1])
		}
	}
}
