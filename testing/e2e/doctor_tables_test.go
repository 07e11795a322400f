//go:build e2e

package e2e

import "testing"

// testDoctorTables holds what doctor says of tables beside and around ours
// against what Postfix does with them.
func testDoctorTables(t *testing.T, h *doctorHost) {
	const maps, host = "smtp_tls_policy_maps=", "mx.sts.open.test"
	delivered := func(t *testing.T, o outcome) { wantDelivered(t, o, host, "good", "Verified") }
	for _, c := range []struct {
		name, maps, code string
		then             func(*testing.T, outcome)
	}{
		{
			"both of a unionmap answer", "unionmap:{inline:{sts.open.test=may}, " + h.ours() + "}", "map-nested",
			func(t *testing.T, o outcome) { wantDeferred(t, o, "4.7.5", "client TLS configuration problem") },
		},
		{"one of a unionmap answers", "unionmap:{inline:{x.invalid=may}, " + h.ours() + "}", "map-nested", delivered},
		{
			"a table without a file", "texthash:" + h.dir + "/never-written, " + h.ours(), "map-file-missing",
			func(t *testing.T, o outcome) { wantDeferred(t, o, "4.7.5", "client TLS configuration problem") },
		},
		{"proxymap inside of a unionmap", "unionmap:{proxy:" + h.ours() + "}", "map-present", delivered},
	} {
		t.Run(c.name, func(t *testing.T) {
			h.change(t, maps+c.maps)
			want(t, h.doctor(t, doctorRun{}), c.code)
			h.reload(t)
			c.then(t, h.send(t, "a@sts.open.test"))
		})
	}
	h.reload(t)
}

// reload has Postfix read what was changed.
func (h *doctorHost) reload(t *testing.T) {
	t.Helper()
	if _, _, err := h.run("postfix", "reload"); err != nil {
		t.Fatal(err)
	}
}
