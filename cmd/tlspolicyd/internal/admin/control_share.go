package admin

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"tlspolicyd/internal/mtasts"
	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
	"tlspolicyd/share"
)

// This file is what an operator does about the policies that hosts share.

// errNotShared: there is no engine.
var errNotShared = errors.New(`nothing is shared: share.url is ""`)

// Difference is a domain of which this host and the shared cache know different
// things.
type Difference struct {
	Domain string      `json:"domain"`
	Kind   string      `json:"kind"` // only-here, only-shared or differs
	Here   *PolicySide `json:"here,omitempty"`
	Shared *PolicySide `json:"shared,omitempty"`
}

// PolicySide is a policy on one side of a difference.
type PolicySide struct {
	Mode      string    `json:"mode"`
	MX        []string  `json:"mx,omitempty"`
	ID        string    `json:"id,omitempty"`
	FetchedAt time.Time `json:"fetched_at"`
	Host      string    `json:"host,omitempty"` // that fetched it; empty: this one

	file [sha256.Size]byte
}

func sideOf(file []byte, p *mtasts.Policy, id, host string, fetched time.Time) *PolicySide {
	return &PolicySide{
		Mode: string(p.Mode), MX: p.MX, ID: id, Host: host,
		FetchedAt: fetched.UTC().Truncate(time.Second), file: sha256.Sum256(file),
	}
}

// diff lists the differences. That one of the two is older is none. It keeps the
// names of all policies in memory, and of the rest what differs.
func (s *Server) diff(w http.ResponseWriter, r *http.Request) {
	if s.opt.Fleet == nil {
		fail(w, http.StatusConflict, errNotShared)
		return
	}
	seen := make(map[string]bool)
	var differences []Difference
	err := s.opt.Fleet.Each(r.Context(), func(domain string, p share.Policy) error {
		parsed, err := mtasts.ParsePolicy(p.File)
		if err != nil || seen[domain] {
			return nil
		}
		seen[domain] = true
		info, _ := s.opt.Map.Info(domain)
		d := Difference{Domain: domain, Here: here(info), Shared: sideOf(p.File, &parsed, p.ID, p.Host, time.Now().Add(-p.Age))}
		if d.judge() {
			differences = append(differences, d)
		}
		return nil
	})
	if err != nil {
		fail(w, http.StatusBadGateway, fmt.Errorf("shared cache: %w", err))
		return
	}
	slices.SortFunc(differences, func(a, b Difference) int { return strings.Compare(a.Domain, b.Domain) })
	l := newLines(w)
	var sendErr error
	for _, d := range differences {
		sendErr = errors.Join(sendErr, l.send(d, false))
	}
	err = s.opt.Map.Each(func(info policymap.Info) bool {
		d := Difference{Domain: info.Record.Domain, Here: here(info)}
		if sendErr == nil && !seen[d.Domain] && d.judge() {
			sendErr = l.send(d, false)
		}
		return sendErr == nil && r.Context().Err() == nil
	})
	s.end(r, l, errors.Join(err, sendErr))
}

// here is the policy that this host has, or nil.
func here(info policymap.Info) *PolicySide {
	if info.STS == policy.STSAbsent {
		return nil
	}
	sts := info.Record.STS
	return sideOf(sts.Policy, info.Policy, sts.PolicyID, sts.SharedBy, sts.FetchedAt)
}

// judge fills in the kind, and reports whether there is a difference.
func (d *Difference) judge() bool {
	switch {
	case d.Here != nil && d.Shared != nil:
		d.Kind = "differs"
		return d.Here.file != d.Shared.file
	case d.Here != nil:
		d.Kind = "only-here"
	case d.Shared != nil:
		d.Kind = "only-shared"
	}
	return d.Kind != ""
}

// purgeShared deletes domains from the shared cache, or all that are in it. An error
// ends it half done.
func (s *Server) purgeShared(ctx context.Context, domains []string, all bool) (deleted int, err error) {
	if all {
		domains = nil
		err := s.opt.Fleet.Each(ctx, func(domain string, _ share.Policy) error {
			domains = append(domains, domain)
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	return s.opt.Fleet.Delete(ctx, domains...)
}
