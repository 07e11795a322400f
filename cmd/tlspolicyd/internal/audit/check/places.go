package check

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"tlspolicyd/internal/mtasts"
)

const (
	policyPath   = "/.well-known/mta-sts.txt" // 8461 §3.3
	placesWithin = 6 * time.Second
)

// policy adds what the explanation does not look for: a policy that no record
// announces, and one that lies where nobody looks.
func (a *Auditor) policy(ctx context.Context, f *Facts, fetcher mtasts.Fetcher) {
	e := &f.Explanation
	f.Announced, f.Exchange, f.Policy = e.Record.Found, e.Exchange, e.Policy
	f.FetchErr, _ = errors.AsType[*mtasts.FetchError](e.FetchErr)
	if f.noMail() {
		return
	}
	if !f.Announced && !e.Record.Failed {
		got, err := fetcher.Fetch(ctx, f.Domain)
		if failed, ok := errors.AsType[*mtasts.FetchError](err); ok {
			f.FetchErr, f.Exchange = failed, failed.Exchange
		} else {
			f.Exchange, f.Policy = got.Exchange, &got.Policy
		}
	}
	f.Misplaced = a.misplaced(ctx, f, fetcher)
}

// misplaced tries the places that people use by mistake. It asks only where the
// right place gave a definite no, and not at all where nothing speaks of MTA-STS.
func (a *Auditor) misplaced(ctx context.Context, f *Facts, fetcher mtasts.Fetcher) []string {
	if f.FetchErr == nil {
		return nil
	}
	type place struct{ host, path string }
	policyHost := "mta-sts." + f.Domain
	places := []place{
		{policyHost, "/.well-known/mta-sts/mta-sts.txt"},
		{policyHost, "/mta-sts.txt"},
		{f.Domain, policyPath},
	}
	switch f.FetchErr.Stage {
	case mtasts.StageStatus, mtasts.StageRedirect, mtasts.StageMediaType, mtasts.StagePolicy:
	case mtasts.StageDNS, mtasts.StageConnect, mtasts.StageCertificate:
		if !f.Announced {
			return nil
		}
		places = places[2:]
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, placesWithin)
	defer cancel()
	found := make([]bool, len(places))
	var work sync.WaitGroup
	for i, p := range places {
		work.Go(func() {
			got, err := fetcher.FetchFrom(ctx, p.host, p.path)
			found[i] = err == nil && got != nil || looksLikePolicy(err)
		})
	}
	work.Wait()
	var urls []string
	for i, p := range places {
		if found[i] {
			urls = append(urls, "https://"+p.host+p.path)
		}
	}
	return slices.Clip(urls)
}

// looksLikePolicy reports whether a file is a policy with a mistake in it.
func looksLikePolicy(err error) bool {
	failed, ok := errors.AsType[*mtasts.FetchError](err)
	return ok && failed.Stage == mtasts.StagePolicy && bytes.Contains(failed.Exchange.Body, []byte("STSv1"))
}
