package audit

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWorst(t *testing.T) {
	for name, c := range map[string]struct {
		grades []Grade
		want   Grade
	}{
		"nothing was found":                  {nil, OK},
		"all well":                           {[]Grade{OK, OK}, OK},
		"a warning":                          {[]Grade{OK, Warn, OK}, Warn},
		"what could not be told is no pass":  {[]Grade{Warn, Unknown}, Unknown},
		"a failure is one whatever is dark":  {[]Grade{Unknown, Fail, Warn}, Fail},
		"the order of topics makes no odds ": {[]Grade{Fail, Unknown}, Fail},
	} {
		t.Run(name, func(t *testing.T) {
			var topics []Topic
			for _, g := range c.grades {
				topics = append(topics, Topic{Findings: []Finding{{Grade: g}}})
			}
			if got := Worst(topics); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestText(t *testing.T) {
	topics := []Topic{
		{Name: "clock", Findings: []Finding{{Code: "clock-ok", Grade: OK, Text: "The clock is right."}}},
		{Name: "nothing here"},
		{Name: "Postfix", Findings: []Finding{{
			Code: "map-absent", Grade: Fail, Subject: "main.cf", Text: "Postfix does not ask us about any next hop.",
			Evidence: "smtp_tls_policy_maps is empty", Advice: "Add the map.", Fix: "postconf -e smtp_tls_policy_maps=socketmap:unix:run/x.sock:postfix",
		}}},
	}
	var b strings.Builder
	if err := (Text{Width: 40}).Write(&b, topics); err != nil {
		t.Fatal(err)
	}
	want := `clock
  ok    The clock is right.

Postfix
  FAIL  main.cf: Postfix does not ask us
        about any next hop.
        seen: smtp_tls_policy_maps is
        empty
        → Add the map.
            postconf -e smtp_tls_policy_maps=socketmap:unix:run/x.sock:postfix

`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	if err := (Text{Colour: true}).Write(&b, topics[:1]); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != "clock\n  \x1b[32mok  \x1b[0m  The clock is right.\n\n" {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Code: "a-b", Grade: Unknown})
	if want := `{"code":"a-b","grade":"unknown","subject":"","text":"","evidence":"","advice":"","fix":""}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := json.Marshal(Finding{}); err == nil {
		t.Error("a finding without a grade was written")
	}
}
