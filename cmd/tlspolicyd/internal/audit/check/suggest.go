package check

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
	"tlspolicyd/internal/dane"
	"tlspolicyd/internal/mtasts"
)

// Suggestion is what the operator of a domain publishes next. docs/suggest.md
// documents its JSON: fields may be added to, but none may change its name or
// meaning.
type Suggestion struct {
	Domain   string          `json:"domain"`
	Mode     string          `json:"mode"`       // of the policy file: testing or enforce
	InTheWay []audit.Finding `json:"in_the_way"` // of mode enforce
	Steps    []Step          `json:"steps"`      // in the order in which they are to be done
}

// Step is one thing to be published, or to be done later.
type Step struct {
	Name   string `json:"name"`   // stable: tlsrpt-record
	Needed bool   `json:"needed"` // now
	Text   string `json:"text"`   // what to do, and why
	Lines  string `json:"lines"`  // exactly what to publish; "" where nothing is
}

const (
	testingAge = 24 * time.Hour
	enforceAge = 30 * 24 * time.Hour
	idForm     = "20060102150405"
)

//go:embed suggest.tmpl
var suggestTexts string

// Suggest returns what to publish next for a domain of which Unsuggestible returns
// nothing. nextKey is the SubjectPublicKeyInfo of the key that the mail hosts will
// change to; nil: it is not known. Suggest is pure.
func Suggest(f *Facts, nextKey []byte) Suggestion {
	wanted := mtasts.Policy{Mode: mtasts.Testing, MaxAge: testingAge, MX: f.suggestedMX()}
	s := Suggestion{Domain: f.Domain, InTheWay: f.inTheWay(wanted)}
	var present mtasts.Policy // also one that no record announces yet
	if f.Policy != nil {
		present = *f.Policy
	}
	if present.Mode == mtasts.Enforce || present.Mode == mtasts.Testing && len(s.InTheWay) == 0 {
		wanted.Mode, wanted.MaxAge = mtasts.Enforce, enforceAge
	}
	if present.Mode == wanted.Mode && (wanted.Mode == mtasts.Testing || present.MaxAge >= week) {
		wanted.MaxAge = present.MaxAge
	}
	s.Mode = string(wanted.Mode)
	same := present.Mode == wanted.Mode && present.MaxAge == wanted.MaxAge && slices.Equal(present.MX, wanted.MX)
	record := judgeRecord(f)[0]

	texts := template.Must(template.New("").Parse(suggestTexts))
	step := func(name string, needed bool, lines string) {
		var b bytes.Buffer
		err := texts.ExecuteTemplate(&b, name, map[string]any{
			"Domain": f.Domain, "Mode": s.Mode, "Needed": needed, "Lines": lines, "Present": string(present.Mode),
			"Lost": f.Announced && f.Policy == nil, "Signed": f.Explanation.DANE.MX.Answer.Secure(),
			"Unsigned": list(f.hostNames(dane.Insecure)), "Days": int(max(present.MaxAge, wanted.MaxAge) / (24 * time.Hour)),
		})
		if err != nil {
			panic(err) // a mistake in the template
		}
		text, example, _ := strings.Cut(b.String(), "---\n")
		s.Steps = append(s.Steps, Step{name, needed, strings.Join(strings.Fields(text), " "), lines + example})
	}
	step("tlsrpt-record", f.TLSRPT.Err != nil && !f.TLSRPT.Failed, "_smtp._tls."+f.Domain+`. IN TXT "v=TLSRPTv1; rua=mailto:tls-reports@`+f.Domain+"\"\n")
	step("policy-file", !same, policyFile(wanted))
	for _, server := range []string{"nginx", "caddy", "apache"} {
		step("web-server-"+server, !f.received(), "")
	}
	step("sts-record", !same || record.Grade != audit.OK, "_mta-sts."+f.Domain+`. IN TXT "v=STSv1; id=`+f.freshID()+";\"\n")
	records, missing := f.suggestedTLSA(nextKey)
	step("tlsa-records", missing, records)
	if wanted.Mode == mtasts.Testing {
		wanted.Mode, wanted.MaxAge = mtasts.Enforce, enforceAge
		step("enforce", false, policyFile(wanted))
	}
	step("remove", false, policyFile(mtasts.Policy{Mode: mtasts.None, MaxAge: testingAge}))
	return s
}

