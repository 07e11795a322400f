package lab

import (
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PolicyHost is a web server that serves one MTA-STS policy file over HTTP/1.1
// at "/.well-known/mta-sts.txt" (8461 §3.2), with the TXT record that announces
// it (8461 §3.1).
type PolicyHost struct {
	w      *World
	domain string
	addr   netip.Addr
	key    *ecdsa.PrivateKey

	// Guarded by w.mu.
	names  []string         // that its certificate is for
	cert   *tls.Certificate // made when first needed
	policy string
	serial int
	id     string
	fault  HostFault
	conns  int
	seen   []Request
}

// Request is an HTTP request that a policy host got.
type Request struct {
	At     time.Time
	Method string
	Path   string // with the query, as sent
	Host   string
	Header http.Header
	SNI    string
	TLS    uint16 // tls.VersionTLS13
}

// HostFault is what goes wrong with a policy host. The zero value is nothing.
type HostFault struct {
	Refuse bool   // connection refused
	Stall  Stall  // where it stops for good, the connection staying open
	Cert   Cert   // another certificate
	TLSMax uint16 // the highest TLS version it speaks (tls.VersionTLS11)

	Path string // where the policy file is instead of its place (8461 §3.3)

	Delay         time.Duration // before each response, beside World.DelayHTTP
	Status        int           // instead of 200
	Redirect      string        // Location, with status 301 unless Status says otherwise
	MediaType     string        // instead of "text/plain"; "-": no Content-Type at all
	Header        http.Header   // more header fields
	EndlessHeader bool          // header fields until the client gives up
	Drip          time.Duration // the body comes one byte at a time, this far apart
	Size          int64         // the policy, padded or cut to so many bytes, which may be more than memory holds
	NoLength      bool          // no Content-Length: the body ends with the connection
	CloseEarly    bool          // half of the announced body, then the connection ends
	Gzip          bool          // compressed, with Content-Encoding, though nobody asked

	Hangup   Stall  // where it closes the connection: AtHandshake or AtHeaders
	MaxHello int    // bytes of a TLS record: a larger ClientHello ends the connection, as with some middleboxes; 0: any
	NoTLS    string // bytes instead of the TLS handshake
	Raw      string // bytes instead of the response, then the end without close_notify; Drip and Stall AtBody hold
	Endless  string // bytes that follow Raw again and again until the client gives up
}

// Stall is where a policy host stops for good.
type Stall uint8

const (
	NoStall     Stall = iota
	AtConnect         // attempts to connect are never answered
	AtHandshake       // connects, then TLS is never answered
	AtHeaders         // reads the request, never answers
	AtBody            // sends the header and half of the body
)

// PolicyHost puts a policy host for the domain into the world: an A record for
// mta-sts.DOMAIN in Network, the TXT record at _mta-sts.DOMAIN with id 1, and a
// certificate of the world's CA.
func (w *World) PolicyHost(domain, policy string) *PolicyHost {
	domain = strings.TrimSuffix(canonical(domain), ".")
	h := &PolicyHost{
		w: w, domain: domain, key: newKey(), names: []string{"mta-sts." + domain},
		policy: policy,
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	h.addr = w.newAddr()
	h.listen(h.addr)
	h.bump()
	return h
}

// Addr is the host's first address.
func (h *PolicyHost) Addr() netip.Addr { return h.addr }

// AddAddr gives the host another address, with its A or AAAA record.
func (h *PolicyHost) AddAddr(addr netip.Addr) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.listen(addr)
}

// AddName puts another name into the host's certificate: a domain whose mta-sts
// name is an alias to this host.
func (h *PolicyHost) AddName(name string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.names = append(h.names, strings.TrimSuffix(canonical(name), "."))
	h.cert = nil
}

// listen makes the host reachable at addr. w.mu is held.
func (h *PolicyHost) listen(addr netip.Addr) {
	h.w.services[endpoint{netip.AddrPortFrom(addr, 443), false}] = service{serve: h.serve, gate: h.gate}
	h.w.zone.add(addressRecord(h.names[0], addr))
}

// SetPolicy changes the policy file and the id in the TXT record.
func (h *PolicyHost) SetPolicy(text string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.policy = text
	h.bump()
}

// SetPolicyKeepID changes the policy file and forgets the id.
func (h *PolicyHost) SetPolicyKeepID(text string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.policy = text
}

// SetID changes the id in the TXT record.
func (h *PolicyHost) SetID(id string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.publish(id)
}

// ID is the id in the TXT record.
func (h *PolicyHost) ID() string {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.id
}

// RemoveTXT takes the TXT record out of DNS; SetID and SetPolicy put it back.
func (h *PolicyHost) RemoveTXT() { h.w.Replace("_mta-sts."+h.domain, "TXT") }

// bump publishes the next id. w.mu is held.
func (h *PolicyHost) bump() {
	h.serial++
	h.publish(strconv.Itoa(h.serial))
}

// publish sets the TXT record, with the TTL it had. w.mu is held.
func (h *PolicyHost) publish(id string) {
	h.id = id
	name := "_mta-sts." + h.domain + "."
	q := question{name, typeCode("TXT")}
	ttl := uint32(defaultTTL)
	if old := h.w.zone.sets[q.name][q.qtype]; len(old) > 0 {
		ttl = old[0].Header().Ttl
	}
	h.w.zone.replace(q, parseRecords(fmt.Sprintf("%s %d TXT \"v=STSv1; id=%s;\"", name, ttl, id)))
}

// Fault sets what goes wrong from now on; the zero HostFault ends all. It holds
// for new connections and for later requests on open ones.
func (h *PolicyHost) Fault(f HostFault) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	h.fault = f
	h.cert = nil
}

// Requests returns how many HTTP requests the host got.
func (h *PolicyHost) Requests() int {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return len(h.seen)
}

// Seen returns the HTTP requests the host got, in order.
func (h *PolicyHost) Seen() []Request {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return slices.Clone(h.seen)
}

// Connections returns how many connections reached the host.
func (h *PolicyHost) Connections() int {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.conns
}

// DelayHTTP makes every policy host wait for d before each response.
func (w *World) DelayHTTP(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delayHTTP = d
}
