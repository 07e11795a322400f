package mtasts

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// PolicyLine is one line of a policy file and what there is to say about it.
type PolicyLine struct {
	Number int    // counted from 1
	Text   []byte // without its end, as it was sent
	Fault  string // why it makes the policy invalid; "" for a line that does not
	Note   string // what its author may not expect, such as that it is ignored; "" for nothing
}

// PolicyLines judges each line of a policy file by itself, where ParsePolicy
// ends at the first fault. missing names the first required field that no line
// has; it is "" when all are there. A file is valid if there is no fault and
// nothing missing.
func PolicyLines(b []byte) (lines []PolicyLine, missing string) {
	var p policyParser
	number := 0
	for line := range bytes.Lines(b) {
		number++
		if rest, ended := bytes.CutSuffix(line, []byte("\n")); ended {
			line = bytes.TrimSuffix(rest, []byte("\r"))
		}
		l := PolicyLine{Number: number, Text: line}
		if reason := encodingFault(line); reason != "" && number == 1 {
			l.Fault = reason
			lines = append(lines, l)
			p.line(number, bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))) // so that its field does not count as missing
			p.blank = 0                                                    // its fault is reported
			continue
		}
		seen := p // what the lines before this one were
		at, reason := p.line(number, line)
		if at != number { // this line shows that the blank one before it was not at the end
			lines[at-1].Fault = reason
			p.blank = 0
			_, reason = p.line(number, line)
		}
		l.Fault = reason
		if reason == "" {
			l.Note = seen.note(line)
		}
		lines = append(lines, l)
	}
	at, missing := p.missing()
	if at > 0 {
		lines[at-1].Fault, lines[at-1].Note = missing, ""
		return lines, ""
	}
	return lines, missing
}

// note says what is worth knowing of a line that is valid. p has read what
// comes before it.
func (p *policyParser) note(line []byte) string {
	key, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return ""
	}
	value = strings.Trim(value, blanks)
	switch key {
	case "version", "mode", "max_age":
		if key == "version" && p.version || key == "mode" && p.mode || key == "max_age" && p.maxAge {
			return key + " again: the first one counts, this one is ignored"
		}
		if key == "max_age" && len(strings.TrimLeft(value, "0")) > 0 {
			if age, _ := parseMaxAge(value); age == MaxMaxAge && strings.TrimLeft(value, "0") != "31557600" {
				return "max_age is more than a year: it counts as 31557600"
			}
		}
		return ""
	case "mx":
		switch pattern, err := parsePattern(value); {
		case err != nil:
			return "the line has an address, which is not the name of any host: it is ignored"
		case strings.HasSuffix(value, "."):
			return "the final dot is not allowed by RFC 8461: it is ignored here, but other senders refuse the policy"
		case slices.Contains(p.policy.MX, pattern):
			return "the same pattern again"
		}
		return ""
	}
	folded := strings.NewReplacer("-", "_", " ", "").Replace(strings.ToLower(key))
	for _, known := range []string{"version", "mode", "max_age", "mx"} {
		if folded == known || folded == strings.ReplaceAll(known, "_", "") || folded == known+"s" {
			return fmt.Sprintf("key %s is unknown and ignored: is %s meant?", quote(key), known)
		}
	}
	return fmt.Sprintf("key %s is unknown and ignored", quote(key))
}
