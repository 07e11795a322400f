package main

import "testing"

// What a daemon, or somebody in its place, replies must not reach a terminal
// as control characters.
func TestRepliesAreShownAsWhatTheyAre(t *testing.T) {
	for in, want := range map[string]string{
		"OK secure match=.a.test servername=hostname": "OK secure match=.a.test servername=hostname",
		"bücher.test":    "bücher.test",
		"OK may\x1b[2J":  `"OK may\x1b[2J"`,
		"OK a\nOK b":     `"OK a\nOK b"`,
		"OK \xff":        `"OK \xff"`,
		"OK a\u202etest": `"OK a\u202etest"`,
		"":               `""`,
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}
