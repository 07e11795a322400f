package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"tlspolicyd/policymap/policy"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
)

// domainList is what is to be warmed.
type domainList struct {
	keys     []string // canonical, without duplicates, in order of the file
	notNames int      // lines that are no domain
	first    int      // the first of these
}

// maxDomainLine bounds a line of the list, in bytes.
const maxDomainLine = 64 << 10

func readDomainList(name string, stdin io.Reader) (domainList, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return domainList{}, err
		}
		defer f.Close()
		stdin = f
	}
	var list domainList
	seen := make(map[string]bool)
	lines := bufio.NewScanner(stdin)
	lines.Buffer(nil, maxDomainLine)
	n := 0
	for lines.Scan() {
		n++
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		hop, ok := policy.ParseNextHop(text)
		if !ok {
			if list.notNames++; list.first == 0 {
				list.first = n
			}
			continue
		}
		if key := hop.String(); !seen[key] {
			seen[key] = true
			list.keys = append(list.keys, key)
		}
	}
	if err := lines.Err(); err != nil {
		return list, fmt.Errorf("%s: line %d: %w", name, n+1, err)
	}
	return list, nil
}

func warmCache(ctx context.Context, client *admin.Client, list domainList, stdout, stderr io.Writer) error {
	bar := newProgress(stderr, "looked up")
	bar.total(len(list.keys))
	found := make(map[string]int)
	failed, example := 0, ""
	for keys := range slices.Chunk(list.keys, admin.WarmBatch) {
		err := client.Warm(ctx, keys, func(p admin.Progress) error {
			if p.Name == "" {
				return nil
			}
			bar.step()
			found[p.Policy]++
			if p.Error != "" {
				if failed++; example == "" {
					example = p.Error
				}
			}
			return nil
		})
		if err != nil {
			bar.hide()
			return unknownError(fmt.Errorf("after %d of %d domains: %w", bar.done, len(list.keys), err))
		}
	}
	bar.hide()
	out := bufio.NewWriter(stdout)
	for level := policy.NoPolicy; level <= policy.Override; level++ {
		if n := found[level.String()]; n > 0 {
			fmt.Fprintf(out, "%8d %s\n", n, level)
		}
	}
	fmt.Fprintf(out, "%8d in all\n", len(list.keys))
	switch {
	case list.notNames == 1:
		fmt.Fprintf(out, "%8d left out: line %d is no domain\n", 1, list.first)
	case list.notNames > 1:
		fmt.Fprintf(out, "%8d left out that are no domain, the first is line %d\n", list.notNames, list.first)
	}
	if err := out.Flush(); err != nil {
		return outputError(err)
	}
	if failed > 0 {
		return unknownError(fmt.Errorf("%d domains could not be looked up, e.g. %s: try again later", failed, cleaned(example)))
	}
	return nil
}
