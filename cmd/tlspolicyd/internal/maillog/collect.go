package maillog

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"tlspolicyd/internal/printable"
)

// What a Collector keeps is bounded by these, whatever the log holds.
const (
	maxText      = 300     // bytes of any text
	maxProcesses = 4096    // that have logged a warning
	maxFailures  = 10_000  // mail hosts whose certificate failed
	maxWarnings  = 8       // of a delivery
	maxMessages  = 100_000 // held back
	maxGroups    = 10_000  // causes with their next hops
	maxHosts     = 8       // of a group
)

// Filter picks messages. The zero value picks all.
type Filter struct {
	QueueID   string
	Recipient string // an address, in lower case
	Domain    string // of the recipient, the next hop, or a mail host; in lower case
	Since     time.Time
}

// Collector reads a log. Its zero value and Now are ready for use.
type Collector struct {
	Filter Filter
	Now    time.Time

	report    Report
	lastStamp []byte
	processes map[string]*attempt
	failures  map[string]string // by mail host, as host[address]:port: why its certificate was refused
	messages  map[string][]*Group
	groups    map[groupKey]*Group
	latest    map[string]*Group // by next hop: the group of its last message
}

// attempt is what a process has logged since its delivery before.
type attempt struct {
	warnings []string
	ended    []byte // queue id of a delivery that has ended since
}

type groupKey struct{ code, hop string }

// Tally counts deliveries.
type Tally struct {
	Deliveries int    `json:"deliveries"`
	Last       string `json:"last,omitempty"` // reason of the last of them
}

// Report is what a log says. Its texts are untrusted, and printable.
type Report struct {
	From         time.Time    `json:"from,omitzero"`
	To           time.Time    `json:"to,omitzero"`
	Lines        int          `json:"lines"`
	Unparsed     int          `json:"lines_unparsed"`      // no lines of a log
	Messages     int          `json:"messages"`            // that were held back
	Waiting      int          `json:"waiting"`             // of these: neither delivered, returned nor removed
	Truncated    bool         `json:"truncated,omitempty"` // too many messages or next hops: counts are lower bounds
	Other        Tally        `json:"other"`               // deferred or bounced for reasons that are not about TLS
	Unrecognized Tally        `json:"unrecognized"`        // about TLS, but of no form that is known
	Causes       []CauseFound `json:"causes"`
}

// CauseFound is a cause with the next hops that it concerns.
type CauseFound struct {
	Code     string   `json:"code"`
	Side     string   `json:"side"`
	Meaning  string   `json:"meaning"`
	Advice   string   `json:"advice"`
	Messages int      `json:"messages"`
	Waiting  int      `json:"waiting"`
	NextHops []*Group `json:"next_hops"` // most that wait first
}

// Group is the messages for one next hop with one cause.
type Group struct {
	NextHop    string    `json:"next_hop"`   // as Postfix logs it, else the domain of the recipient
	Messages   int       `json:"messages"`   // that were held back
	Waiting    int       `json:"waiting"`    // still, for this cause
	Delivered  int       `json:"delivered"`  // later
	Returned   int       `json:"returned"`   // to the sender
	Deliveries int       `json:"deliveries"` // tried
	Since      time.Time `json:"since"`
	Last       time.Time `json:"last"`
	QueueID    string    `json:"queue_id"` // of the last message
	Reason     string    `json:"reason"`   // the last, as Postfix logs it
	Hosts      []Host    `json:"hosts"`

	Daemon any `json:"daemon,omitempty"` // what tlspolicyd knows now, for the caller to fill in

	code, evidence string
	relayed        bool // the next hop is not the domain of the recipient
}

// Host is a mail host with what the log has against it.
type Host struct {
	Host     string `json:"host,omitempty"` // empty: none was connected to
	Evidence string `json:"evidence,omitempty"`
}

// Add reads a line. It does not keep b.
func (c *Collector) Add(b []byte) {
	if c.groups == nil {
		c.processes, c.failures = map[string]*attempt{}, map[string]string{}
		c.messages, c.groups, c.latest = map[string][]*Group{}, map[groupKey]*Group{}, map[string]*Group{}
	}
	c.report.Lines++
	l, ok := parse(b)
	if !ok {
		c.report.Unparsed++
		return
	}
	c.lastStamp = append(c.lastStamp[:0], l.stamp...)
	if c.report.From.IsZero() {
		c.report.From = when(l.stamp, c.Now)
	}
	switch string(l.program) {
	case "smtp", "lmtp", "error":
		if d, ok := parseDelivery(l.text); ok {
			c.delivered(l, d)
		} else {
			c.note(l)
		}
	case "tlsproxy":
		c.failed(l.text)
	case "qmgr", "postsuper":
		id, text, ok := queueID(l.text)
		if !ok || len(c.messages[string(id)]) == 0 {
			return
		}
		if bytes.HasSuffix(text, []byte(", returned to sender")) {
			c.leave(id, "", func(g *Group) { g.Returned++ })
		} else if string(text) == "removed" {
			c.leave(id, "", nil)
		}
	}
}

