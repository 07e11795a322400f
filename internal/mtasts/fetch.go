package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"tlspolicyd/internal/dnsclient"
	"tlspolicyd/internal/hostname"
	"tlspolicyd/internal/printable"
)

const (
	policyLabel = "mta-sts."                 // 8461 §3.3
	policyPath  = "/.well-known/mta-sts.txt" // 8461 §3.2

	// MaxPolicySize is the largest policy file that is accepted, in bytes
	// (8461 §3.3 suggests this limit).
	MaxPolicySize = 64 << 10

	// DefaultTimeout bounds a fetch (8461 §3.3 suggests one minute).
	DefaultTimeout = time.Minute

	// handshakeTimeout is how long a TLS handshake may take while there is another
	// address family to try.
	handshakeTimeout = 10 * time.Second

	maxHeader = 64 << 10 // bytes of response header
	maxNames  = 20       // names of a certificate that are reported
	userAgent = "tlspolicyd"
)

// Fetcher fetches policy files (8461 §3.3). All fields but Resolver may stay
// zero. It is safe for concurrent use; bounding how many fetches run at a time
// is the caller's part.
type Fetcher struct {
	Resolver dnsclient.Resolver // finds the policy hosts' addresses

	RootCAs *x509.CertPool // nil: those of System
	System  *SystemRoots   // nil: read anew for each fetch

	// AllowNetworks are networks that policy hosts may be in although they are
	// not public.
	AllowNetworks []netip.Prefix

	// Proxy is an HTTP proxy, "http://user:password@host:port"; nil: none. Its
	// own address is the operator's choice and not checked, and where it is a
	// name, Dial finds its address.
	Proxy *url.URL

	// Dial makes TCP connections; nil: net.Dialer. Policy hosts are given as
	// "address:port", never by name.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Timeout bounds a whole fetch, from the first DNS question to the last
	// byte; 0: DefaultTimeout.
	Timeout time.Duration
}

// Roots returns the authorities that policy hosts' certificates are verified
// with now, or ErrNoRoots when there are none.
func (f *Fetcher) Roots() (*x509.CertPool, error) {
	switch {
	case f.RootCAs == nil:
		return f.System.Pool()
	case f.RootCAs.Equal(x509.NewCertPool()):
		return nil, ErrNoRoots
	}
	return f.RootCAs, nil
}

// Fetch fetches and parses the policy of a domain, given in A-labels. The
// error is always a *FetchError.
func (f *Fetcher) Fetch(ctx context.Context, domain string) (*Fetched, error) {
	host := policyLabel + strings.ToLower(strings.TrimSuffix(domain, "."))
	timeout := f.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	x := &Exchange{start: time.Now()}
	policy, failure := f.fetch(ctx, host, policyPath, x)
	x.Total = time.Since(x.start)
	if failure != nil {
		failure.Host, failure.Exchange = host, x
		return nil, failure
	}
	return &Fetched{Policy: policy, Body: x.Body, Exchange: x}, nil
}

// fetch takes the steps in order and records each in x.
func (f *Fetcher) fetch(ctx context.Context, host, path string, x *Exchange) (Policy, *FetchError) {
	if err := hostname.Check(host); err != nil { // else the name could reach into the URL
		return Policy{}, &FetchError{Stage: StageDNS, Reason: "not a host name: " + err.Error()}
	}
	x.URL = "https://" + host + path
	if f.Proxy != nil {
		x.Proxy = printable.Line(f.Proxy.Scheme+"://"+f.Proxy.Host, maxReason)
	}
	roots, err := f.Roots()
	if err != nil {
		return Policy{}, &FetchError{Stage: StageCertificate, Reason: printable.Line(err.Error(), maxReason), Err: err}
	}
	addrs, failure := f.lookUp(ctx, host, x)
	if failure != nil {
		return Policy{}, failure
	}
	session, wire, failure := f.open(ctx, host, addrs, roots, x)
	if failure != nil {
		return Policy{}, failure
	}
	defer wire.Close()
	if failure := get(ctx, session, wire, x); failure != nil {
		return Policy{}, failure
	}
	policy, err := ParsePolicy(x.Body)
	if err != nil {
		return Policy{}, &FetchError{Stage: StagePolicy, Reason: err.Error(), Err: err}
	}
	return policy, nil
}

