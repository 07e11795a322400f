package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/internal/printable"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/socketmap"
)

// lookupTimeout is for one key. The daemon answers within 15 s.
const lookupTimeout = 20 * time.Second

func newLookup(o *options) *cobra.Command {
	var (
		l      = lookup{timeout: lookupTimeout}
		socket string
	)
	c := &cobra.Command{
		Use:   "lookup KEY...",
		Short: "Query the running daemon as Postfix does",
		Long: `lookup sends keys to the running daemon as Postfix does and prints its replies:
"OK" with the policy, "NOTFOUND" when Postfix's own default applies, "TEMP" with
the reason when Postfix has to try again later. With several keys each line
begins with its key.

Exit status: 0 every key has a policy, 1 at least one has none, 2 the daemon has
no such map, 3 at least one is unknown (TEMP).`,
		Example: `  tlspolicyd lookup example.com
  tlspolicyd lookup --map postfix-tlsrpt '[smarthost.example.net]:587'
  tlspolicyd lookup --socket tcp:127.0.0.1:8461 --json example.com`,
		Args: wantKey,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if strings.TrimSpace(l.mapName) == "" || strings.ContainsRune(l.mapName, ' ') {
				return usageError("--map: %q: want postfix or postfix-tlsrpt", l.mapName)
			}
			addresses := []string{socket}
			if socket == "" {
				cfg, err := o.load()
				if err != nil {
					return err
				}
				addresses, err = daemonAddresses(cfg.Listen.Socketmap[0], config.Default().Listen.Socketmap[0], config.SystemSocketmap, config.DefaultDirs())
				if err != nil {
					return err
				}
			}
			for _, a := range addresses {
				if _, _, err := socketmap.ParseAddress(a); err != nil {
					return usageError("--socket: %w", err)
				}
			}
			l.explain = !l.json && isTerminal(cmd.OutOrStdout())
			return l.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), addresses, keys)
		},
	}
	c.Flags().StringVar(&l.mapName, "map", "postfix", "`NAME` of the map: postfix or postfix-tlsrpt")
	c.Flags().StringVar(&socket, "socket", "", "`ADDRESS` of the daemon, unix:/path or tcp:host:port (default as configured)")
	c.Flags().BoolVar(&l.json, "json", false, "print one JSON object for each key")
	completeFlag(c, "map", "postfix", "postfix-tlsrpt")
	return c
}

// lookup is one run of the command.
type lookup struct {
	mapName string
	json    bool
	explain bool          // say what NOTFOUND means
	timeout time.Duration // for one key
}

// lookupResult is what --json prints for a key.
type lookupResult struct {
	Map    string `json:"map"`
	Key    string `json:"key"`
	Status string `json:"status"` // OK, NOTFOUND, TEMP, TIMEOUT or PERM
	Value  string `json:"value"`  // the policy, or the reason
}

func (l *lookup) run(ctx context.Context, out, hints io.Writer, addresses, keys []string) error {
	client, reply, err := l.first(ctx, addresses, keys[0])
	if err != nil {
		return unknownError(err)
	}
	defer client.Close()
	status := exitDone
	for i, key := range keys {
		if i > 0 {
			if reply, err = l.ask(ctx, client, key); err != nil {
				return unknownError(err)
			}
		}
		if err := l.print(out, key, reply, len(keys) > 1); err != nil {
			return outputError(err)
		}
		switch reply.Status {
		case socketmap.OK:
		case socketmap.NotFound:
			status = max(status, exitNo)
			if text := l.notFound(key); text != "" {
				fmt.Fprintf(hints, "%s: %s: %s\n", programName, visible(key), text)
			}
		case socketmap.Perm: // the map is unknown: that of every key
			return &exitError{status: exitUsage}
		default:
			status = exitUnknown
		}
	}
	if status != exitDone {
		return &exitError{status: status}
	}
	return nil
}

// first sends the first key to one address after the other until a daemon is
// found.
func (l *lookup) first(ctx context.Context, addresses []string, key string) (*socketmap.Client, socketmap.Reply, error) {
	var tried []unanswered
	for _, a := range addresses {
		client, err := socketmap.NewClient(a)
		if err != nil {
			return nil, socketmap.Reply{}, err
		}
		reply, err := l.ask(ctx, client, key)
		if err == nil {
			return client, reply, nil
		}
		client.Close()
		u := unanswered{a, err}
		if !u.absent() {
			return nil, socketmap.Reply{}, u
		}
		tried = append(tried, u)
	}
	return nil, socketmap.Reply{}, noDaemon(tried)
}

func (l *lookup) ask(ctx context.Context, client *socketmap.Client, key string) (socketmap.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return client.Lookup(ctx, l.mapName, key)
}

func (l *lookup) print(out io.Writer, key string, reply socketmap.Reply, withKey bool) error {
	if l.json {
		return writeJSONLine(out, lookupResult{l.mapName, key, string(reply.Status), reply.Value})
	}
	line := visible(strings.TrimSuffix(reply.String(), " "))
	if withKey {
		line = visible(key) + ": " + line
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// notFound says what NOTFOUND means for a key, where there is something to say.
func (l *lookup) notFound(key string) string {
	if _, ok := policy.ParseNextHop(key); ok {
		if !l.explain {
			return ""
		}
		return "no policy: Postfix uses its own default (smtp_tls_security_level). 'tlspolicyd explain " + visible(key) + "' shows why"
	}
	if _, domain, ok := strings.Cut(key, "@"); ok {
		if _, ok := policy.ParseNextHop(domain); ok {
			return "not a next hop, nothing was looked up: use " + visible(domain)
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(key, "[]")); err == nil {
		return "an address has no policy domain, nothing was looked up"
	}
	return "not a next hop, nothing was looked up"
}

// visible and cleaned make untrusted text safe for a terminal.
func visible(s string) string { return printable.Text(s) }

func cleaned(s string) string { return printable.Clean(s) }
