package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tlspolicyd/internal/dane"
	"tlspolicyd/store"
	"tlspolicyd/store/bolt"
)

// What a day of a million domains is taken to be: each policy is fetched once,
// and the hot set, with the usual TTL of an hour, is looked up before that ends.
const (
	dayTTL     = time.Hour
	refreshIn  = 15 * time.Second // from writing the database to the first refresh
	refreshMax = 10 * time.Minute
)

// refresh measures the processor time of some refreshes and works out that of a
// day.
func refresh(ctx context.Context, s settings) error {
	w := table("refresh of", "done", "in", "CPU each", "a day of 1,000,000 domains", "of one core")
	for _, kind := range []struct {
		name, what string
		perDay     int
	}{
		{"sts", "a policy: TXT, address, HTTPS", 1_000_000 / 4},
		{"dane", "DANE: MX, address, TLSA", 50_000 / 4 * 24},
		{"none", "an absence of DANE", 50_000 / 2 * 24},
	} {
		took, used, err := refreshRun(ctx, s, kind.name)
		if err != nil {
			return err
		}
		each := used / time.Duration(s.cold)
		day := each * time.Duration(kind.perDay)
		row(w, kind.what, s.cold, took.Round(100*time.Millisecond), micros(float64(each)),
			fmt.Sprintf("%d: %v", kind.perDay, day.Round(time.Second)), fmt.Sprintf("%.2f %%", 100*day.Seconds()/86400))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println("\nMeasured in the daemon's process against the lab of \"cold\", and multiplied: a quarter of a million" +
		"\ndomains has a policy, and of a hot set of 50,000 with TTLs of an hour a quarter has DANE and half has nothing.")
	return nil
}

// refreshRun has the daemon refresh as many domains of a kind as "cold" asks for.
func refreshRun(ctx context.Context, s settings, kind string) (took, used time.Duration, err error) {
	dir, remove, err := tempDir()
	if err != nil {
		return 0, 0, err
	}
	defer remove()
	c, err := startChild("as-lab", dir, strconv.Itoa(s.cold), "0", dnsDelay.String())
	if err != nil {
		return 0, 0, err
	}
	defer c.stop()
	due := time.Now().Add(refreshIn)
	if err := seedDue(ctx, dir, s.cold, kind, due); err != nil {
		return 0, 0, err
	}
	metrics, err := freePort()
	if err != nil {
		return 0, 0, err
	}
	h, err := startHost(ctx, s, dir, labConfig(dir, c), fmt.Sprintf("http = %q", metrics))
	if err != nil {
		return 0, 0, err
	}
	defer h.Stop()
	if time.Now().After(due) {
		return 0, 0, fmt.Errorf("the database was not ready in %v", refreshIn)
	}
	time.Sleep(time.Until(due)) // what the start costs is no part of this
	used = -cpu(h.Pid())
	began := time.Now()
	for {
		done, err := refreshed(ctx, metrics)
		if err != nil {
			return 0, 0, err
		}
		took = time.Since(began)
		if done >= s.cold {
			return took, used + cpu(h.Pid()), nil
		}
		if took > refreshMax {
			return 0, 0, fmt.Errorf("%d of %d refreshed after %v", done, s.cold, took)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// seedDue makes a database in which n domains of a kind are due at a time, and
// were asked for since they were learned.
func seedDue(ctx context.Context, dir string, n int, kind string, due time.Time) error {
	db, err := bolt.Open(filepath.Join(dir, "policies.db"), bolt.Options{})
	if err != nil {
		return err
	}
	recs := make([]store.Record, n)
	for i := range recs {
		recs[i] = dueRecord(coldName(kind, i), kind, due)
	}
	return firstError(db.Put(ctx, recs...), db.Close())
}

func dueRecord(domain, kind string, due time.Time) store.Record {
	now := due.Add(-refreshIn)
	rec := store.Record{
		Domain: domain, LastUsed: now, Due: due,
		STS:  &store.STS{CheckedAt: now, TXTTTL: 24 * time.Hour, TXTError: "no TXT record with v=STSv1"},
		DANE: []store.DANE{{Port: 25, State: uint8(dane.None), KnownAt: now, ExpiresAt: now.Add(24 * time.Hour)}},
	}
	// The refresher comes a minute before the end.
	learned := due.Add(time.Minute - dayTTL)
	switch kind {
	case "sts":
		rec.Class = store.Positive
		rec.STS = &store.STS{
			Policy: []byte(coldPolicy), PolicyID: "1", FetchedAt: due.Add(-24 * time.Hour),
			TXTID: "1", CheckedAt: now, TXTTTL: time.Hour,
		}
	case "dane":
		rec.Class = store.Positive
		rec.DANE[0].State = uint8(dane.Full)
		fallthrough
	default:
		rec.DANE[0].KnownAt, rec.DANE[0].ExpiresAt = learned, learned.Add(dayTTL)
	}
	return rec
}

// refreshed is how many domains the daemon has refreshed since its start. One
// that failed is an error.
func refreshed(ctx context.Context, metrics string) (done int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), `tlspolicyd_refreshes_total{result="`)
		if !ok {
			continue
		}
		result, count, _ := strings.Cut(rest, `"} `)
		n, _ := strconv.Atoi(count)
		switch {
		case result == "ok":
			done = n
		case n > 0:
			return 0, fmt.Errorf("%d refreshes: %s", n, result)
		}
	}
	return done, lines.Err()
}
