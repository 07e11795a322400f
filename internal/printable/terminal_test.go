package printable_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"tlspolicyd/internal/printable"
)

func TestJSONIsASCIIAndTheSame(t *testing.T) {
	// What a terminal would obey: C0, DEL, a C1 CSI, bidirectional controls, a
	// language tag beyond the BMP; and what is harmless.
	const hostile = "\x1b[2J \x7f \u009b31m \u202e \u2066 \U000e0041 \u00a0 bücher €"
	var out bytes.Buffer
	e := json.NewEncoder(printable.JSON(&out))
	e.SetIndent("", "  ")
	if err := e.Encode([]string{hostile}); err != nil {
		t.Fatal(err)
	}
	for _, c := range out.Bytes() {
		if (c < ' ' || c > '~') && c != '\n' {
			t.Errorf("%q is in %q", c, out.String())
		}
	}
	var got []string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 1 || got[0] != hostile {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestClean(t *testing.T) {
	if got, want := printable.Clean("RFC 8461 §3.1: \x1b[2J\u202e\xff"), "RFC 8461 §3.1: ?[2J??"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"a.test": "a.test", "bücher.test": "bücher.test", "": `""`,
		"a\x1b[2J\u202e.test": `"a\x1b[2J\u202e.test"`, "\xff": `"\xff"`,
	} {
		if got := printable.Text(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
