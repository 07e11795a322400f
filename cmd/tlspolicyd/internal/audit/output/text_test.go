package output

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

func TestText(t *testing.T) {
	topics := []audit.Topic{
		{Name: "clock", Findings: []audit.Finding{{Code: "clock-ok", Grade: audit.OK, Text: "The clock is right."}}},
		{Name: "nothing here"},
		{Name: "Postfix", Findings: []audit.Finding{{
			Code: "map-missing", Grade: audit.Fail, Subject: "main.cf", Text: "Postfix does not ask us about any next hop.",
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

func TestSummary(t *testing.T) {
	topics := func(grades ...audit.Grade) []audit.Topic {
		var topic audit.Topic
		for _, g := range grades {
			topic.Findings = append(topic.Findings, audit.Finding{Grade: g})
		}
		return []audit.Topic{topic}
	}
	for want, got := range map[string]string{
		"all well":                          Summary(topics(audit.OK)),
		"1 failure, 1 unknown, 1 warning":   Summary(topics(audit.Warn, audit.Fail, audit.OK, audit.Unknown)),
		"2 failures, 2 unknown, 2 warnings": Summary(topics(audit.Warn, audit.Fail, audit.Unknown, audit.Unknown, audit.Fail, audit.Warn)),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
