package main

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"time"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
)

func newExplain(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain KEY...",
		Short: "Resolve afresh and show every step that leads to the answer",
		Long: `explain resolves keys as the daemon would if it knew nothing of them, without its
cache and without a running daemon, and shows its work: every DNS question with
its response code, AD bit and TTL; the MTA-STS record and its verdict; the HTTPS
exchange with the policy host; the policy file, with the first line at fault
marked; the addresses and TLSA records of each mail host; then the row of the
decision table and the replies that Postfix would get.

Where lookup says something else, the daemon answers from what it learned
before: an MTA-STS policy stays in force until its max_age is over.

With --json each key gives one line with one JSON object. Its fields are stable;
docs/explain.md lists them.

Exit status: 0 every key has a policy (OK), 1 at least one has none (NOTFOUND),
3 at least one could not be told (TEMP).`,
		Example: `  tlspolicyd explain example.com
  tlspolicyd explain '[smarthost.example.net]:587'
  tlspolicyd explain --json example.com example.net | jq .decision.row`,
		Args: func(_ *cobra.Command, keys []string) error {
			if len(keys) == 0 {
				return errors.New("which KEY? Postfix asks for the domain behind the @, or for a relayhost")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, keys []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			x, err := newExplanations(cfg)
			if err != nil {
				return err
			}
			x.waiting = newWaiting(cmd.ErrOrStderr())
			write := writeExplanation
			if asJSON {
				write = writeExplanationJSON
			}
			return x.run(cmd.Context(), cmd.OutOrStdout(), keys, write)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each key, on a line of its own")
	return c
}

// explanations is one run of the command.
type explanations struct {
	explainer explain.Explainer
	servers   []netip.AddrPort // the resolvers
	trusted   bool             // their AD bits count (7672 §2.1.3)
	waiting   waiting
	atOnce    int // keys that are looked up side by side
}

func newExplanations(cfg config.Config) (*explanations, error) {
	resolver, err := newResolver(cfg, nil, nil)
	if err != nil {
		return nil, unknownError(err)
	}
	fetcher, err := newFetcher(cfg, nil, resolver)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return &explanations{
		explainer: explain.Explainer{
			Resolver: resolver, Fetcher: fetcher, Settings: mapSettings(cfg), Overrides: cfg.Override,
		},
		servers: resolver.Servers(),
		trusted: resolver.Trusted(),
		atOnce:  max(cfg.Fetch.Concurrency, 1), // a key fetches one policy at most
	}, nil
}

// run explains the keys side by side and writes in their order.
func (x *explanations) run(ctx context.Context, out io.Writer, keys []string, write func(io.Writer, explainReport) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make([]chan explainReport, len(keys))
	for i := range done {
		done[i] = make(chan explainReport, 1)
	}
	var lookups errgroup.Group
	lookups.SetLimit(x.atOnce)
	go func() {
		for i, key := range keys {
			lookups.Go(func() error {
				e := x.explainer.Explain(ctx, key)
				done[i] <- newExplainReport(e, x.servers, x.trusted, time.Now())
				return nil
			})
		}
	}()

	status := exitDone
	var failed error
	for i := range keys {
		report := x.waiting.await(keys[i], done[i])
		if failed != nil {
			continue // wait for what still runs
		}
		if failed = write(out, report); failed != nil {
			cancel()
		}
		status = max(status, replyStatus(report.Replies.Postfix), replyStatus(report.Replies.TLSRPT))
	}
	if failed != nil {
		return outputError(failed)
	}
	if status != exitDone {
		return &exitError{status: status}
	}
	return nil
}

// replyStatus turns a socketmap reply into an exit status.
func replyStatus(reply string) int {
	switch word, _, _ := strings.Cut(reply, " "); word {
	case "OK":
		return exitDone
	case "NOTFOUND":
		return exitNo
	}
	return exitUnknown
}
