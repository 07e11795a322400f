package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commandInText finds "tlspolicyd WORDS --flags" in prose and in code.
var commandInText = regexp.MustCompile("tlspolicyd((?: +(?:[a-z]+|--[a-z-]+))+)")

// README and the documents name commands and flags that
// exist.
func TestDocumentsAgreeWithHelp(t *testing.T) {
	var texts []string
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../packaging/*.md", "../../contrib/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, found...)
	}
	seen := map[string]bool{}
	for _, path := range texts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range commandInText.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1])
			command, rest, err := newRoot().Find(words)
			if err != nil || !command.HasParent() {
				continue // prose: "tlspolicyd answers", "tlspolicyd is"
			}
			if command.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
				t.Errorf("%s: %q: %s has no command %q", path, m[0], command.CommandPath(), rest[0])
			}
			seen[command.CommandPath()] = true
			for _, word := range rest {
				name, isFlag := strings.CutPrefix(word, "--")
				if isFlag && command.Flags().Lookup(name) == nil && command.InheritedFlags().Lookup(name) == nil && name != "help" {
					t.Errorf("%s: %q: %s has no flag --%s", path, m[0], command.CommandPath(), name)
				}
			}
		}
	}
	for _, want := range []string{"tlspolicyd lookup", "tlspolicyd explain", "tlspolicyd check", "tlspolicyd doctor", "tlspolicyd config check", "tlspolicyd cache list", "tlspolicyd cache warm"} {
		if !seen[want] {
			t.Errorf("no document names %q", want)
		}
	}
}