// leave takes a message out of the groups that it waits in: of one next hop, or
// of all ("").
func (c *Collector) leave(id []byte, hop string, count func(*Group)) {
	groups := slices.DeleteFunc(c.messages[string(id)], func(g *Group) bool {
		if hop != "" && g.NextHop != hop && !g.relayed {
			return false
		}
		g.Waiting--
		if count != nil {
			count(g)
		}
		return true
	})
	if len(groups) == 0 {
		delete(c.messages, string(id))
		return
	}
	c.messages[string(id)] = groups
}

// failed keeps why the certificate of a mail host was not accepted. With
// connections that are used again tlsproxy(8) logs it.
func (c *Collector) failed(text []byte) (warning string, ok bool) {
	if i := bytes.Index(text, []byte(notAccepted)); i >= 0 && i <= len("server ") {
		host, why, ok := cutHost(text[i+len(notAccepted):])
		if ok {
			if len(c.failures) >= maxFailures {
				clear(c.failures)
			}
			c.failures[clean(host)] = clean(why)
			warning = clean(text[i:])
		}
		return warning, true
	}
	// With smtp_tls_loglevel = 2, after the line above.
	if host, rest, ok := bytes.Cut(text, []byte(": subject_CN=")); ok {
		if why, ok := c.failures[clean(host)]; ok && !strings.Contains(why, commonName) {
			name, _, _ := bytes.Cut(rest, []byte(", "))
			c.failures[clean(host)] = why + commonName + clean(name)
		}
		return "", true
	}
	return "", false
}

const commonName = ", common name "

// cutHost cuts "host[address]:port: " off a text.
func cutHost[T string | []byte](text T) (host, rest T, ok bool) {
	i := strings.Index(string(text), "]:")
	if i < 0 {
		return host, rest, false
	}
	j := strings.Index(string(text[i:]), ": ")
	if j < 0 {
		return host, rest, false
	}
	return text[:i+j], text[i+j+2:], true
}

// note keeps what a process logs between two deliveries.
func (c *Collector) note(l line) {
	var text string
	if warning, ok := bytes.CutPrefix(l.text, []byte("warning: ")); ok {
		text = clean(warning)
	} else if text, ok = c.failed(l.text); !ok {
		_, earlier, ok := queueID(l.text)
		if !ok {
			return
		}
		text = earlierHost + clean(earlier)
	}
	if text == "" {
		return
	}
	a := c.processes[string(l.process)]
	if a == nil {
		if len(c.processes) >= maxProcesses {
			clear(c.processes)
		}
		a = &attempt{}
		c.processes[string(l.process)] = a
	}
	if a.ended != nil {
		a.warnings, a.ended = nil, nil
	}
	if len(a.warnings) >= maxWarnings {
		a.warnings = a.warnings[1:]
	}
	a.warnings = append(a.warnings, text)
}

// warnings are those that belong to a delivery: a message with several
// recipients ends in as many lines.
func (c *Collector) warnings(l line, d delivery) []string {
	a := c.processes[string(l.process)]
	if a == nil || a.ended != nil && !bytes.Equal(a.ended, d.queueID) {
		return nil
	}
	a.ended = append(a.ended[:0], d.queueID...)
	return a.warnings
}

func clean[T ~string | ~[]byte](text T) string { return printable.Line(text, maxText) }

func (c *Collector) delivered(l line, d delivery) {
	warnings := c.warnings(l, d)
	switch string(d.status) {
	case "sent":
		if len(c.messages[string(d.queueID)]) > 0 {
			c.leave(d.queueID, c.nextHop(d, nil), func(g *Group) { g.Delivered++ })
		}
		return
	case "deferred", "bounced":
	default:
		return
	}
	at := when(l.stamp, c.Now)
	if at.Before(c.Filter.Since) {
		return
	}
	reason, suspended := strings.CutPrefix(clean(d.reason), "delivery temporarily suspended: ")
	hop := c.nextHop(d, warnings)
	host := hostOf(d, warnings)
	if !c.picks(d, hop, host) {
		return
	}
	code, evidence := classify(reason, warnings, c.failures[clean(d.relay)])
	if before := c.latest[hop]; suspended && before != nil && before.Reason == reason {
		code, host, evidence = before.code, "", before.evidence
	}
	if code == "" {
		tally := &c.report.Other
		if slices.ContainsFunc([]string{"TLS", "certificate", "DANE", "DNSSEC"}, func(word string) bool { return strings.Contains(reason, word) }) {
			tally = &c.report.Unrecognized
		}
		tally.Deliveries++
		tally.Last = reason
		return
	}
	g := c.group(code, hop)
	if g.Deliveries++; g.Since.IsZero() || at.Before(g.Since) {
		g.Since = at
	}
	if at.After(g.Last) {
		g.Last = at
	}
	g.QueueID, g.Reason, g.evidence = clean(d.queueID), reason, evidence
	if g.NextHop == hop {
		c.latest[hop] = g
		g.relayed = hop != c.nextHop(d, nil)
	}
	g.see(Host{host, evidence}, suspended)
	c.hold(d.queueID, g)
	if string(d.status) == "bounced" {
		c.leave(d.queueID, hop, func(g *Group) { g.Returned++ })
	}
}

