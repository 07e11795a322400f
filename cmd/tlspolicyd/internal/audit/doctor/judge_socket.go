package doctor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// slowAnswer is far above what an answer without any lookup takes.
const slowAnswer = time.Second

func judgeSockets(f Facts) []audit.Finding {
	var all []audit.Finding
	for _, p := range f.Sockets {
		if p.Own || p.Ours {
			all = append(all, judgeSocket(p, f.Units))
		}
	}
	if f.Postfix.known() && slices.ContainsFunc(f.Postfix.clients(), func(s Service) bool {
		_, _, exists := f.bestAddress(s)
		return !exists
	}) {
		path := filepath.Join(f.Postfix.queue(), defaultPath)
		advice, fix := "Add \"unix:"+path+"\" to listen.socketmap and restart the daemon.", f.Units.listenFix("queue-directory", "ListenStream="+path)
		if fix != "" {
			advice = "Have the socket unit listen there too:"
		}
		all = append(all, audit.Failed("socket-missing", "unix:"+oneLine(path), "The daemon has no socket in the queue directory of Postfix, where smtp(8) can reach it: mail is deferred.",
			"queue_directory = "+oneLine(f.Postfix.queue()), advice, fix))
	}
	return all
}

func judgeSocket(p Probe, u Units) audit.Finding {
	name := oneLine(p.String())
	mode := fmt.Sprintf("%s, owner %s", p.Mode, p.Owner)
	start := u.systemctl("restart tlspolicyd.socket tlspolicyd.service")
	switch {
	case p.Missing:
		return audit.Failed("socket-missing", name, p.about("looks for the socket here, and there is none.", "The daemon's socket does not exist."), "no such file",
			"Start the daemon. To have it listen here, see listen.socketmap, and ListenStream= of tlspolicyd.socket.", start)
	case p.NoSocket:
		return audit.Failed("socket-not-a-socket", name, "A file or directory is in the place of the socket.", mode, "Move it away and restart the daemon.",
			"mv "+shellQuote(p.Address)+" "+shellQuote(p.Address+".old"))
	case p.Denied != "":
		return p.denied(mode, u)
	case p.Inconclusive != "":
		return audit.Inconclusive("socket-inconclusive", name, "The socket could not be tested: "+p.Inconclusive+".", "", "Run doctor as root.")
	case p.Garbled:
		return p.foreign(p.Err)
	case p.Err != "":
		return audit.Failed("socket-no-answer", name, "No program answers here, so mail is deferred.", p.Err, "Start the daemon, and read its log.", start)
	case !p.Ours:
		return p.foreign("replied " + p.Reply + " to the map " + probeMap)
	case p.Took > slowAnswer:
		return audit.Warned("socket-slow", name, fmt.Sprintf("An answer that needs no lookup took %d ms.", p.Took.Milliseconds()), "", "Find out what keeps this host busy, and read the daemon's log.", "")
	}
	how := fmt.Sprintf("asked as %s, %.1f ms", p.As, float64(p.Took.Microseconds())/1000)
	if p.Root != "" {
		how += ", chroot " + p.Root
	}
	if p.Network == "unix" {
		how += ", " + mode
	}
	return audit.Passed("socket-ok", name, p.about("gets an answer.", "The daemon answers."), how)
}

// about is a sentence on Postfix's services where they ask here, else the other.
func (p Probe) about(postfix, other string) string {
	if len(p.Services) == 0 {
		return other
	}
	return "Postfix (" + oneLine(strings.Join(p.Services, ", ")) + ") " + postfix
}

func (p Probe) denied(mode string, u Units) audit.Finding {
	advice, fix := "Allow Postfix's user to write to the socket. To make it last, set listen.socket_mode or listen.socket_group.", "chmod 0666 "+shellQuote(p.Address)
	switch lasting := u.listenFix("mode", "SocketMode=0666"); {
	case p.Denied != p.Address:
		advice, fix = "Allow Postfix's user to enter the directory.", "chmod o+x "+shellQuote(p.Denied)
		mode = filepath.Clean(p.Denied) + " is closed"
	case lasting != "" && slices.Contains(u.Socket.Listen, p.String()):
		advice, fix = "Allow Postfix's user to write to the socket, by a drop-in for the socket unit:", lasting
	}
	return audit.Failed("socket-denied", oneLine(p.String()), "Postfix is not allowed to connect as "+p.As+", so mail is deferred.", mode, advice, fix)
}

func (p Probe) foreign(seen string) audit.Finding {
	return audit.Failed("socket-other-program", oneLine(p.String()), "Another program than tlspolicyd answers here.", seen,
		"Stop it, or give one of the two another address.", "ss -xltp | grep -F "+shellQuote(p.Address))
}
