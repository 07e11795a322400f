package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// writePages writes the pages of this program and returns them by name.
func writePages(t *testing.T, date string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := writeManPages(newRoot(new(options)), dir, "tlspolicyd 1", date); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.[58]"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d pages, %v", len(files), err)
	}
	pages := make(map[string]string)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pages[filepath.Base(name)] = string(text)
	}
	return pages
}

// tlspolicyd.toml(5) has a paragraph for each key that the program knows, with
// its meaning, under the section that it belongs to.
func TestSettingsPageIsComplete(t *testing.T) {
	var toml bytes.Buffer
	if err := config.Default().WriteTOML(&toml); err != nil {
		t.Fatal(err)
	}
	page := writePages(t, "")["tlspolicyd.toml.5"]
	rest := page
	keys := 0
	for line := range strings.Lines(toml.String()) {
		line = strings.TrimSuffix(line, "\n")
		want := ""
		if doc, ok := strings.CutPrefix(line, "# "); ok {
			// The comment is before its key in the file and after it on the
			// page: that it is there is enough.
			if !strings.Contains(page, "\n"+roffLine(doc)+"\n") {
				t.Errorf("the page lacks the line %q", doc)
			}
			continue
		} else if key, _, ok := strings.Cut(line, " = "); ok {
			want = ".TP\n\\fB" + roffLine(key) + "\\fP = "
			keys++
		} else if line != "" {
			want = ".SS " + line + "\n"
		}
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("the page lacks %q, or has it in another order", want)
		}
		rest = after
	}
	if keys < 20 {
		t.Errorf("only %d settings were checked", keys)
	}
}

// The date is one that programs can parse; built without the history of the
// source, the pages have none. No line that roff does not fill is wider than a
// terminal of 80 columns, with the indent of 7 that man(7) has.
func TestManPages(t *testing.T) {
	for _, date := range []string{"", "2026-03-29"} {
		title := regexp.MustCompile(`(?m)^\.TH \S+ [58] "` + date + `" "tlspolicyd 1" `)
		for name, text := range writePages(t, date) {
			if !title.MatchString(text) {
				t.Errorf("%s: no date %s: %.80q", name, date, text)
			}
			verbatim := false
			for line := range strings.Lines(text) {
				verbatim = (verbatim || line == ".EX\n") && line != ".EE\n"
				shown := regexp.MustCompile(`\\(e|-|\(..)`).ReplaceAllString(strings.TrimSuffix(line, "\n"), "x")
				if verbatim && len(shown) > 73 {
					t.Errorf("%s: %d columns: %s", name, 7+len(shown), shown)
				}
			}
		}
	}
}

// tlspolicyd(8) lists the commands, and each page those below it.
func TestTheMainPageListsTheCommands(t *testing.T) {
	pages := writePages(t, "")
	for _, c := range newRoot(new(options)).Commands() {
		if want := ".TP\n.BR tlspolicyd\\-" + c.Name() + " (8)\n" + roffLine(c.Short) + "\n"; c.IsAvailableCommand() && !strings.Contains(pages["tlspolicyd.8"], want) {
			t.Errorf("no %q", want)
		}
	}
	if want := ".BR tlspolicyd\\-config\\-check (8)\n"; !strings.Contains(pages["tlspolicyd-config.8"], want) {
		t.Errorf("tlspolicyd-config(8) has no %q", want)
	}
}

// A line of the settings cannot become a request of roff, and quotes and dashes
// stay what they are when they are copied from the page.
func TestRoff(t *testing.T) {
	for in, want := range map[string]string{
		`.parent`:        `\&.parent`,
		`'quoted'`:       `\(aqquoted\(aq`,
		`a "b-c" \d`:     `a \(dqb\-c\(dq \ed`,
		`unix:/run/a.sk`: `unix:/run/a.sk`,
	} {
		if got := roffLine(in); got != want {
			t.Errorf("roffLine(%q) = %q, want %q", in, got, want)
		}
	}
}
