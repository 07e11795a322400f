//go:build linux

package soak

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls in the hands of the test: seccomp_unotify(2). A filter hands the
// calls below over to whoever holds its file descriptor, who lets the kernel go
// on with them, later or not at all, or fails them. It needs no root, costs the
// other calls nothing, and the daemon cannot tell it from a disk.

// intercepted are the calls by which bbolt writes.
var intercepted = []uint32{unix.SYS_FDATASYNC, unix.SYS_FSYNC, unix.SYS_PWRITE64}

// launchArg makes the test binary the process that installs the filter and then
// becomes the program that follows.
const launchArg = "launch-intercepted"

// handoverFile is the socket that the filter's descriptor goes over.
const handoverFile = 3

func launch(args []string) {
	runtime.LockOSThread() // the filter is this thread's, which will be the whole process
	err := sendFilter()
	if err == nil {
		err = syscall.Exec(args[0], args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "launch:", err)
	os.Exit(1)
}

func sendFilter() error {
	fd, err := installFilter()
	if err != nil {
		return err
	}
	unix.CloseOnExec(fd)
	unix.CloseOnExec(handoverFile)
	return unix.Sendmsg(handoverFile, []byte{0}, unix.UnixRights(fd), nil, 0)
}

func installFilter() (fd int, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	n := len(intercepted)
	code := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the number of the call
	for i, nr := range intercepted {
		code = append(code, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: uint8(n - i)})
	}
	code = append(code,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	got, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, os.NewSyscallError("seccomp", errno)
	}
	return int(got), nil
}

// handover is the socket pair over which the filter's descriptor comes.
type handover struct {
	ours   *net.UnixConn
	theirs *os.File
}

func newHandover(t *testing.T) *handover {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours := os.NewFile(uintptr(pair[0]), "handover")
	defer ours.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	return &handover{c.(*net.UnixConn), os.NewFile(uintptr(pair[1]), "handover")}
}

func (h *handover) take(t *testing.T) *interceptor {
	t.Helper()
	h.theirs.Close()
	defer h.ours.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := h.ours.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n == 0 {
		t.Fatalf("no filter: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	i := &interceptor{fd: fds[0], done: make(chan struct{})}
	go i.serve()
	return i
}

// trouble is what becomes of the calls that write to the database.
type trouble struct {
	calls []uint32      // which; none: all that are intercepted
	errno syscall.Errno // fail
	delay time.Duration // before the kernel goes on
	hang  bool          // until there is another trouble, or none
}

// interceptor decides about the calls.
type interceptor struct {
	fd   int
	done chan struct{}

	mu      sync.Mutex
	now     trouble
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// set changes what becomes of the calls from now on, those that hang included.
func (i *interceptor) set(t trouble) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = t
	if i.changed != nil {
		close(i.changed)
		i.changed = nil
	}
}

// notification and answer are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id          uint64
	pid, flags  uint32
	nr          int32
	arch        uint32
	instruction uint64
	args        [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const (
	notifRecv    = 0xc0502100 // _IOWR('!', 0, struct seccomp_notif)
	notifSend    = 0xc0182101 // _IOWR('!', 1, struct seccomp_notif_resp)
	flagContinue = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// serve takes calls until the daemon has ended.
func (i *interceptor) serve() {
	defer close(i.done)
	var answering sync.WaitGroup
	defer unix.Close(i.fd)
	defer answering.Wait()
	defer i.set(trouble{})
	for {
		poll := []unix.PollFd{{Fd: int32(i.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return
			}
			continue
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(i.fd), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // the caller has gone meanwhile
		}
		answering.Go(func() {
			a := answer{id: n.id, flags: flagContinue}
			if errno := i.decide(n); errno != 0 {
				a.errno, a.flags = -int32(errno), 0
			}
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(i.fd), notifSend, uintptr(unsafe.Pointer(&a))) // gone is gone
		})
	}
}

// decide waits as long as the call is to wait, and returns what it fails with.
func (i *interceptor) decide(n notification) syscall.Errno {
	for {
		i.mu.Lock()
		t := i.now
		if !t.hits(n) {
			i.mu.Unlock()
			return 0
		}
		if i.changed == nil {
			i.changed = make(chan struct{})
		}
		changed := i.changed
		i.mu.Unlock()
		switch {
		case t.hang:
			<-changed
			continue
		case t.delay > 0:
			select {
			case <-time.After(t.delay):
			case <-changed:
			}
		}
		return t.errno
	}
}

// hits reports whether a call is one of those, and about the database.
func (t trouble) hits(n notification) bool {
	if t.errno == 0 && t.delay == 0 && !t.hang {
		return false
	}
	among := len(t.calls) == 0
	for _, nr := range t.calls {
		among = among || nr == uint32(n.nr)
	}
	path, err := os.Readlink("/proc/" + strconv.Itoa(int(n.pid)) + "/fd/" + strconv.Itoa(int(n.args[0])))
	return among && err == nil && strings.HasSuffix(path, "/policies.db")
}
