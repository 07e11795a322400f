package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	questions := []question{
		{key: "bücher.test", mapName: "postfix", why: "a U-label"},
		{key: "x.test", mapName: "postfix-tlsrpt", why: "none"},
	}
	cold := []answer{{"OK secure match=" + strings.Repeat("m", 60), 1234567 * time.Nanosecond}, {"NOTFOUND ", 2 * time.Second}}
	cached := []answer{{"", 56789 * time.Nanosecond}, {"", 999 * time.Microsecond}}
	for _, tt := range []struct {
		what  string
		width int
		want  []string
	}{
		{"in a pipe nothing is shortened", 0, []string{
			"KEY          MAP              FIRST  CACHED  REPLY                                                     WHY",
			"bücher.test  postfix         1.23ms    57µs  OK secure match=" + strings.Repeat("m", 60) + "  a U-label",
			"x.test       postfix-tlsrpt      2s   999µs  NOTFOUND                                                  none",
		}},
		{"a terminal shortens the reply", 90, []string{
			"KEY          MAP              FIRST  CACHED  REPLY                               WHY",
			"bücher.test  postfix         1.23ms    57µs  OK secure match=mmmmmmmmmmmmmmmmm…  a U-label",
			"x.test       postfix-tlsrpt      2s   999µs  NOTFOUND                            none",
		}},
		{"a narrow terminal cuts the line too", 72, []string{
			"KEY          MAP              FIRST  CACHED  REPLY                     …",
			"bücher.test  postfix         1.23ms    57µs  OK secure match=mmmmmmm…  …",
			"x.test       postfix-tlsrpt      2s   999µs  NOTFOUND                  …",
		}},
	} {
		var out strings.Builder
		printTable(&out, questions, cold, cached, tt.width)
		if d := cmp.Diff(strings.Join(tt.want, "\n")+"\n", out.String()); d != "" {
			t.Errorf("%s: %s", tt.what, d)
		}
	}
}

func TestCompare(t *testing.T) {
	questions := []question{{key: "a.test", mapName: "postfix", want: "OK dane"}, {key: "b.test", mapName: "postfix", want: "TEMP MX…"}}
	if err := compare("first", questions, []answer{{reply: "OK dane"}, {reply: "TEMP MX lookup"}}); err != nil {
		t.Error(err)
	}
	err := compare("first", questions, []answer{{reply: "OK dane-only"}, {reply: "TEMP A lookup"}})
	want := `first, a.test in postfix: got "OK dane-only", want "OK dane"` + "\n" +
		`first, b.test in postfix: got "TEMP A lookup", want "TEMP MX…"`
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}
