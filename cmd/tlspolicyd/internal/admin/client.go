package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Client is the operator's end of a control socket.
type Client struct{ http *http.Client }

// NewClient makes a client for the control socket at a path. It connects when
// it is used.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1}}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// StatusError is what the daemon refused, or could not do.
type StatusError struct {
	Status int
	Reason string
}

func (e *StatusError) Error() string { return e.Reason }

// List calls fn for each domain that the filter picks, in order, until fn
// returns an error.
func (c *Client) List(ctx context.Context, f Filter, fn func(Domain) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/domains?"+f.values().Encode(), nil)
	if err != nil {
		return err
	}
	return stream(resp.Body, fn)
}

func (f Filter) values() url.Values {
	q := make(url.Values)
	for name, value := range map[string]string{"policy": f.Policy, "state": f.State} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for name, age := range map[string]time.Duration{"older": f.Older, "unused": f.Unused} {
		if age > 0 {
			q.Set(name, age.String())
		}
	}
	return q
}

// Page returns some of the domains that a query picks.
func (c *Client) Page(ctx context.Context, q Query) (Page, error) {
	v := q.Filter.values()
	for name, value := range map[string]string{"search": q.Search, "sort": q.Sort, "after": q.After} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return get[Page](ctx, c, "/v1/page?"+v.Encode())
}

// Attention returns what the operator should know of.
func (c *Client) Attention(ctx context.Context) (Attention, error) {
	return get[Attention](ctx, c, "/v1/attention")
}

// Schedule returns when domains are refreshed.
func (c *Client) Schedule(ctx context.Context) (Schedule, error) {
	return get[Schedule](ctx, c, "/v1/schedule")
}

// Changes returns the changes of a domain that the daemon remembers, the newest
// first.
func (c *Client) Changes(ctx context.Context, domain string) (list []Change, err error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/changes?"+url.Values{"domain": {domain}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	err = stream(resp.Body, func(one Change) error {
		list = append(list, one)
		return nil
	})
	return list, err
}

// Metrics returns the metrics of the daemon in the text format of Prometheus. The
// caller closes the result.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// get returns the answer to a request that changes nothing.
func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return v, err
	}
	return v, decode(resp.Body, &v)
}

// Show returns what is known of a domain. Where that is nothing the error is a
// *StatusError with http.StatusNotFound.
func (c *Client) Show(ctx context.Context, domain string) (Details, error) {
	return get[Details](ctx, c, "/v1/domains/"+url.PathEscape(domain))
}

// Refresh has domains looked up again and calls fn with what becomes of each,
// first of all with the number of them.
func (c *Client) Refresh(ctx context.Context, names Names, fn func(Progress) error) error {
	return c.each(ctx, "/v1/refresh", names, fn)
}

// Warm has next hops looked up; fn is as for Refresh. One call takes as many as
// fit into a request: see WarmBatch.
func (c *Client) Warm(ctx context.Context, keys []string, fn func(Progress) error) error {
	return c.each(ctx, "/v1/warm", Names{Names: keys}, fn)
}

// WarmBatch is how many next hops surely fit into one request.
const WarmBatch = 1000

func (c *Client) each(ctx context.Context, path string, names Names, fn func(Progress) error) error {
	resp, err := c.post(ctx, path, names)
	if err != nil {
		return err
	}
	return stream(resp.Body, fn)
}

// Purge has domains forgotten and returns of how many something was known.
// fleet has the shared cache forget them, too.
func (c *Client) Purge(ctx context.Context, names Names, fleet bool) (n Count, err error) {
	resp, err := c.post(ctx, "/v1/purge?fleet="+strconv.FormatBool(fleet), names)
	if err != nil {
		return n, err
	}
	return n, decode(resp.Body, &n)
}

// Diff calls fn for each difference between this host and the shared cache.
func (c *Client) Diff(ctx context.Context, fn func(Difference) error) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/diff", nil)
	if err != nil {
		return err
	}
	return stream(resp.Body, fn)
}

// Export writes the cache as a dump.
func (c *Client) Export(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/export", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// importBatch is how many bytes of records go into one request.
const importBatch = 1 << 20

// Import reads a dump and has its records taken over. A broken line ends it with
// a *LineError, or is left out if skipBad is true: the caller checks them
// before, and this is for a file that changed since. It calls fn with the number
// of records after each request. What the daemon refuses ends it half done.
func (c *Client) Import(ctx context.Context, r io.Reader, skipBad bool, fn func(done int)) error {
	dump, err := NewDumpReader(r)
	if err != nil {
		return err
	}
	var batch bytes.Buffer
	done, held := 0, 0
	send := func() error {
		if held == 0 {
			return nil
		}
		resp, err := c.do(ctx, http.MethodPost, "/v1/import", bytes.NewReader(batch.Bytes()))
		if err != nil {
			return err
		}
		var n Count
		if err := decode(resp.Body, &n); err != nil {
			return err
		}
		if n.Count != held {
			return fmt.Errorf("the daemon took %d of %d records", n.Count, held)
		}
		done += n.Count
		held = 0
		batch.Reset()
		fn(done)
		return nil
	}
	for {
		_, line, err := dump.Next()
		if err == io.EOF {
			return send()
		}
		if _, broken := errors.AsType[*LineError](err); broken && skipBad {
			continue
		}
		if err != nil {
			return err
		}
		batch.Write(line)
		batch.WriteByte('\n')
		held++
		if batch.Len() >= importBatch {
			if err := send(); err != nil {
				return err
			}
		}
	}
}

func (c *Client) post(ctx context.Context, path string, v any) (*http.Response, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return c.do(ctx, http.MethodPost, path, bytes.NewReader(text))
}

// do sends a request; an answer that is no success is a *StatusError.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the URL, which the user does not know
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var f Failure
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&f) != nil || f.Error == "" {
		f.Error = fmt.Sprintf("the daemon answers %s", resp.Status)
	}
	return nil, &StatusError{resp.StatusCode, f.Error}
}

func decode(r io.ReadCloser, v any) error {
	defer r.Close()
	if err := json.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("answer of the daemon: %w", err)
	}
	return nil
}

// stream calls fn for each line of JSON.
func stream[T any](r io.ReadCloser, fn func(T) error) error {
	defer r.Close()
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var v T
		err := dec.Decode(&v)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the daemon's answer was cut off: %w", err)
		}
		if err := fn(v); err != nil {
			return err
		}
	}
}

// pingTimeout is for an answer that needs no work: a daemon that takes longer
// hangs.
const pingTimeout = 5 * time.Second

// Ping returns nil if a daemon answers, and context.DeadlineExceeded if it hangs.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	_, err := c.Build(ctx)
	return err
}

// Build returns what the daemon was built from.
func (c *Client) Build(ctx context.Context) (Build, error) {
	return get[Build](ctx, c, "/v1/ping")
}

// Store returns what the daemon says of its database in /readyz: "" when it can
// use it, for reading and for writing.
func (c *Client) Store(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control/readyz", nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if state, ok := strings.CutPrefix(strings.TrimSpace(line), "store: "); ok {
			if note, ok := strings.CutPrefix(state, "ok"); ok {
				state = strings.TrimPrefix(note, ", ")
			}
			return state, nil
		}
	}
	return "", fmt.Errorf("the daemon answers %s and nothing about its store", resp.Status)
}
