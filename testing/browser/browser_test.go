//go:build browser

package browser

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pages are all pages, by path; of a domain those that have most to say.
func pages() []string {
	return []string{
		"/", "/cache", "/cache?sort=-used&policy=secure", "/cache?search=*hostile", "/cache?search=" + url.QueryEscape(tag), "/cache?search=nothing-like-that",
		"/domain/university.test", "/domain/" + hostile, "/domain/library.test", "/afresh?key=university.test", "/refresher", "/counters",
	}
}

func TestBrowser(t *testing.T) {
	w := start(t)
	c := startChromium(t)
	c.size(1280, 900, "light")

	base, _, _ := strings.Cut(w.url, "/?")
	if got := status(t, http.MethodGet, base+"/"); got != http.StatusUnauthorized {
		t.Errorf("without the token: status %d", got)
	}
	if got := status(t, http.MethodPost, base+"/cache"); got != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", got)
	}
	if got := status(t, http.MethodGet, strings.Replace(base, "127.0.0.1", "127.0.0.1.nip.test", 1)); got != http.StatusForbidden {
		t.Errorf("another host: status %d", got)
	}
	c.open(w.url)
	if got := eval[string](c, "location.href"); got != base+"/" {
		t.Fatalf("the token leads to %s, want %s/", got, base)
	}
	if got := status(t, http.MethodGet, w.url); got != http.StatusUnauthorized {
		t.Errorf("the token works twice: status %d", got)
	}
	if dir := os.Getenv("TLSPOLICYD_SCREENSHOTS"); dir != "" {
		screenshots(t, c, base, dir)
	}

	t.Run("pages", func(t *testing.T) {
		for _, path := range pages() {
			c.size(1280, 900, "light")
			c.open(base + path)
			for _, problem := range c.problems() {
				t.Errorf("%s: %s", path, problem)
			}
			best := eval[float64](c, took)
			for range 9 * verbose() {
				c.open(base + path)
				best = min(best, eval[float64](c, took))
			}
			t.Logf("%4.0f ms %8.0f bytes  %s", best, eval[float64](c, "performance.getEntriesByType('navigation')[0].decodedBodySize"), path)
			if text := eval[string](c, faults); text != "" {
				t.Errorf("%s: %s", path, text)
			}
			if text := eval[string](c, "document.body.textContent"); strings.ContainsAny(text, rlo+"\u0000\x1b") {
				t.Errorf("%s: a control character is shown", path)
			}
			for _, scheme := range []string{"light", "dark"} {
				c.size(320, 600, scheme)
				if n := eval[float64](c, "document.documentElement.scrollWidth"); n > 320 {
					t.Errorf("%s: %v pixels wide on a screen of 320", path, n)
				}
				if r := eval[float64](c, contrast); r < 4.5 {
					t.Errorf("%s, %s: a text has a contrast of %.2f to what is behind it", path, scheme, r)
				}
			}
		}
	})

	t.Run("content", func(t *testing.T) {
		for path, want := range map[string][]string{
			"/":                           {"savings-bank.test", "certificate: expired", "clinic.test", "SERVFAIL", "publisher.test", "validates", "in 8h"},
			"/domain/university.test":     {"OK dane-only", "mode: enforce", "full", "partial", "usable"},
			"/domain/" + hostile:          {tag, "192.0.2.1", "is mode meant", `\xe2\x80\xae`, "bytes)"},
			"/afresh?key=university.test": {"MTA-STS record", "dane-full", "OK dane-only"},
			"/refresher":                  {"domains are refreshed within the next hour"},
			"/counters":                   {"Lookups by answer", "dane-only"},
		} {
			c.open(base + path)
			for path == "/" && !eval[bool](c, `document.body.textContent.includes("Policies were counted")`) {
				c.open(base + path) // go test ends a hang
			}
			text := eval[string](c, "document.body.textContent")
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%s: %q is not there", path, w)
				}
			}
		}
	})

	// The whole way with keys alone: skip link, search, sort, next page.
	t.Run("keyboard", func(t *testing.T) {
		c.size(1280, 900, "light")
		c.open(base + "/cache")
		c.keys("Tab")
		if got := eval[string](c, "document.activeElement.textContent"); got != "Skip to content" {
			t.Errorf("the first tab stop is %q", got)
		}
		c.keys("Enter")
		c.keys("Tab")
		if got := eval[string](c, "document.activeElement.id"); got != "search" {
			t.Errorf("after the skip link comes %q, want the search", got)
		}
		c.keys("d0001")
		c.afterLoad(func() { c.keys("Enter") })
		if got := eval[string](c, rows); !strings.HasPrefix(got, "d0001") {
			t.Errorf("found %q", got)
		}
		c.open(base + "/cache?policy=secure")
		eval[any](c, `[...document.querySelectorAll("thead a")].find(a => a.textContent == "Last used").focus()`)
		c.afterLoad(func() { c.keys("Enter") })
		if got := eval[string](c, `(e => e.textContent + e.ariaSort)(document.querySelector("[aria-sort]"))`); got != "Last used ↑ascending" {
			t.Errorf("sorted by %q", got)
		}
	})

	t.Run("paging", func(t *testing.T) {
		c.open(base + "/cache")
		first := eval[string](c, rows)
		c.afterLoad(func() { eval[any](c, `document.querySelector("[rel=next]").click()`) })
		if second := eval[string](c, rows); second <= first {
			t.Errorf("the second page begins with %q, the first with %q", second, first)
		}
		if n := eval[float64](c, `document.querySelectorAll("tbody tr").length`); n != 100 {
			t.Errorf("%v rows on a page", n)
		}
	})
	for _, problem := range c.problems() {
		t.Error(problem)
	}
	for name, pid := range w.pids {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmHWM") || strings.HasPrefix(line, "RssAnon") {
				t.Logf("%s: %s", name, strings.TrimSpace(line))
			}
		}
	}
}

