package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeFiles writes files into a directory, in whose place DIR stands.
func writeFiles(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "DIR", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Of the same name the configuration's own line counts, then that of the first file.
func TestOverridesFromFiles(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"main.toml": "[policy]\noverride_file = [\"DIR/one.toml\", \"DIR/two.toml\"]\n[override]\n\"own.test\" = \"lookup\"\n",
		"one.toml":  "# broken domains\n[override]\n\"Own.test.\" = \"skip\"\n\"one.test\" = \"skip\"\n",
		"two.toml":  "override = { \"one.test\" = \"encrypt\", \".two.test\" = \"may\" }\n",
	})
	got, err := Load(filepath.Join(dir, "main.toml"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]FileOverride{"one.test": {"skip", dir + "/one.toml"}, ".two.test": {"may", dir + "/two.toml"}}
	if d := cmp.Diff(want, got.FileOverride); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"own.test": "lookup"}, got.Override); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	changed := got
	changed.FileOverride = nil
	if d := cmp.Diff([]string{"override"}, Changes(got, changed)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestMistakesInOverrideFiles(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"a policy that Postfix refuses": {"[override]\n\"a.test\" = \"skip\"\n\"b.test\" = \"secur\"\n", `:3:12: override."b.test": "secur": not a Postfix security level: want "skip", "lookup", or one of none, may, encrypt, dane, dane-only, fingerprint, verify, secure`},
		"another section":               {"[override]\n\"a.test\" = \"skip\"\n[dns]\ntrust_ad = true\n", `:3:2: dns: not an override: want nothing but [override] in this file`},
		"a key without a section":       {"\"a.test\" = \"skip\"\n", `:1:1: "a.test": not an override: want nothing but [override] in this file`},
		"the same name twice":           {"[override]\n\"a.test\" = \"skip\"\n\"A.test\" = \"skip\"\n", `:3:1: override."A.test": the same name as "a.test": want one line for it`},
		"half of a file":                {"[override]\n\"a.test\" = \"sk", `:2:14: unterminated basic string`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, map[string]string{"main.toml": "[policy]\noverride_file = [\"DIR/list.toml\"]\n", "list.toml": tc.text})
			_, err := Load(filepath.Join(dir, "main.toml"))
			if _, ok := errors.AsType[*Error](err); !ok || err.Error() != dir+"/list.toml"+tc.want {
				t.Errorf("got  %v\nwant %s", err, dir+"/list.toml"+tc.want)
			}
		})
	}
}

func TestOverrideFilesAreBounded(t *testing.T) {
	dir := writeFiles(t, map[string]string{"large.toml": strings.Repeat("#\n", maxFile/2+1)})
	for path, want := range map[string]string{
		dir + "/large.toml": "larger than 4 MiB", dir + "/absent.toml": "no such file or directory", "/dev/zero": "larger than 4 MiB",
	} {
		if _, err := ReadOverrides([]string{path}, nil); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "policy.override_file: ") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
