//go:build e2e

package e2e

import (
	"errors"
	"os/exec"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// timeError is how adjtimex(2) reports that nothing synchronizes the clock.
const timeError = 5

// kernelClock is what adjtimex(2) returns to a program. There is one clock for
// the whole machine and no namespace for it: seccomp(2) hands the call to the
// test, which answers in the place of the kernel.
type kernelClock struct {
	state int64      // returned
	errno unix.Errno // or that
}

// seccompNotification and seccompAnswer are struct seccomp_notif and struct
// seccomp_notif_resp of linux/seccomp.h.
type seccompNotification struct {
	id       uint64
	pid      uint32
	flags    uint32
	number   int32
	arch     uint32
	pointer  uint64
	argument [6]uint64
}

type seccompAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// start starts a program under the filter. It is installed in a thread of its
// own, from which a child inherits it, and which is not used afterwards.
func (k *kernelClock) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		listener, err := filterClock()
		if err == nil {
			err = cmd.Start()
			go k.answer(listener)
		}
		started <- err
	}()
	return <-started
}

// filterClock hands adjtimex(2) of this thread and its children to a listener.
func filterClock() (listener int, err error) {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_ADJTIMEX, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return 0, errno
	}
	unix.CloseOnExec(int(fd))
	return int(fd), nil
}

// answer answers until the last process under the filter has ended.
func (k *kernelClock) answer(listener int) {
	defer unix.Close(listener)
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		_, err := unix.Poll(poll, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		var asked seccompNotification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&asked))); errno != 0 {
			continue // it has ended meanwhile
		}
		reply := seccompAnswer{id: asked.id, value: k.state, errno: -int32(k.errno)}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&reply)))
	}
}