// verbose is 1 with -v: then each page is opened ten times, and the shortest time is
// logged, which other work on the machine has the least part in.
func verbose() int {
	if testing.Verbose() {
		return 1
	}
	return 0
}

// took is how long the browser waited for a page, in milliseconds.
const took = `(e => e.responseEnd - e.requestStart)(performance.getEntriesByType("navigation")[0])`

// rows is the first cell of a table.
const rows = `document.querySelector("tbody th").textContent`

// faults is what a person with a screen reader, or with a browser without scripts,
// would stumble over.
const faults = `(() => {
	const bad = [], all = s => [...document.querySelectorAll(s)];
	const lacks = (s, ok, why) => all(s).forEach(e => ok(e) || bad.push(why + ": " + e.outerHTML.slice(0, 200)));
	lacks("script, iframe, object, [style], [onclick], [onerror], img", () => false, "not allowed");
	lacks("th", e => e.scope, "no scope");
	lacks("table", e => e.caption && e.caption.textContent.trim(), "no caption");
	lacks("input:not([type=hidden]), select", e => e.labels.length, "no label");
	lacks("svg", e => e.ariaHidden || document.getElementById(e.getAttribute("aria-labelledby")), "no name");
	lacks(".scroll", e => e.tabIndex == 0 && e.getAttribute("role") == "region" && (e.ariaLabel || document.getElementById(e.getAttribute("aria-labelledby"))), "not in reach of the keyboard");
	lacks("a", e => e.textContent.trim() && e.getAttribute("href"), "no text or target");
	if (all("h1").length != 1) bad.push("not one h1");
	if (all("main").length != 1 || !document.documentElement.lang || !document.title) bad.push("no main, language or title");
	const ids = all("[id]").map(e => e.id);
	if (new Set(ids).size != ids.length) bad.push("an id twice");
	if (document.title.startsWith("taken")) bad.push("a script has run");
	return bad.join("\n");
})()`

// contrast is the lowest contrast of a text to its background (WCAG 1.4.3).
const contrast = `(() => {
	const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
	const rgb = (...layers) => {
		canvas.clearRect(0, 0, 1, 1);
		for (const l of layers) { canvas.fillStyle = l; canvas.fillRect(0, 0, 1, 1); }
		return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
	};
	const light = c => {
		const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
		return .2126 * r + .7152 * g + .0722 * b;
	};
	let least = 99;
	const seen = new Map();
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.textContent.trim() || !e.checkVisibility() || e.closest("title, option, .hidden, .skip")) continue;
		const layers = [];
		for (let p = e; p; p = p.parentElement) layers.unshift(getComputedStyle(p).backgroundColor);
		const key = layers.join() + getComputedStyle(e).color;
		if (!seen.has(key)) {
			const a = light(rgb(...layers)), b = light(rgb(...layers, getComputedStyle(e).color));
			seen.set(key, (Math.max(a, b) + .05) / (Math.min(a, b) + .05));
		}
		least = Math.min(least, seen.get(key));
	}
	return least;
})()`

func status(t *testing.T, method, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Host = "127.0.0.1:" + req.URL.Port() // whatever the Host header says
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// screenshots writes what README shows, and more to look at.
func screenshots(t *testing.T, c *chromium, base, dir string) {
	for !eval[bool](c, `document.body.textContent.includes("Policies were counted")`) {
		c.open(base + "/")
	}
	for name, one := range map[string]struct {
		path          string
		width, height int
		scheme        string
	}{
		"ui":             {"/", 1100, 860, "light"},
		"ui-dark":        {"/", 1100, 860, "dark"},
		"cache":          {"/cache", 1100, 900, "light"},
		"cache-narrow":   {"/cache", 320, 900, "dark"},
		"front-narrow":   {"/", 320, 1400, "light"},
		"domain":         {"/domain/university.test", 1100, 1500, "light"},
		"hostile":        {"/domain/" + hostile, 1100, 1500, "dark"},
		"domain-narrow":  {"/domain/university.test", 320, 1500, "light"},
		"refresher":      {"/refresher", 1100, 900, "light"},
		"refresher-dark": {"/refresher", 320, 900, "dark"},
		"counters":       {"/counters", 1100, 900, "dark"},
		"afresh":         {"/afresh?key=university.test", 1100, 900, "light"},
	} {
		c.size(one.width, one.height, one.scheme)
		c.open(base + one.path)
		eval[any](c, `document.querySelector(".brand span").textContent = "mail.example.net"`)
		if err := os.WriteFile(filepath.Join(dir, name+".png"), c.screenshot(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
