package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"tlspolicyd/cmd/tlspolicyd/internal/admin"
	"tlspolicyd/cmd/tlspolicyd/internal/ui"
)

// defaultPort is fixed, so that the command for a tunnel is always the same.
const defaultPort = 9462

func newUI(o *options) *cobra.Command {
	s := &cacheSocket{options: o}
	var port uint16
	c := &cobra.Command{
		Use:   "ui",
		Short: "Show the running daemon in a browser, read-only",
		Long: `ui serves pages for one operator at 127.0.0.1 until it is interrupted: what
needs attention, the cache, each domain with its policy file, hosts and replies,
the next hour of the refresher, and counters. It reads everything over the
control socket, which only the daemon's user and root can open, and changes
nothing.

It prints a URL with a token. The token works once: the browser gets a cookie in
its place, which is valid until the command ends. To see the pages of a server
in a browser elsewhere, forward the port (second example) and open the URL
there.`,
		Example: `  sudo tlspolicyd ui
  ssh -t -L 9462:127.0.0.1:9462 mail.example.net sudo tlspolicyd ui`,
		Args: noArgument,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer stop()
			l, err := new(net.ListenConfig).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if errors.Is(err, syscall.EADDRINUSE) {
				return unknownError(fmt.Errorf("port %d is in use: name another one with --port, or --port 0 for any", port))
			}
			if err != nil {
				return unknownError(err)
			}
			defer l.Close()
			return s.with(ctx, func(client *admin.Client) error {
				host, _ := os.Hostname() // "" is left out
				server := ui.New(ui.Options{Client: client, Host: host, Explain: o.explainText()})
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), server.URL(l.Addr())); err != nil {
					return outputError(err)
				}
				return server.Serve(ctx, l)
			})
		},
	}
	c.Flags().StringVar(&s.address, "socket", "", "`ADDRESS` of the control socket, unix:/path (default as configured)")
	c.Flags().Uint16Var(&port, "port", defaultPort, "`PORT` on 127.0.0.1; 0: any that is free")
	return c
}

// explainText returns what resolves a next hop afresh for a page; nil without a
// configuration, as with --socket for a daemon elsewhere.
func (o *options) explainText() func(context.Context, string, io.Writer) error {
	cfg, err := o.load()
	if err != nil {
		return nil
	}
	x, err := newExplainer(cfg)
	if err != nil {
		return nil
	}
	return func(ctx context.Context, key string, w io.Writer) error { return x.Report(ctx, key).WriteText(w) }
}
