package doctor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

func judgePostfix(f Facts) []audit.Finding {
	p := f.Postfix
	switch {
	case p.Absent != "":
		return []audit.Finding{unknown(PostfixAbsent, "", "Postfix is not here, so its settings were not looked at.", p.Absent,
			"Where Postfix is in another container, run doctor there; it needs postconf.")}
	case p.Err != "":
		return []audit.Finding{unknown(PostfixUnread, "", "postconf does not tell Postfix's settings.", p.Err,
			"Mend that first: postconf is asked for main.cf and master.cf"+inDir(p)+".")}
	}
	all := []audit.Finding{judgeVersion(p)}
	all = append(all, judgeInstances(p)...)
	all = append(all, judgeDNSSEC(p)...)
	all = append(all, judgeLevel(p)...)
	all = append(all, judgeMaps(f)...)
	all = append(all, judgePatterns(p)...)
	return append(all, judgeTLSRPT(p)...)
}

func inDir(p Postfix) string {
	if p.ConfigDir == "" {
		return ""
	}
	return " in " + p.ConfigDir
}

func judgeVersion(p Postfix) audit.Finding {
	version := p.Params["mail_version"]
	if !p.Version.atLeast(3, 4, 0) {
		return fail(PostfixTooOld, "", "Postfix "+version+" does not know servername=, which every policy of MTA-STS has, and defers that mail.",
			"mail_version = "+version, "Upgrade to Postfix 3.4 or later; 3.10.5 or later is best.", "")
	}
	f := ok(PostfixVersion, "", "Postfix "+version+" understands the policies.", "")
	if p.Version.atLeast(3, 10, 0) && !p.Version.atLeast(3, 10, 5) {
		f.Advice = "From 3.10.5 on it also holds the names of MX hosts against them, as RFC 8461 section 4.1 asks."
	}
	return f
}

// judgeInstances says what was not looked at (MULTI_INSTANCE_README).
func judgeInstances(p Postfix) []audit.Finding {
	others := splitTables(p.Params["multi_instance_directories"])
	others = slices.DeleteFunc(others, func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(p.ConfigDir) })
	if p.ConfigDir != "" || len(others) == 0 {
		return nil
	}
	f := ok(PostfixInstances, "", "There are more instances of Postfix, which were not looked at.", "multi_instance_directories = "+strings.Join(others, " "))
	f.Advice = "Look at each of them."
	f.Fix = "tlspolicyd doctor --postfix-config " + shellQuote(others[0])
	return []audit.Finding{f}
}

// where is the value of a setting in services that do not agree with what is
// wanted of it, as evidence: "smtp_x = a" or "smtp_x = a in relay".
func (p Postfix) where(name string, good func(string) bool) (bad []string, inMain bool) {
	seen := map[string]bool{}
	for _, s := range p.clients() {
		value := p.param(s, name)
		if good(value) {
			continue
		}
		text := name + " = " + shown(value)
		if _, overridden := s.Overrides[name]; overridden {
			text += " in the service " + s.Name + " of master.cf"
		} else {
			inMain = true
		}
		if !seen[text] {
			seen[text] = true
			bad = append(bad, text)
		}
	}
	return bad, inMain
}

func shown(value string) string {
	if value == "" {
		return "(empty)"
	}
	return oneLine(value)
}

// set is the command that changes a setting of main.cf.
func (p Postfix) set(name, value string) string {
	return p.postconf("-e " + shellQuote(name+"="+value))
}

func (p Postfix) postconf(args string) string { return p.command("postconf", args) }

// command is one of Postfix's, for this instance.
func (p Postfix) command(name, args string) string {
	if p.ConfigDir != "" {
		name += " -c " + shellQuote(p.ConfigDir)
	}
	return name + " " + args
}

// mend is set where main.cf is to be changed, and otherwise postconf -P for the
// service that overrides it.
func (p Postfix) mend(name, value string, inMain bool) string {
	if inMain {
		return p.set(name, value)
	}
	for _, s := range p.clients() {
		if _, overridden := s.Overrides[name]; overridden {
			return p.postconf("-P " + shellQuote(s.Name+"/"+s.Type+"/"+name+"="+value))
		}
	}
	return ""
}

