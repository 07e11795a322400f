package lab

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// policyPath is where a policy file is (8461 §3.3).
const policyPath = "/.well-known/mta-sts.txt"

// gate is called with w.mu held.
func (h *PolicyHost) gate() gate {
	switch {
	case h.fault.Refuse:
		return refused
	case h.fault.Stall == AtConnect:
		return silent
	}
	return open
}

// serve handles one connection: TLS, then requests one after the other.
// net/http's server is not used because most faults are things it never does.
func (h *PolicyHost) serve(c net.Conn, _ string) {
	h.w.mu.Lock()
	h.conns++
	fault := h.fault
	h.w.mu.Unlock()
	switch {
	case fault.Stall == AtHandshake:
		stall(c)
		return
	case fault.Hangup == AtHandshake:
		c.Read(make([]byte, 1)) // the client has begun
		return
	case fault.NoTLS != "":
		io.WriteString(c, fault.NoTLS)
		stall(c)
		return
	}
	if fault.MaxHello > 0 {
		br := bufio.NewReader(c)
		head, err := br.Peek(5)
		if err != nil || 5+int(binary.BigEndian.Uint16(head[3:])) > fault.MaxHello {
			return
		}
		c = buffered{c, br}
	}
	tc := tls.Server(c, serverConfig(fault.TLSMax, h.certificate))
	if tc.Handshake() != nil {
		return
	}
	br := bufio.NewReader(tc)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if !h.respond(tc, req) || req.Close {
			tc.Close() // with close_notify, which a cut-off body must not have
			return
		}
	}
}

// buffered is a connection of which a reader has read ahead.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// stall reads until the client has gone and answers nothing.
func stall(c net.Conn) { io.Copy(io.Discard, c) }

func (h *PolicyHost) certificate() *tls.Certificate {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.cert == nil {
		h.cert = h.w.ca.issue(h.key, h.fault.Cert, h.names...)
	}
	return h.cert
}

// respond answers one request and reports whether the connection goes on.
func (h *PolicyHost) respond(c *tls.Conn, req *http.Request) bool {
	state := c.ConnectionState()
	h.w.mu.Lock()
	h.seen = append(h.seen, Request{
		At: time.Now(), Method: req.Method, Path: req.RequestURI, Host: req.Host,
		Header: req.Header, SNI: state.ServerName, TLS: state.Version,
	})
	fault, policy := h.fault, h.policy
	delay := h.w.delayHTTP + fault.Delay
	h.w.mu.Unlock()

	if !h.w.sleep(delay) {
		return false
	}
	if fault.Stall == AtHeaders {
		stall(c)
		return false
	}
	if fault.Hangup == AtHeaders {
		c.NetConn().Close() // no close_notify
		return false
	}
	if fault.Raw != "" {
		h.sendRaw(c, fault)
		return false
	}
	header, body, size := response(fault, policy, req)
	if fault.EndlessHeader {
		return endlessHeader(c, header)
	}
	if _, err := io.WriteString(c, header+"\r\n"); err != nil {
		return false
	}
	switch {
	case req.Method == http.MethodHead:
		return true
	case fault.Drip > 0:
		return h.drip(c, body, fault.Drip) && !fault.NoLength
	case fault.CloseEarly || fault.Stall == AtBody:
		io.CopyN(c, body, size/2)
		if fault.Stall == AtBody {
			stall(c)
		}
		c.NetConn().Close() // no close_notify
		return false
	}
	_, err := io.Copy(c, body)
	return err == nil && !fault.NoLength
}

// sendRaw writes what a fault has instead of a response, and ends the
// connection without close_notify.
func (h *PolicyHost) sendRaw(c *tls.Conn, f HostFault) {
	defer c.NetConn().Close()
	if f.Drip > 0 {
		h.drip(c, strings.NewReader(f.Raw), f.Drip)
	} else if _, err := io.WriteString(c, f.Raw); err != nil {
		return
	}
	if f.Stall == AtBody {
		stall(c)
	}
	for f.Endless != "" {
		if _, err := io.WriteString(c, f.Endless); err != nil {
			return
		}
	}
}

// response returns the header, without the empty line, and the body with its
// size.
func response(f HostFault, policy string, req *http.Request) (string, io.Reader, int64) {
	status, text := http.StatusOK, policy
	media := f.MediaType
	if media == "" {
		media = "text/plain"
	}
	place := policyPath
	if f.Path != "" {
		place = f.Path
	}
	switch {
	case req.RequestURI != place:
		status, text = http.StatusNotFound, "no such file\n"
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		status, text = http.StatusMethodNotAllowed, ""
	case f.Redirect != "" && f.Status == 0:
		status = http.StatusMovedPermanently
	case f.Status != 0:
		status = f.Status
	}
	header := http.Header{}
	if media != "-" {
		header.Set("Content-Type", media)
	}
	if f.Redirect != "" {
		header.Set("Location", f.Redirect)
	}
	if f.Gzip {
		header.Set("Content-Encoding", "gzip")
		text = gzipped(text)
	}
	body, size := io.Reader(strings.NewReader(text)), int64(len(text))
	if f.Size > 0 {
		size = f.Size
		body = io.LimitReader(io.MultiReader(body, &padding{}), size)
	}
	if f.NoLength {
		header.Set("Connection", "close")
	} else {
		header.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	for k, v := range f.Header {
		header[http.CanonicalHeaderKey(k)] = v
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	header.Write(&b)
	return b.String(), body, size
}

// padding is lines of a key that no policy has, without end. By themselves
// they are no error (8461 §3.2).
type padding struct{ at int }

func (p *padding) Read(b []byte) (int, error) {
	const line = "padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
	for i := range b {
		b[i] = line[p.at]
		p.at = (p.at + 1) % len(line)
	}
	return len(b), nil
}

func gzipped(text string) string {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	io.WriteString(z, text)
	z.Close()
	return b.String()
}

// endlessHeader writes header fields until the client has had enough.
func endlessHeader(c io.Writer, header string) bool {
	if _, err := io.WriteString(c, header); err != nil {
		return false
	}
	fields := strings.Repeat("X-Endless: "+strings.Repeat("x", 100)+"\r\n", 100)
	for {
		if _, err := io.WriteString(c, fields); err != nil {
			return false
		}
	}
}

// drip writes the body a byte at a time.
func (h *PolicyHost) drip(c io.Writer, body io.Reader, apart time.Duration) bool {
	b := make([]byte, 1)
	for {
		if _, err := io.ReadFull(body, b); err != nil {
			return err == io.EOF
		}
		if !h.w.sleep(apart) {
			return false
		}
		if _, err := c.Write(b); err != nil {
			return false
		}
	}
}
