package policymap

import (
	"testing"
	"time"
)

// A host that is short of file descriptors learns nothing about domains: what it
// cannot look up is TEMP for 10 s, and what it knows goes on being answered.
func TestShortOfDescriptors(t *testing.T) {
	all, https := ":53", ":443"
	for name, tt := range map[string]struct {
		suffix *string
		full   string // DANE alone decides
	}{
		"DNS":   {&all, "TEMP …"},
		"HTTPS": {&https, "OK dane-only"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, zones, func(t *testing.T, h *host) {
				h.PolicyHost("plain.test", enforce)
				h.PolicyHost("known.test", enforce)
				h.Zone("known.test. 60 IN MX 10 mx.plain.test.\n")
				h.want("known.test", secure)
				h.after(2 * time.Hour)
				h.exhausted.Store(tt.suffix)
				h.want("known.test", secure)
				h.want("plain.test", "TEMP …")
				h.want("full.test", tt.full)
				if rec, err := h.store.Get("plain.test"); err == nil && rec.STS != nil {
					t.Errorf("learned %+v", rec.STS)
				}
				h.exhausted.Store(nil)
				h.after(11 * time.Second)
				h.want("plain.test", secure)
				h.want("full.test", "OK dane-only")
				h.want("known.test", secure)
			})
		})
	}
}
