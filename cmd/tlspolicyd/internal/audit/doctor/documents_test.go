package doctor

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// docs/doctor.md has a row for each code, with the grades that it can have, and
// none besides.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../../../../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	known, provoked := codes(t), grades()
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 4 || !strings.HasPrefix(line, "| `") {
			continue
		}
		code := strings.Trim(cells[0], "| `")
		rows[code] = true
		if known[code] == "" {
			t.Errorf("there is no code %s", code)
			continue
		}
		var want []string
		for _, g := range provoked[code] {
			want = append(want, g.String())
		}
		got := strings.Split(cells[1], ", ")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: grades %v, want %v", code, got, want)
		}
	}
	for code := range known {
		if !rows[code] {
			t.Errorf("the code %s has no row", code)
		}
	}
}
