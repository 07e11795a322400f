package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// commandInText finds "tlspolicyd WORDS --flags" in prose and in code.
var commandInText = regexp.MustCompile("tlspolicyd((?: +(?:[a-z]+|--[a-z-]+))+)")

// documents are README and all other texts for people, by path.
func documents(t *testing.T) (paths []string) {
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../packaging/*.md", "../../contrib/*.md", "../../contrib/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// The documents name commands and flags that exist.
func TestDocumentsAgreeWithHelp(t *testing.T) {
	texts := documents(t)
	seen := map[string]bool{}
	for _, path := range texts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range commandInText.FindAllStringSubmatch(string(text), -1) {
			words := strings.Fields(m[1])
			command, rest, err := newRoot(new(options)).Find(words)
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

var (
	linkInText    = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]+))?\)`)
	fileInText    = regexp.MustCompile("`([a-z0-9_./]+/[a-z0-9_]+\\.(?:go|sh))`")
	headingInText = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notInAnchor   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// Links between documents lead to files and headings that exist.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	for _, path := range documents(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range linkInText.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(path), m[1])
			if m[1] == "" {
				target = path
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			} else if m[2] != "" && !slices.Contains(anchors(t, target), m[2]) {
				t.Errorf("%s: %s has no heading #%s", path, target, m[2])
			}
		}
	}
}

// CONTRIBUTING.md and docs/architecture.md name files that exist.
func TestDocumentsNameFilesThatExist(t *testing.T) {
	for _, path := range []string{"../../CONTRIBUTING.md", "../../docs/architecture.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fileInText.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat("../../" + m[1]); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// anchors are the fragments by which the headings of a document are linked to.
func anchors(t *testing.T, path string) (all []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range headingInText.FindAllStringSubmatch(string(text), -1) {
		heading := notInAnchor.ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(heading, " ", "-"))
	}
	return all
}