// open connects and opens the TLS session. After a TLS or certificate failure the
// other address family is tried, once: an AAAA record that leads to another machine
// than the A record is a common mistake. If that fails too, the first failure is
// reported.
func (f *Fetcher) open(ctx context.Context, host string, addrs []netip.Addr, roots *x509.CertPool, x *Exchange) (*tls.Conn, *wireEnd, *FetchError) {
	session, wire, failure := f.openAt(ctx, host, addrs, roots, x)
	if failure == nil || !x.Connected.IsValid() || over(ctx) {
		return session, wire, failure
	}
	x.failedAt(x.Connected.Addr(), failure.Reason)
	rest := otherFamily(addrs, x.Connected.Addr())
	if len(rest) == 0 {
		return nil, nil, failure
	}
	second := *x
	second.Certificate = nil
	session, wire, again := f.openAt(ctx, host, rest, roots, &second)
	if again != nil {
		x.failedAt(second.Connected.Addr(), again.Reason)
		return nil, nil, failure
	}
	*x = second
	return session, wire, nil
}

func (f *Fetcher) openAt(ctx context.Context, host string, addrs []netip.Addr, roots *x509.CertPool, x *Exchange) (*tls.Conn, *wireEnd, *FetchError) {
	conn, failure := f.connect(ctx, addrs, x)
	if failure != nil {
		return nil, nil, failure
	}
	if len(otherFamily(addrs, x.Connected.Addr())) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
	}
	wire := &wireEnd{Conn: conn}
	session, failure := handshake(ctx, wire, host, roots, x)
	if failure != nil {
		conn.Close()
		return nil, nil, failure
	}
	return session, wire, nil
}

// otherFamily returns those addresses that are not of the family of a.
func otherFamily(addrs []netip.Addr, a netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(b netip.Addr) bool { return b.Is4() == a.Is4() })
}

// handshake opens the TLS session: 1.2 or later, SNI, and a WebPKI certificate
// with a DNS-ID that matches the policy host (8461 §3.3). crypto/tls matches
// as 6125 §6.4 asks: subjectAltName only, a wildcard only as the whole
// left-most label.
func handshake(ctx context.Context, conn net.Conn, host string, roots *x509.CertPool, x *Exchange) (*tls.Conn, *FetchError) {
	start := time.Now()
	session := tls.Client(conn, &tls.Config{
		ServerName: host,
		RootCAs:    roots,
		MinVersion: tls.VersionTLS12,
		// Without the hybrid key exchange X25519MLKEM768, whose share makes the
		// ClientHello larger than one packet: some servers and middleboxes reset
		// such a connection. The policy is public, so there is nothing to keep
		// secret for decades.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384},
		// HTTP/2 would bring nothing to a single small request, and its framing
		// and header compression are more for a hostile server to play with.
		NextProtos: []string{"http/1.1"},
	})
	err := session.HandshakeContext(ctx)
	x.TLS = time.Since(start)
	if err == nil {
		state := session.ConnectionState()
		x.TLSVersion = tls.VersionName(state.Version)
		x.CipherSuite = tls.CipherSuiteName(state.CipherSuite)
		x.Certificate = describe(state.PeerCertificates)
		return session, nil
	}
	if invalid, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		x.Certificate = describe(invalid.UnverifiedCertificates)
		return nil, &FetchError{Stage: StageCertificate, Reason: printable.Line(invalid.Err.Error(), maxReason), Err: err}
	}
	return nil, broken(ctx, x, StageTLS, "TLS handshake", err)
}

func describe(chain []*x509.Certificate) *Certificate {
	if len(chain) == 0 {
		return nil
	}
	leaf := chain[0]
	c := &Certificate{
		Issuer:    printable.Line(leaf.Issuer.String(), maxReason),
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
	}
	for _, name := range leaf.DNSNames[:min(len(leaf.DNSNames), maxNames)] {
		c.Names = append(c.Names, printable.Line(name, maxHostLength))
	}
	return c
}

// wireEnd records that the connection below TLS has ended. After close_notify it is
// not read that far.
type wireEnd struct {
	net.Conn
	seen atomic.Bool
}

func (w *wireEnd) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if err == io.EOF {
		w.seen.Store(true)
	}
	return n, err
}