// nextHop is what Postfix asked a policy for, where it logs that, else the domain
// of the recipient.
func (c *Collector) nextHop(d delivery, warnings []string) string {
	for _, w := range warnings {
		if hops, ok := strings.CutPrefix(w, policyFor); ok {
			if hop, _, ok := strings.Cut(hops, "/"); ok {
				return hop
			}
		}
	}
	return strings.ToLower(clean(d.recipient[bytes.LastIndexByte(d.recipient, '@')+1:]))
}

// hostOf is the mail host of a delivery: the one that was connected to, else the
// one that a warning names.
func hostOf(d delivery, warnings []string) string {
	if string(d.relay) != "none" {
		return clean(d.relay)
	}
	for _, w := range slices.Backward(warnings) {
		if hops, ok := strings.CutPrefix(w, policyFor); ok {
			if _, host, ok := strings.Cut(hops, "/"); ok {
				host, _, _ = strings.Cut(host, ": ")
				return host
			}
		}
		if rest, ok := strings.CutPrefix(w, notAccepted); ok {
			host, _, _ := cutHost(rest)
			return host
		}
		if name, ok := strings.CutPrefix(w, "MX name '"); ok {
			host, _, _ := strings.Cut(name, "'")
			return host
		}
	}
	return ""
}

func (c *Collector) picks(d delivery, hop, host string) bool {
	f := c.Filter
	name, _, _ := strings.Cut(host, "[")
	return (f.QueueID == "" || f.QueueID == string(d.queueID)) &&
		(f.Recipient == "" || strings.EqualFold(f.Recipient, string(d.recipient))) &&
		(f.Domain == "" || f.Domain == hop || strings.EqualFold(f.Domain, name) || f.Domain == c.nextHop(d, nil))
}

func (c *Collector) group(code, hop string) *Group {
	key := groupKey{code, hop}
	g := c.groups[key]
	if g == nil && len(c.groups) >= maxGroups {
		key.hop, c.report.Truncated = "", true
		g = c.groups[key]
	}
	if g == nil {
		g = &Group{NextHop: key.hop, code: code}
		c.groups[key] = g
	}
	return g
}

// see keeps a host, the one that was seen last at the end.
func (g *Group) see(h Host, suspended bool) {
	if suspended && len(g.Hosts) > 0 {
		return
	}
	g.Hosts = slices.DeleteFunc(g.Hosts, func(old Host) bool { return old.Host == h.Host })
	if len(g.Hosts) >= maxHosts {
		g.Hosts = g.Hosts[1:]
	}
	g.Hosts = append(g.Hosts, h)
}

// hold has a message wait in a group, and no longer in another one of the same
// next hop.
func (c *Collector) hold(id []byte, g *Group) {
	groups, known := c.messages[string(id)]
	if slices.Contains(groups, g) {
		return
	}
	if !known {
		if len(c.messages) >= maxMessages {
			c.report.Truncated = true
			return
		}
		c.report.Messages++
	}
	groups = slices.DeleteFunc(groups, func(old *Group) bool {
		if old.NextHop == g.NextHop {
			old.Waiting--
		}
		return old.NextHop == g.NextHop
	})
	g.Messages++
	g.Waiting++
	c.messages[string(id)] = append(groups, g)
}

// Report returns what was found so far.
func (c *Collector) Report() Report {
	r := c.report
	if r.Lines > r.Unparsed {
		r.To = when(c.lastStamp, c.Now)
	}
	r.Waiting, r.Causes = len(c.messages), []CauseFound{}
	for _, cause := range Causes() {
		found := CauseFound{Code: cause.Code, Side: cause.Side, Meaning: cause.Meaning, Advice: cause.Advice}
		for key, g := range c.groups {
			if key.code == cause.Code {
				found.NextHops = append(found.NextHops, g)
				found.Messages += g.Messages
				found.Waiting += g.Waiting
			}
		}
		if found.NextHops == nil {
			continue
		}
		slices.SortFunc(found.NextHops, func(a, b *Group) int {
			return cmp.Or(b.Waiting-a.Waiting, b.Messages-a.Messages, strings.Compare(a.NextHop, b.NextHop))
		})
		r.Causes = append(r.Causes, found)
	}
	slices.SortStableFunc(r.Causes, func(a, b CauseFound) int {
		return cmp.Or(b.Waiting-a.Waiting, b.Messages-a.Messages)
	})
	return r
}
