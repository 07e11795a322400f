package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"tlspolicyd/cmd/tlspolicyd/internal/config"
	"tlspolicyd/cmd/tlspolicyd/internal/explain"
)

func newExplain(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "explain KEY...",
		Short: "Resolve afresh and show every step that leads to the answer",
		Long: `explain resolves keys as the daemon would if its cache were empty, without the
cache and without a running daemon, and shows every step: each DNS question with
its response code, AD bit and TTL; the MTA-STS record and its verdict; the HTTPS
exchange with the policy host; the policy file, with its first error marked; the
addresses and TLSA records of each mail host; then the row of the decision table
and the replies that Postfix would get.

Where lookup prints another reply, the daemon answers from its cache: an MTA-STS
policy stays in force until its max_age is over.

With --json each key gives one line with one JSON object. Its fields are stable;
` + docs + `/explain.md describes them.

Exit status: 0 every key has a policy (OK), 1 at least one has none (NOTFOUND),
3 at least one is unknown (TEMP).`,
		Example: `  tlspolicyd explain example.com
  tlspolicyd explain '[smarthost.example.net]:587'
  tlspolicyd explain --json example.com example.net | jq .decision.row`,
		Args: wantKey,
		RunE: func(cmd *cobra.Command, keys []string) error {
			cfg, err := o.load()
			if err != nil {
				return err
			}
			x, err := newExplainer(cfg)
			if err != nil {
				return err
			}
			write := explain.Report.WriteText
			if asJSON {
				write = explain.Report.WriteJSON
			}
			return explainKeys(cmd.Context(), x, max(cfg.Fetch.Concurrency, 1), keys,
				newProgress(cmd.ErrOrStderr(), "waiting for DNS or the policy host"),
				func(r explain.Report) error { return write(r, cmd.OutOrStdout()) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object for each key, on a line of its own")
	return c
}

func newExplainer(cfg config.Config) (*explain.Explainer, error) {
	resolver, err := newResolver(cfg, nil, nil)
	if err != nil {
		return nil, unknownError(err)
	}
	fetcher, err := newFetcher(cfg, nil, resolver)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return &explain.Explainer{
		Resolver: resolver, Servers: resolver.Servers(), ADTrusted: resolver.Trusted(),
		Fetcher: fetcher, Settings: mapSettings(cfg), Overrides: mapOverrides(cfg),
	}, nil
}

// explainKeys explains some keys at a time and writes in the order of all.
func explainKeys(ctx context.Context, x *explain.Explainer, atOnce int, keys []string, p *progress, write func(explain.Report) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make([]chan explain.Report, len(keys))
	for i := range done {
		done[i] = make(chan explain.Report, 1)
	}
	var lookups errgroup.Group
	lookups.SetLimit(atOnce) // a key fetches one policy at most
	go func() {
		for i, key := range keys {
			lookups.Go(func() error {
				done[i] <- x.Report(ctx, key)
				return nil
			})
		}
	}()

	status := exitDone
	var failed error
	for i := range keys {
		report := await(p, keys[i], done[i])
		if failed != nil {
			continue // wait for what still runs
		}
		if failed = write(report); failed != nil {
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

// wantKey is for the commands that take KEY...
func wantKey(_ *cobra.Command, keys []string) error {
	if len(keys) == 0 {
		return errors.New("which KEY? Postfix looks up the domain after the @, or the relayhost")
	}
	return nil
}
