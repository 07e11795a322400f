package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

// tlspolicyd.toml(5) has a paragraph for each key that the program knows, with
// its meaning, under the section that it belongs to.
func TestSettingsPageIsComplete(t *testing.T) {
	var toml, page bytes.Buffer
	if err := config.Default().WriteTOML(&toml); err != nil {
		t.Fatal(err)
	}
	if err := writeSettingsPage(&page); err != nil {
		t.Fatal(err)
	}
	rest := page.String()
	keys := 0
	for line := range strings.Lines(toml.String()) {
		line = strings.TrimSuffix(line, "\n")
		want := ""
		if doc, ok := strings.CutPrefix(line, "# "); ok {
			// The comment stands in front of its key in the file and behind it
			// on the page: that it is there is enough.
			if !strings.Contains(page.String(), "\n"+roffLine(doc)+"\n") {
				t.Errorf("the page lacks the line %q", doc)
			}
			continue
		} else if key, _, ok := strings.Cut(line, " = "); ok {
			want = ".TP\n\\fB" + roffText(key) + "\\fP = "
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
		t.Errorf("only %d settings were looked at", keys)
	}
}

// Built without the history of the source, the pages have no date.
func TestManPagesUnvalidatedate(t *testing.T) {
	for date, want := range map[time.Time]string{
		{}: `""`, time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC): `"Mar 2026"`,
	} {
		dir := t.TempDir()
		if err := writeManPages(newRoot(), dir, "tlspolicyd 1", date); err != nil {
			t.Fatal(err)
		}
		pages, err := filepath.Glob(filepath.Join(dir, "*.[58]"))
		if err != nil || len(pages) < 10 {
			t.Fatalf("%d pages, %v", len(pages), err)
		}
		title := regexp.MustCompile(`(?m)^\.TH \S+ \S+ ` + want + ` "tlspolicyd 1" `)
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			if !title.Match(text) {
				t.Errorf("%s: no date %s: %.80q", filepath.Base(page), want, text)
			}
		}
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
