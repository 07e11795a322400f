package main

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"tlspolicyd/testing/lab"
)

// configOf is a configuration for a daemon that lives in the world, with all
// its files in dir.
func configOf(dir string, w *lab.World) (string, error) {
	dns, err := w.ListenDNS("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	proxy, err := w.ListenProxy("127.0.0.1:0")
	if err != nil {
		return "", err
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := w.WriteCA(ca); err != nil {
		return "", err
	}
	return configText(dir, ca, dns, proxy), nil
}

func configText(dir, ca string, dns, proxy netip.AddrPort) string {
	return fmt.Sprintf(`[listen]
socketmap = ["unix:%[1]s/socketmap.sock"]
admin     = "unix:%[1]s/admin.sock"

[dns]
servers = ["%[3]s"]

[fetch]
ca_file        = "%[2]s"
allow_networks = ["%[5]s"]
proxy          = "http://%[4]s"

[cache]
path = "%[1]s/policies.db"

%[6]s`, dir, ca, dns, proxy, lab.Network, overrides)
}
