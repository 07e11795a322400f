package doctor

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

// slowAnswer is far above what an answer without any lookup takes.
const slowAnswer = time.Second

func judgeSockets(f Facts) []audit.Finding {
	var all []audit.Finding
	for _, p := range f.Sockets {
		if !p.Own && !p.Ours && !f.expectsUs(p) {
			continue // another program's, which judgeMaps speaks of
		}
		if p.leadsNowhere() {
			continue // the map is wrong, says judgeMaps
		}
		all = append(all, judgeSocket(p, f.Units))
	}
	return all
}

// expectsUs reports whether a socket that Postfix asks is meant to be ours.
func (f Facts) expectsUs(p Probe) bool {
	for _, s := range f.Postfix.clients() {
		for _, t := range leaves(parseTables(f.Postfix.param(s, policyMaps))) {
			if t.Network != "" && f.Postfix.target(s, t) == p.Target && f.isOurs(s, t) {
				return true
			}
		}
	}
	return false
}

func judgeSocket(p Probe, u Units) audit.Finding {
	name := oneLine(p.String())
	mode := fmt.Sprintf("%s, owner %s", p.Mode, p.Owner)
	start := u.systemctl("restart tlspolicyd.socket tlspolicyd.service")
	switch {
	case p.Missing:
		return fail(SocketMissing, name, p.who("looks for the socket here, and there is none.", "The daemon's socket is not there."), "no such file", "Start the daemon, or have it listen here: see "+
			"listen.socketmap, and ListenStream= of tlspolicyd.socket.", start)
	case p.NoSocket:
		return fail(SocketNoSocket, name, "Here is something else than a socket.", mode, "Move it away and restart the daemon.", "mv "+shellQuote(p.Address)+" "+shellQuote(p.Address+".old"))
	case p.Denied != "":
		return p.denied(mode)
	case p.Untold != "":
		return unknown(SocketUntold, name, "The socket could not be asked: "+p.Untold+".", "", "Run doctor as root.")
	case p.Garbled:
		return p.foreign(p.Err)
	case p.Err != "":
		return fail(SocketSilent, name, "Nobody answers here, so mail is deferred.", p.Err, "Start the daemon, and look at its log.", start)
	case !p.Ours:
		return p.foreign("replied " + p.Reply + " to the map " + probeMap)
	case p.Took > slowAnswer:
		return warn(SocketSlow, name, fmt.Sprintf("An answer that needs no lookup took %d ms.", p.Took.Milliseconds()), "", "See what keeps this host busy, and the daemon's log.", "")
	}
	return ok(SocketAnswers, name, p.who("is answered.", "The daemon answers."), p.answered())
}

// who is a sentence about Postfix's services where they ask here, else the other.
func (p Probe) who(postfix, other string) string {
	if len(p.Services) == 0 {
		return other
	}
	return "Postfix (" + oneLine(strings.Join(p.Services, ", ")) + ") " + postfix
}

func (p Probe) answered() string {
	how := fmt.Sprintf("asked as %s, %.1f ms", p.As, float64(p.Took.Microseconds())/1000)
	if p.Root != "" {
		how += ", chroot " + p.Root
	}
	if p.Network == "unix" {
		how += fmt.Sprintf(", %s, owner %s", p.Mode, p.Owner)
	}
	return how
}

func (p Probe) denied(mode string) audit.Finding {
	advice, fix := "Let Postfix's user write to the socket: SocketMode= of tlspolicyd.socket, or listen.socket_mode and listen.socket_group.", "chmod 0666 "+shellQuote(p.Address)
	if p.Denied != p.Address {
		advice, fix = "Let Postfix's user into the directory.", "chmod o+x "+shellQuote(p.Denied)
		mode = filepath.Clean(p.Denied) + " is closed"
	}
	return fail(SocketDenied, oneLine(p.String()), "Postfix may not connect as "+p.As+", so mail is deferred.", mode, advice, fix)
}

func (p Probe) foreign(seen string) audit.Finding {
	return fail(SocketForeign, oneLine(p.String()), "Another program than tlspolicyd answers here.", seen,
		"Stop it, or give one of the two another address.", "ss -xltp | grep -F "+shellQuote(p.Address))
}
