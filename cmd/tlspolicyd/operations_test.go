package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/operations.md has every message that the daemon can log.
func TestEveryLogMessageIsInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	message := regexp.MustCompile(`(?:\blog\.(?:Error|Warn|Info|Debug|warn)\(|slog\.Level\w+, |[mM]essage(?: :?=|:)\s+)"([^"]+)"`)
	var seen []string
	for _, pattern := range []string{"*.go", "../../socketmap/*.go", "../../store/bolt/*.go", "../../share/valkey/*.go", "internal/admin/*.go", "internal/logging/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range message.FindAllStringSubmatch(string(source), -1) {
				// Of a long one the manual has what comes before the explanation.
				text, _, _ := strings.Cut(strings.SplitN(m[1], ": ", 2)[0], ";")
				seen = append(seen, m[1])
				if !strings.Contains(string(manual), "`"+text) {
					t.Errorf("%s: %q is not in docs/operations.md", name, m[1])
				}
			}
		}
	}
	for _, known := range []string{"resolved", "started", "policy got weaker", "closed a connection", "database can be written again", "not resolved, mail is deferred"} {
		if !slices.Contains(seen, known) {
			t.Errorf("the search does not find %q", known)
		}
	}
}
