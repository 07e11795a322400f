//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv tells the second instance of the test binary that it is inside.
const insideEnv = "TLSPOLICYD_E2E_INSIDE"

// enterNamespaces runs this test binary again, as the first process of new
// namespaces, and returns its exit status. When it ends for any reason, the
// kernel ends every process in them.
func enterNamespaces() int {
	// The parent-death signal is tied to the thread that starts the child.
	runtime.LockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig: syscall.SIGKILL,
	}
	err := cmd.Run()
	var status *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status) && status.ExitCode() > 0:
		return status.ExitCode()
	default:
		fmt.Fprintf(os.Stderr, "e2e: cannot run in namespaces of its own: %v; "+
			"it needs root, in a container also the capability SYS_ADMIN\n", err)
		return 1
	}
}

// makePrivate turns the new namespaces into an empty stage: mounts that nobody
// else sees, an empty /run, only our processes in /proc, and loopback up.
func makePrivate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return loopbackUp()
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// mountRoot makes a debootstrap folder usable with chroot(2), without the means
// to change it: /run is the one of the test, so that a path below it is the
// same inside and outside, and the rest is read-only.
func mountRoot(folder, resolvConf string) (root string, err error) {
	root = filepath.Join("/run/root", filepath.Base(folder))
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
	}{
		{folder, "", "", unix.MS_BIND},
		{"", "", "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY},
		{"/run", "/run", "", unix.MS_BIND},
		{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
		{"/proc", "/proc", "", unix.MS_BIND},
		{"tmpfs", "/tmp", "tmpfs", 0},
		{resolvConf, "/etc/resolv.conf", "", unix.MS_BIND},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, root+m.target, m.fstype, m.flags, ""); err != nil {
			return "", fmt.Errorf("mount %s%s: %w", root, m.target, err)
		}
	}
	return root, nil
}
