package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"
)

// What takes long is told of on a terminal, and nothing of it stays.
func TestExplainTellsWhatItWaitsFor(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		want  string
	}{
		{900 * time.Millisecond, ""},
		{
			2500 * time.Millisecond,
			"\r\"slow.test\": waiting for DNS or the policy host, 1 s\x1b[K" +
				"\r\"slow.test\": waiting for DNS or the policy host, 2 s\x1b[K\r\x1b[K",
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var terminal bytes.Buffer
			report := make(chan explainReport, 1)
			time.AfterFunc(tt.takes, func() { report <- explainReport{Key: "slow.test"} })
			if got := (waiting{&terminal}).await("slow.test", report); got.Key != "slow.test" {
				t.Errorf("got the report of %q", got.Key)
			}
			if got := terminal.String(); got != tt.want {
				t.Errorf("%v: %q, want %q", tt.takes, got, tt.want)
			}
		})
	}
}

// In a pipe nothing is told.
func TestExplainTellsAPipeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pipe bytes.Buffer
		report := make(chan explainReport, 1)
		time.AfterFunc(time.Minute, func() { report <- explainReport{} })
		newWaiting(&pipe).await("slow.test", report)
		if pipe.Len() > 0 {
			t.Errorf("%q", pipe.String())
		}
	})
}
