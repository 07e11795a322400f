package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"tlspolicyd/socketmap"
)

// On a terminal the first lookup of most domains says more than NOTFOUND: what
// it means, and how to see why. A program gets no such line.
func TestNotFoundIsExplainedOnATerminal(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &socketmap.Server{Handler: handlerFunc(func(context.Context, []byte, []byte) []byte { return []byte("NOTFOUND ") })}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	_, terminal := openTerminal(t, 80)
	for _, tt := range []struct {
		flag, key, want string
	}{
		{"--map=postfix", "plain.test", "tlspolicyd: plain.test: no policy: Postfix uses its own default (smtp_tls_security_level). 'tlspolicyd explain plain.test' shows why\n"},
		{"--json", "plain.test", ""},
		{"--map=postfix", "user@plain.test", "tlspolicyd: user@plain.test: not a next hop, nothing was looked up: use plain.test\n"},
	} {
		var hints bytes.Buffer
		if status := run(t.Context(), []string{"lookup", "--socket", "unix:" + path, tt.flag, tt.key}, nil, terminal, &hints); status != exitNo {
			t.Errorf("%s: status %d", tt.key, status)
		}
		if got := hints.String(); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.flag, tt.key, got, tt.want)
		}
	}
	var pipe, hints bytes.Buffer
	run(t.Context(), []string{"lookup", "--socket", "unix:" + path, "plain.test"}, nil, &pipe, &hints)
	if strings.TrimSpace(pipe.String()) != "NOTFOUND" || hints.Len() > 0 {
		t.Errorf("in a pipe: %q, %q", pipe.String(), hints.String())
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-done
}
