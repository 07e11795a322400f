package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"tlspolicyd/socketmap"
)

// Probe is what became of asking one socketmap.
type Probe struct {
	Target
	Services []string // of master.cf that ask there; empty: none
	Own      bool     // the daemon's, by its configuration or by its socket unit
	As       string   // the user whose rights it was tested with

	Missing  bool        // there is nothing at the path
	NoSocket bool        // what is there is not a socket
	Mode     fs.FileMode // of a Unix socket
	Owner    string      // "user:group"
	Denied   string      // the path at which As is denied; ""
	Err      string      // why there was no answer; ""
	Garbled  bool        // what answered speaks another protocol

	Inconclusive string // why it could not be tested; ""

	Ours  bool          // a tlspolicyd answered
	Reply string        // to a lookup that needs nothing
	Took  time.Duration // by that reply
}

// dead reports that nothing answers, and that the daemon would not answer there
// if it ran.
func (p Probe) dead() bool { return (p.Missing || p.NoSocket || p.Err != "") && !p.Own && !p.Ours }

// why says why nothing answers.
func (p Probe) why() string {
	switch {
	case p.Missing:
		return "no such file"
	case p.NoSocket:
		return "not a socket"
	}
	return p.Err
}

const (
	probeTime = 5 * time.Second

	// A name that begins with a dot is answered at once, without any lookup
	// (behaviour.md §2); it does no harm in another program either.
	probeKey = ".doctor.invalid"
	// No map has this name, and only tlspolicyd answers as it does.
	probeMap   = "doctor"
	probeReply = "use postfix or postfix-tlsrpt"
)

// gatherSockets asks every socket that Postfix asks, with the rights of its
// user, and those of the daemon that Postfix does not ask.
func gatherSockets(ctx context.Context, p Postfix, own []string) []Probe {
	var list []Probe
	if p.known() {
		list = p.queries()
	}
	for _, o := range own {
		network, address, err := socketmap.ParseAddress(o)
		if err != nil {
			continue
		}
		asked := false
		for i := range list {
			if list[i].Network == network && list[i].Address == address {
				list[i].Own, asked = true, true
			}
		}
		if !asked {
			list = append(list, Probe{Target: Target{Network: network, Address: address}, Own: true})
		}
	}
	var asked sync.WaitGroup
	for i := range list {
		asked.Go(func() {
			who := (*Account)(nil)
			if p.known() && p.UserErr == "" && (len(list[i].Services) > 0 || p.inQueue(list[i].Target)) {
				who = &p.User
			}
			probe(ctx, &list[i], who)
		})
	}
	asked.Wait()
	return list
}

// probe asks one socket, as the user who, or as the current user where that is nil.
func probe(ctx context.Context, p *Probe, who *Account) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if p.Network == "unix" && !p.look() {
		return
	}
	p.As = userName(uint32(os.Geteuid()))
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, p.Network, p.Address)
	}
	if who != nil && p.Network == "unix" {
		p.As = who.Name
		if p.Denied = deniedAt(p.Address, *who, writeRight); isRoot() {
			dial = func(ctx context.Context) (net.Conn, error) { return p.dialAs(ctx, *who) }
		}
	}
	p.ask(ctx, dial)
}

// dialAs connects as smtp(8) does. Where that is not allowed, as in some
// containers, it connects as root, and the modes have the last word.
func (p *Probe) dialAs(ctx context.Context, who Account) (net.Conn, error) {
	conn, err := dialAs(p.Address, p.Root, who)
	if errors.Is(err, errNotAllowed) {
		return new(net.Dialer).DialContext(ctx, p.Network, p.Address)
	}
	switch {
	case err == nil:
		p.Denied = "" // an access control list may say more than the mode
	case errors.Is(err, fs.ErrPermission) && p.Denied == "":
		p.Denied = p.Address
	}
	return conn, err
}

// look finds out what is at the path, and whether it makes sense to connect.
func (p *Probe) look() bool {
	info, err := os.Stat(p.Address)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Missing = true
		return false
	case errors.Is(err, fs.ErrPermission):
		p.Inconclusive = "its directory is closed to an ordinary user"
		return false
	case err != nil:
		p.Err = reason(err)
		return false
	}
	p.Mode = info.Mode()
	p.Owner = owner(info)
	p.NoSocket = info.Mode().Type() != fs.ModeSocket
	return !p.NoSocket
}

// ask finds out what answers, and how fast.
func (p *Probe) ask(ctx context.Context, dial func(context.Context) (net.Conn, error)) {
	client := socketmap.NewClientFunc(p.String(), dial)
	defer client.Close()
	reply, err := client.Lookup(ctx, probeMap, probeKey)
	if err == nil {
		p.Ours = reply.Status == socketmap.Perm && strings.HasSuffix(reply.Value, probeReply)
		began := time.Now()
		reply, err = client.Lookup(ctx, "postfix", probeKey)
		p.Took = time.Since(began)
	}
	switch {
	case err == nil:
		p.Reply = oneLine(strings.TrimSpace(reply.String()))
	case errors.Is(err, fs.ErrPermission):
		if p.Denied == "" {
			p.Inconclusive = "it is closed to " + userName(uint32(os.Geteuid()))
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		p.Err = fmt.Sprintf("no answer within %v", probeTime)
	default:
		p.Err = reason(err)
		var dialled *net.OpError
		_, refused := errors.AsType[syscall.Errno](err)
		p.Garbled = !refused && !errors.As(err, &dialled)
	}
}

// reason is the system's text for an error where there is one.
func reason(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return oneLine(err.Error())
}

// owner is "user:group", by number where there is no name.
func owner(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return userName(st.Uid) + ":" + groupName(st.Gid)
}

func userName(id uint32) string {
	n := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(n); err == nil {
		return u.Username
	}
	return n
}

func groupName(id uint32) string {
	n := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(n); err == nil {
		return g.Name
	}
	return n
}

// The rights of a mode.
const (
	searchRight fs.FileMode = 1
	writeRight  fs.FileMode = 2
	readRight   fs.FileMode = 4
)

// deniedAt returns the first directory on the way to a path that a user is not
// allowed to search, or the path where the user does not have the right; ""
// where all is allowed, as far as modes tell, and where they cannot be read.
func deniedAt(path string, who Account, right fs.FileMode) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	var way []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		way = append([]string{dir}, way...)
		if dir == "/" || dir == "." {
			break
		}
	}
	for _, dir := range way {
		if info, err := os.Stat(dir); err == nil && !may(info, who, searchRight) {
			return dir
		}
	}
	if info, err := os.Stat(path); err == nil && !may(info, who, right) {
		return path
	}
	return ""
}

// may reports whether a user has a right by the mode.
func may(info fs.FileInfo, who Account, right fs.FileMode) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || who.UID == 0 {
		return true
	}
	mode := info.Mode().Perm()
	switch {
	case st.Uid == who.UID:
		mode >>= 6
	case slices.Contains(who.GIDs, st.Gid):
		mode >>= 3
	}
	return mode&right != 0
}

func isRoot() bool { return os.Geteuid() == 0 }