func judgeDNSSEC(p Postfix) []audit.Finding {
	var all []audit.Finding
	const level = "smtp_dns_support_level"
	bad, inMain := p.where(level, func(v string) bool { return v == "dnssec" })
	if len(bad) > 0 {
		all = append(all, fail(DNSSECOff, "", "Postfix does not ask DNS for DNSSEC, and defers all mail that is to go by dane-only.",
			strings.Join(bad, ", "), "Postfix checks DANE itself and needs secure answers for it.", p.mend(level, "dnssec", inMain)))
	} else {
		all = append(all, ok(DNSSECOn, "", "Postfix asks DNS for DNSSEC.", ""))
	}
	const lookup = "smtp_host_lookup"
	if bad, inMain := p.where(lookup, func(v string) bool { return slices.Contains(splitTables(v), "dns") }); len(bad) > 0 {
		all = append(all, fail(HostLookupWithoutDNS, "", "Postfix does not look hosts up in DNS, so that DANE applies to none of them.",
			strings.Join(bad, ", "), "Use DNS, at least first.", p.mend(lookup, "dns", inMain)))
	}
	return all
}

func judgeLevel(p Postfix) []audit.Finding {
	const level = "smtp_tls_security_level"
	var all []audit.Finding
	none, inMain := p.where(level, func(v string) bool { return v != "" && v != "none" })
	strict, strictInMain := p.where(level, func(v string) bool {
		return !slices.Contains([]string{"encrypt", "dane-only", "fingerprint", "verify", "secure"}, v)
	})
	switch {
	case len(none) > 0:
		all = append(all, warn(TLSLevelNone, "", "Mail for domains without a policy goes in the clear, even where the other side has TLS.",
			strings.Join(none, ", "), "Use TLS wherever it is offered, and DANE with it.", p.mend(level, "dane", inMain)))
	case len(strict) > 0 && p.Params["relayhost"] == "":
		all = append(all, warn(TLSLevelStrict, "", "Mail for hosts that do not offer as much is deferred until it bounces.",
			strings.Join(strict, ", "), "Let the domains decide, unless this host delivers to few that you know.", p.mend(level, "dane", strictInMain)))
	default:
		all = append(all, ok(TLSLevel, "", "The default TLS level is "+shown(p.Params[level])+".", ""))
	}
	const insecure = "smtp_tls_dane_insecure_mx_policy"
	if _, exists := p.Params[insecure]; exists { // since 3.1
		if bad, inMain := p.where(insecure, func(v string) bool { return v == "dane" }); len(bad) > 0 {
			all = append(all, warn(InsecureMXPolicy, "", "Where the MX record is not signed but the host has TLSA records, they are not used to authenticate it.",
				strings.Join(bad, ", "), "tlspolicyd answers dane for such domains and means it.", p.mend(insecure, "dane", inMain)))
		}
	}
	return all
}

func judgePatterns(p Postfix) []audit.Finding {
	const patterns = "smtp_tls_enforce_sts_mx_patterns"
	if _, exists := p.Params[patterns]; !exists { // before 3.10.5
		return nil
	}
	bad, inMain := p.where(patterns, func(v string) bool { return v == "yes" })
	if len(bad) == 0 {
		return nil
	}
	return []audit.Finding{warn(STSPatternsOff, "", "Postfix does not hold the names of MX hosts against the policy, as RFC 8461 section 4.1 asks.",
		strings.Join(bad, ", "), "Leave it at its default.", p.mend(patterns, "yes", inMain))}
}

func judgeTLSRPT(p Postfix) []audit.Finding {
	on, _ := p.where("smtp_tlsrpt_enable", func(v string) bool { return v != "yes" })
	if len(on) == 0 {
		return nil
	}
	const name = "smtp_tlsrpt_socket_name"
	socket := p.Params[name]
	if socket == "" {
		return []audit.Finding{warn(TLSRPTNoSocket, "", "TLSRPT is on, but Postfix is not told where to send its reports.",
			name+" is empty", "Name the socket of the reporting service, relative to the queue directory.",
			p.set(name, "run/tlsrpt/tlsrpt.sock"))}
	}
	path := p.tlsrptPath()
	if p.TLSRPTSocket != "" {
		return []audit.Finding{warn(TLSRPTNoSocket, "", "TLSRPT is on, but the reporting service has no socket where Postfix looks for it.",
			fmt.Sprintf("%s = %s, that is %s: %s", name, oneLine(socket), oneLine(path), p.TLSRPTSocket),
			"Start the reporting service (tlsrpt-reporter, for example), or tell both of them the same place.", "")}
	}
	return []audit.Finding{ok(TLSRPTOn, "", "TLSRPT is on, and its socket is there.", path)}
}
