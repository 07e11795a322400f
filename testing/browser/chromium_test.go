//go:build browser

package browser

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// hang is how long anything may take before the test fails.
const hang = 2 * time.Minute

// chromium is a headless Chromium with one page, driven over the DevTools protocol.
type chromium struct {
	t    *testing.T
	conn *websocket.Conn

	mu       sync.Mutex
	id       int
	answers  map[int]chan answer
	loaded   chan struct{} // one for each load event
	Problems []string      // what the browser complained of: console, CSP, failed loads, dialogs
}

type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// startChromium runs a browser until the end of the test.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("no chromium in PATH: run testing/browser/run.sh, or apt-get install chromium")
	}
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--remote-allow-origins=*", "--remote-debugging-port=0", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its children end with it
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		var log bytes.Buffer
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, at, ok := strings.Cut(lines.Text(), "DevTools listening on "); ok {
				url <- at
			}
			fmt.Fprintln(&log, lines.Text())
		}
		close(url)
		if t.Failed() {
			t.Logf("chromium: %s", log.String())
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-read
		_ = cmd.Wait()
	})
	at, ok := within(t, url, "Chromium starts")
	if !ok {
		t.Fatal("Chromium ended at its start")
	}
	host := regexp.MustCompile(`^ws://[^/]+`).FindString(at)
	browser := dial(t, at)
	target := struct{ TargetID string }{}
	browser.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	c := dial(t, host+"/devtools/page/"+target.TargetID)
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "DOM", "Accessibility"} {
		c.call(domain+".enable", nil, nil)
	}
	return c
}

func dial(t *testing.T, url string) *chromium {
	t.Helper()
	conn, err := websocket.Dial(url, "", "http://127.0.0.1/")
	if err != nil {
		t.Fatal(err)
	}
	conn.MaxPayloadBytes = 64 << 20
	c := &chromium{t: t, conn: conn, answers: make(map[int]chan answer), loaded: make(chan struct{}, 100)}
	done := make(chan struct{})
	go func() { defer close(done); c.read() }()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return c
}

// read takes answers and events until the connection ends.
func (c *chromium) read() {
	for {
		var text []byte
		if websocket.Message.Receive(c.conn, &text) != nil {
			return
		}
		var m struct {
			ID     int
			Method string
			Params json.RawMessage
			answer
		}
		if err := json.Unmarshal(text, &m); err != nil {
			c.problem("DevTools: " + err.Error())
			continue
		}
		c.mu.Lock()
		waits := c.answers[m.ID]
		delete(c.answers, m.ID)
		c.mu.Unlock()
		switch {
		case waits != nil:
			waits <- m.answer
		case m.Method == "Page.loadEventFired":
			c.loaded <- struct{}{}
		case m.Method == "Runtime.consoleAPICalled", m.Method == "Runtime.exceptionThrown", m.Method == "Log.entryAdded",
			m.Method == "Page.javascriptDialogOpening", m.Method == "Network.loadingFailed":
			c.problem(m.Method + " " + string(m.Params))
		}
	}
}

func (c *chromium) problem(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Problems = append(c.Problems, text)
}

// problems returns what the browser complained of since the last call.
func (c *chromium) problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.Problems
	c.Problems = nil
	return all
}

// call has the browser do something. result may be nil.
func (c *chromium) call(method string, params, result any) {
	c.t.Helper()
	waits := make(chan answer, 1)
	c.mu.Lock()
	c.id++
	id := c.id
	c.answers[id] = waits
	c.mu.Unlock()
	if err := websocket.JSON.Send(c.conn, map[string]any{"id": id, "method": method, "params": params}); err != nil {
		c.t.Fatal(err)
	}
	a, _ := within(c.t, waits, method)
	if a.Error != nil {
		c.t.Fatalf("%s: %s", method, a.Error.Message)
	}
	if result != nil {
		if err := json.Unmarshal(a.Result, result); err != nil {
			c.t.Fatal(err)
		}
	}
}

// open goes to a page and waits until it is there.
func (c *chromium) open(url string) {
	c.t.Helper()
	c.afterLoad(func() { c.call("Page.navigate", map[string]any{"url": url}, nil) })
}

// afterLoad does what leads to another page and waits until that is there.
func (c *chromium) afterLoad(do func()) {
	c.t.Helper()
	for len(c.loaded) > 0 {
		<-c.loaded
	}
	do()
	within(c.t, c.loaded, "a page loads")
}

// eval returns the value of an expression in the page. The CSP does not apply to it.
func eval[T any](c *chromium, expression string) (v T) {
	c.t.Helper()
	var out struct {
		Result           struct{ Value T }
		ExceptionDetails *struct{ Text string }
	}
	c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true}, &out)
	if out.ExceptionDetails != nil {
		c.t.Fatalf("%s: %s", expression, out.ExceptionDetails.Text)
	}
	return out.Result.Value
}

// keys presses keys, one after the other: "Tab", "Enter", or a text.
func (c *chromium) keys(all ...string) {
	c.t.Helper()
	for _, key := range all {
		switch key {
		case "Tab", "Enter":
			code := map[string]int{"Tab": 9, "Enter": 13}[key]
			text := map[string]string{"Enter": "\r"}[key]
			for _, kind := range []string{"keyDown", "keyUp"} {
				c.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code}, nil)
			}
		default:
			c.call("Input.insertText", map[string]any{"text": key}, nil)
		}
	}
}

// size sets the size of the window, and whether the system is dark.
func (c *chromium) size(width, height int, scheme string) {
	c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// screenshot returns the window as PNG.
func (c *chromium) screenshot() []byte {
	var out struct{ Data string }
	c.call("Page.captureScreenshot", map[string]any{"format": "png", "optimizeForSpeed": false}, &out)
	png, err := base64.StdEncoding.DecodeString(out.Data)
	if err != nil {
		c.t.Fatal(err)
	}
	return png
}

func within[T any](t *testing.T, from <-chan T, what string) (v T, ok bool) {
	t.Helper()
	select {
	case v, ok = <-from:
		return v, ok
	case <-time.After(hang):
		t.Fatalf("%s: not within %v", what, hang)
		return v, false
	}
}
