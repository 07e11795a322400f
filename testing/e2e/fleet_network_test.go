//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The hosts of the fleet have a network namespace each. A bridge in the
// namespace of the test connects them, where NSD and nginx have addresses.

const (
	fleetBridge = "10.99.0.1"
	fleetServer = "10.99.0.10" // NSD
	fleetWeb    = "10.99.0.20" // nginx
	fleetMX     = "10.99.0.30" // nobody listens
	fleetEngine = "10.99.0.60" // Valkey or Redis
	deadRouter  = "10.99.0.250"
)

// ip runs ip(8) of this machine.
func ip(args string) error {
	_, _, err := command("", append([]string{"ip"}, strings.Fields(args)...)...)
	return err
}

func ipAll(commands ...string) error {
	var errs []error
	for _, c := range commands {
		errs = append(errs, ip(c))
	}
	return errors.Join(errs...)
}

func makeBridge() error {
	return ipAll(
		// With an address of its own, or it takes that of a host and changes it later.
		"link add br0 address 02:00:00:00:00:01 type bridge", "link set br0 up",
		"addr add "+fleetBridge+"/16 dev br0", "addr add "+fleetServer+"/16 dev br0", "addr add "+fleetWeb+"/16 dev br0")
}

// addHost makes a namespace and plugs it into the bridge.
func addHost(name, address string) error {
	return ipAll(
		"netns add "+name,
		"link add "+name+" type veth peer name eth0 netns "+name,
		"link set "+name+" master br0 up",
		"-n "+name+" link set lo up",
		"-n "+name+" link set eth0 up",
		"-n "+name+" addr add "+address+"/16 dev eth0",
		// Nobody has this hardware address: what is sent there is lost in silence.
		"-n "+name+" neigh add "+deadRouter+" lladdr 02:00:00:00:00:fe dev eth0 nud permanent",
	)
}

// cut has everything that a host sends to an address lost, as though an attacker
// or a firewall dropped it; connect undoes that.
func cut(host, address string) error {
	return ip("-n " + host + " route add " + address + "/32 via " + deadRouter)
}

func connect(host, address string) error {
	return ip("-n " + host + " route del " + address + "/32 via " + deadRouter)
}

// inNamespace runs f in the network of a host and under its name; "" is that of
// the test. What f starts or opens belongs there.
func inNamespace(host string, f func() error) error {
	if host == "" {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			fd, err := unix.Open("/run/netns/"+host, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("namespace %s: %w", host, err)
			}
			defer unix.Close(fd)
			err = errors.Join(unix.Setns(fd, unix.CLONE_NEWNET), unix.Unshare(unix.CLONE_NEWUTS), unix.Sethostname([]byte(host)))
			if err != nil {
				return fmt.Errorf("enter namespace %s: %w", host, err)
			}
			return f()
		}()
	}()
	return <-done
}

// startIn is start in the network of a host.
func startIn(host, root string, uid uint32, argv ...string) (p *process, err error) {
	err = inNamespace(host, func() (err error) {
		p, err = start(root, uid, argv...)
		return err
	})
	return p, err
}

// listening waits until a TCP port of a host accepts connections.
func listening(address string) error {
	return waitFor(func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
}
