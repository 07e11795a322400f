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
		return []audit.Finding{audit.Inconclusive("postfix-absent", "", "Postfix is not on this host, so its settings were not checked.", p.Absent,
			"Where Postfix is in another container, run doctor there; it needs postconf.")}
	case p.Err != "":
		return []audit.Finding{audit.Inconclusive("postfix-unreadable", "", "postconf does not print the settings of Postfix.", p.Err,
			"Fix that first: postconf must read main.cf and master.cf.")}
	}
	all := []audit.Finding{judgeVersion(p)}
	all = append(all, judgeInstances(p)...)
	all = append(all, judgeDNSSEC(p)...)
	all = append(all, judgeLevel(f)...)
	all = append(all, judgeMaps(f)...)
	return append(all, judgePatterns(p)...)
}

func judgeVersion(p Postfix) audit.Finding {
	version := p.Params["mail_version"]
	if !p.Version.atLeast(3, 4, 0) {
		return audit.Failed("postfix-version-old", "", "Postfix "+version+" does not know servername=, which every MTA-STS answer has, and defers that mail.",
			"mail_version = "+version, "Upgrade to Postfix 3.4 or later; 3.10.5 or later is best.", "")
	}
	f := audit.Passed("postfix-version-ok", "", "Postfix "+version+" understands every answer of tlspolicyd.", "")
	if p.Version.atLeast(3, 10, 0) && !p.Version.atLeast(3, 10, 5) {
		f.Advice = "From 3.10.5 on it also checks the names of MX hosts against the policy, as RFC 8461 section 4.1 requires."
	}
	return f
}

// judgeInstances says what was not checked (MULTI_INSTANCE_README).
func judgeInstances(p Postfix) []audit.Finding {
	others := splitTables(p.Params["multi_instance_directories"])
	others = slices.DeleteFunc(others, func(dir string) bool { return filepath.Clean(dir) == filepath.Clean(p.ConfigDir) })
	if p.ConfigDir != "" || len(others) == 0 {
		return nil
	}
	f := audit.Passed("postfix-other-instances", "", "There are other instances of Postfix, which were not checked.", "multi_instance_directories = "+strings.Join(others, " "))
	f.Advice = "Check each of them:"
	f.Fix = "tlspolicyd doctor --postfix-config " + shellQuote(others[0])
	return []audit.Finding{f}
}

// where lists the values of a setting that are not good, each with the service
// that has it, as evidence: "smtp_x = a" or "smtp_x = a in relay".
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

// fix is set where main.cf is to be changed, and otherwise postconf -P for the
// service that overrides it.
func (p Postfix) fix(name, value string, inMain bool) string {
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
		all = append(all, audit.Failed("postfix-dnssec-off", "", "Postfix does not request DNSSEC, and defers all mail under dane-only.",
			strings.Join(bad, ", "), "Postfix checks DANE itself and needs secure DNS answers.", p.fix(level, "dnssec", inMain)))
	} else {
		all = append(all, audit.Passed("postfix-dnssec-on", "", "Postfix requests DNSSEC.", ""))
	}
	const lookup = "smtp_host_lookup"
	if bad, inMain := p.where(lookup, func(v string) bool { return slices.Contains(splitTables(v), "dns") }); len(bad) > 0 {
		all = append(all, audit.Failed("postfix-dns-off", "", "Postfix does not look up hosts in DNS, so DANE applies to none of them.",
			strings.Join(bad, ", "), "Use DNS, at least first.", p.fix(lookup, "dns", inMain)))
	}
	return all
}

func judgeLevel(f Facts) []audit.Finding {
	const level = "smtp_tls_security_level"
	p := f.Postfix
	var all []audit.Finding
	mandatory := func(v string) bool {
		return slices.Contains([]string{"encrypt", "dane-only", "fingerprint", "verify", "secure"}, v)
	}
	none, inMain := p.where(level, func(v string) bool { return v != "" && v != "none" })
	strict, strictInMain := p.where(level, func(v string) bool { return !mandatory(v) })
	if main := p.Params[level]; mandatory(main) && slices.Contains([]string{"none", "may", "dane"}, f.Config.PostfixLevel) {
		all = append(all, audit.Warned("postfix-level-differs", "", "tlspolicyd does not know that Postfix requires TLS by default, and may answer something weaker when a lookup fails.",
			level+" = "+main+", policy.postfix_level = "+f.Config.PostfixLevel,
			"Set it in the section [policy] of the configuration:", fmt.Sprintf("postfix_level = %q", main)))
	}
	switch {
	case len(none) > 0:
		all = append(all, audit.Warned("postfix-level-none", "", "Mail to domains without a policy is sent in the clear, even where the receiving host offers TLS.",
			strings.Join(none, ", "), "Use TLS wherever it is offered, and DANE.", p.fix(level, "dane", inMain)))
	case len(strict) > 0 && p.Params["relayhost"] == "":
		all = append(all, audit.Warned("postfix-level-strict", "", "Mail to hosts that do not offer as much is deferred until it bounces.",
			strings.Join(strict, ", "), "Let the domains decide, unless this host delivers only to a few that you know.", p.fix(level, "dane", strictInMain)))
	default:
		all = append(all, audit.Passed("postfix-level-ok", "", "The default TLS level is "+shown(p.Params[level])+".", ""))
	}
	const insecure = "smtp_tls_dane_insecure_mx_policy"
	if _, exists := p.Params[insecure]; exists { // since 3.1
		if bad, inMain := p.where(insecure, func(v string) bool { return v == "dane" }); len(bad) > 0 {
			all = append(all, audit.Warned("postfix-insecure-mx-policy", "", "Where the MX record is not signed but the host has TLSA records, they are not used to authenticate it.",
				strings.Join(bad, ", "), "tlspolicyd answers dane for such domains and relies on it.", p.fix(insecure, "dane", inMain)))
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
	return []audit.Finding{audit.Warned("postfix-sts-patterns-off", "", "Postfix does not check the names of MX hosts against the policy, as RFC 8461 section 4.1 requires.",
		strings.Join(bad, ", "), "Leave it at its default.", p.fix(patterns, "yes", inMain))}
}
