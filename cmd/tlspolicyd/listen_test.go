package main

import (
	"net"
	"slices"
	"testing"

	"tlspolicyd/socketmap"
)

// Only those that take connections to every address are worth a warning.
func TestSocketsThatAnybodyMayAsk(t *testing.T) {
	var all []net.Listener
	for _, address := range []string{"tcp:0.0.0.0:0", "tcp:127.0.0.1:0", "unix:" + t.TempDir() + "/s", "tcp::0"} {
		l, err := socketmap.Listen(t.Context(), address, socketmap.ListenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all = append(all, l)
	}
	want := []string{"tcp:" + all[0].Addr().String(), "tcp:" + all[3].Addr().String()}
	if got := openToNetwork(all); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