// get sends the request over the session and leaves the policy file in x.Body.
func get(ctx context.Context, session *tls.Conn, wire *wireEnd, x *Exchange) *FetchError {
	start := time.Now()
	// RoundTrip of a Transport that lives for one request: no redirects, no
	// cookies, no cache (8461 §3.3) and no proxy from the environment.
	transport := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return session, nil },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, x.URL, nil)
	if err != nil {
		return broken(ctx, x, StageHTTP, "request", err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return broken(ctx, x, StageHTTP, "waiting for the HTTP response", err)
	}
	defer resp.Body.Close()
	x.Status = resp.StatusCode
	x.MediaType = printable.Line(strings.Join(resp.Header.Values("Content-Type"), ", "), maxReason)
	x.Location = printable.Line(resp.Header.Get("Location"), maxReason)
	if failure := headFault(resp); failure != nil {
		x.Response = time.Since(start)
		return failure
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxPolicySize+1))
	x.Response = time.Since(start)
	x.Size = len(body)
	x.Body = body[:min(len(body), MaxPolicySize)]
	switch {
	case err == nil && wire.seen.Load() && resp.ContentLength < 0 && len(resp.TransferEncoding) == 0:
		// An attacker on the path can cut the connection, and with it the file. A body
		// without a length is complete only after close_notify (9112 §9.8).
		err = errors.New("cut off, with neither a length nor the end of TLS before it")
		fallthrough
	case err != nil:
		return broken(ctx, x, StageHTTP, fmt.Sprintf("reading the policy file, after %d bytes", len(body)), err)
	case len(body) > MaxPolicySize:
		return &FetchError{Stage: StageSize, Reason: fmt.Sprintf("policy file is larger than %d bytes", MaxPolicySize)}
	}
	return nil
}

// headFault says why a response cannot carry a policy (8461 §3.3).
func headFault(resp *http.Response) *FetchError {
	if resp.StatusCode/100 == 3 {
		return &FetchError{Stage: StageRedirect, Reason: fmt.Sprintf("%s to %s: redirects are not followed",
			statusLine(resp.StatusCode), quote(resp.Header.Get("Location")))}
	}
	if resp.StatusCode != http.StatusOK {
		return &FetchError{Stage: StageStatus, Reason: statusLine(resp.StatusCode)}
	}
	for _, coding := range resp.Header.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return &FetchError{Stage: StageEncoding, Reason: fmt.Sprintf("content coding %s was not asked for", quote(coding))}
		}
	}
	if field := strings.Join(resp.Header.Values("Content-Type"), ", "); !plainText(field) {
		return &FetchError{Stage: StageMediaType, Reason: fmt.Sprintf("media type %s: want text/plain", quote(field))}
	}
	return nil
}

// plainText reports whether a Content-Type is text/plain, with any parameters,
// even those that mime.ParseMediaType refuses. Some servers send the field twice,
// which is the same as a list (9110 §5.3): then every element has to be.
func plainText(field string) bool {
	quoted := false
	elements := strings.FieldsFunc(field, func(r rune) bool {
		quoted = quoted != (r == '"') // a comma may be inside the value of a parameter
		return r == ',' && !quoted
	})
	for _, element := range elements {
		mediaType, _, _ := strings.Cut(element, ";")
		if !strings.EqualFold(strings.Trim(mediaType, blanks), "text/plain") {
			return false
		}
	}
	return len(elements) > 0
}

func statusLine(code int) string {
	return strings.TrimSpace(fmt.Sprintf("HTTP status %d %s", code, http.StatusText(code)))
}

// broken reports an error in a step, or a time-out when the time is up.
func broken(ctx context.Context, x *Exchange, stage Stage, doing string, err error) *FetchError {
	if over(ctx) {
		return interrupted(ctx, x, doing)
	}
	return &FetchError{Stage: stage, Reason: doing + ": " + printable.Line(err.Error(), maxReason), Err: err}
}

// over reports whether the fetch was ended from this side. A connection that
// has its deadline from ctx may notice before ctx itself does.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// interrupted reports a fetch that was ended from this side.
func interrupted(ctx context.Context, x *Exchange, doing string) *FetchError {
	if errors.Is(ctx.Err(), context.Canceled) {
		return &FetchError{Stage: StageCanceled, Reason: "canceled: " + doing, Err: ctx.Err()}
	}
	after := time.Since(x.start).Round(time.Millisecond)
	return &FetchError{Stage: StageTimeout, Reason: fmt.Sprintf("gave up after %s: %s", after, doing), Err: context.DeadlineExceeded}
}