// Unsuggestible returns the findings that say why nothing can be suggested: the
// domain has no mail host, or too little is known of it to keep what it has. None:
// it can be.
func (f *Facts) Unsuggestible() []audit.Finding {
	if f.noMail() {
		return append(judgeThisHost(f), judgeDomain(f)...)
	}
	if f.Explanation.Record.Failed {
		return judgeRecord(f)
	}
	if f.policyInconclusive() {
		return append(judgeThisHost(f), judgePolicyFile(f)...)
	}
	return nil
}

// inTheWay are the findings that an audit would have if the policy were enforced
// and mail is not delivered because of them, or may not be.
func (f *Facts) inTheWay(p mtasts.Policy) []audit.Finding {
	enforced := *f
	p.Mode = mtasts.Enforce
	enforced.Policy, enforced.Announced, enforced.FetchErr = &p, true, nil
	found := []audit.Finding{}
	for _, judge := range []func(*Facts) []audit.Finding{judgeThisHost, judgeDomain, judgeAlignment, judgeMailHosts, judgeDANE} {
		for _, one := range judge(&enforced) {
			if one.Grade == audit.Fail || one.Grade == audit.Unknown {
				found = append(found, one)
			}
		}
	}
	return found
}

// suggestedMX are the patterns of the policy that match a mail host, and the other
// hosts.
func (f *Facts) suggestedMX() (patterns []string) {
	hosts := f.Explanation.DANE.Hosts
	if f.Policy != nil {
		for _, p := range f.Policy.MX {
			if slices.ContainsFunc(hosts, func(h dane.Host) bool { return mtasts.MatchMX(p, h.Name) }) {
				patterns = append(patterns, p)
			}
		}
	}
	for _, h := range hosts {
		if !isAddress(h.Name) && !slices.ContainsFunc(patterns, func(p string) bool { return mtasts.MatchMX(p, h.Name) }) {
			patterns = append(patterns, h.Name)
		}
	}
	return patterns
}

// policyFile writes a policy as RFC 8461 §3.2 has it.
func policyFile(p mtasts.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\nmode: %s\n", p.Mode)
	for _, mx := range p.MX {
		fmt.Fprintf(&b, "mx: %s\n", mx)
	}
	fmt.Fprintf(&b, "max_age: %d\n", p.MaxAge/time.Second)
	return b.String()
}

// freshID is an id that is not the present one.
func (f *Facts) freshID() string {
	id := f.At.UTC().Format(idForm)
	if id == f.Explanation.Record.Record.ID {
		return f.At.UTC().Add(time.Second).Format(idForm)
	}
	return id
}

func (f *Facts) hostNames(v dane.Verdict) (names []string) {
	for _, h := range f.Hosts {
		if h.Verdict == v {
			names = append(names, h.Name)
		}
	}
	return names
}

// suggestedTLSA are the TLSA records of the mail hosts whose names are signed: for
// the keys that they present now, and for the next one (RFC 7671 §8.1).
func (f *Facts) suggestedTLSA(nextKey []byte) (lines string, missing bool) {
	if !f.Explanation.DANE.MX.Answer.Secure() {
		return "", false
	}
	for _, h := range f.Hosts {
		if h.Verdict != dane.NoTLSA && !h.Verdict.HasTLSA() {
			continue
		}
		var seen []string
		record := func(key []byte, what string) {
			digest := sha256.Sum256(key)
			line := fmt.Sprintf("%s. IN TLSA 3 1 1 %x ; %s\n", base(h), digest, what)
			if slices.Contains(seen, string(digest[:])) {
				return
			}
			seen = append(seen, string(digest[:]))
			lines += line
			missing = missing || !slices.ContainsFunc(h.TLSA, func(t dane.TLSA) bool {
				return t.Usage == 3 && t.Selector == 1 && t.MatchingType == 1 && bytes.Equal(t.Data, digest[:])
			})
		}
		for _, a := range h.done() {
			record(a.Probe.Chain[0].RawSubjectPublicKeyInfo, "the present key")
		}
		if nextKey != nil {
			record(nextKey, "the next key")
		} else {
			lines += "; " + base(h) + ". IN TLSA 3 1 1 SHA256-OF-THE-NEXT-KEY\n"
		}
	}
	return lines, missing
}
