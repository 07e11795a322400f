package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"regexp"
	"strings"
	"testing"

	"tlspolicyd/socketmap"
)

// The command prints a URL on loopback, serves until its context ends, and exits 0.
func TestUI(t *testing.T) {
	cfg, p, log := operatorWorld(t)
	cfg.Listen.HTTP = ""
	server := &socketmap.Server{Handler: p.handler}
	defer server.Close()
	o, err := startOperator(t.Context(), cfg, p, server, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	defer o.stop()
	ctx, interrupt := context.WithCancel(t.Context())
	out, stdout := io.Pipe()
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"ui", "--port", "0", "--socket", cfg.Listen.Admin}, strings.NewReader(""), stdout, &stderr)
		stdout.Close()
	}()
	printed, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !regexp.MustCompile(`^http://127\.0\.0\.1:[0-9]+/\?token=[A-Z2-7]{26}\n$`).MatchString(printed) {
		t.Fatalf("printed %q, %v: %s", printed, err, stderr.String())
	}
	jar, _ := cookiejar.New(nil)
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Jar: jar, Transport: transport}).Get(strings.TrimSpace(printed))
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(page), "Resolver and database") {
		t.Errorf("status %d, %v: %s", resp.StatusCode, err, page)
	}
	interrupt()
	if status := <-ended; status != exitDone || stderr.Len() > 0 {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
}

func TestUIPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	var stderr bytes.Buffer
	status := run(t.Context(), []string{"ui", "--port", port, "--socket", "unix:/nonexistent"}, strings.NewReader(""), io.Discard, &stderr)
	if want := "tlspolicyd: port " + port + " is in use: name another one with --port, or --port 0 for any\n"; status != exitUnknown || stderr.String() != want {
		t.Errorf("exit status %d: %s", status, stderr.String())
	}
}
