package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"tlspolicyd/internal/hostname"
)

var (
	// ErrNoRecord: no TXT record at the name begins with the MTA-STS version.
	// The domain announces no policy.
	ErrNoRecord = errors.New("no MTA-STS record")
	// ErrManyRecords: more than one TXT record begins with the MTA-STS version.
	// Treat the domain as one that announces no policy (8461 §3.1).
	ErrManyRecords = errors.New("more than one MTA-STS record")
)

// RecordError says why a TXT record that begins with the MTA-STS version is
// not valid. Treat the domain as one that announces no policy (8461 §3.1).
type RecordError struct {
	Reason string // one line of printable ASCII
}

func (e *RecordError) Error() string { return "MTA-STS record: " + e.Reason }

// PolicyError says where and why a policy file is not valid (8461 §3.2).
type PolicyError struct {
	Line   int    // counted from 1; 0 when something is missing from the whole file
	Reason string // one line of printable ASCII
}

func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return "policy file: " + e.Reason
	}
	return fmt.Sprintf("policy file line %d: %s", e.Line, e.Reason)
}

const (
	recordVersion = "v=STSv1" // %s"v=STSv1": case-sensitive (8461 §3.1)
	blanks        = " \t"     // WSP (5234 appendix B.1)
	maxNameLength = 32        // sts-ext-name, sts-policy-ext-name
	maxIDLength   = 32        // sts-id
	maxAgeDigits  = 10        // sts-policy-max-age-value
)

// ParseRecord finds the one MTA-STS record among the TXT records at
// "_mta-sts.DOMAIN" (8461 §3.1). Each element is one record, its strings
// joined without a space. The error is ErrNoRecord, ErrManyRecords or a
// *RecordError.
//
// A repeated id is no error: the first one counts, because the rule for
// repeated fields in 8461 §3.2 speaks of TXT records as well as policy files.
func ParseRecord(txts [][]byte) (Record, error) {
	var fields []byte
	found := 0
	for _, txt := range txts {
		if rest, ok := cutVersion(txt); ok {
			fields = rest
			found++
		}
	}
	// The count comes before the syntax: one valid record beside a damaged one
	// is two records (8461 §3.1).
	switch {
	case found > 1:
		return Record{}, fmt.Errorf("%w: %d TXT records begin with %s;", ErrManyRecords, found, recordVersion)
	case found == 1:
		return parseFields(fields)
	case len(txts) > 0:
		return Record{}, fmt.Errorf("%w: no TXT record (of %d) begins with %s;", ErrNoRecord, len(txts), recordVersion)
	}
	return Record{}, ErrNoRecord
}

// cutVersion returns what follows sts-version and sts-field-delim, or false
// when the record does not begin with them and is to be discarded.
func cutVersion(txt []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(txt, []byte(recordVersion))
	if !ok {
		return nil, false
	}
	return bytes.CutPrefix(bytes.TrimLeft(rest, blanks), []byte(";"))
}

// parseFields reads 1*(sts-field-delim sts-field) [sts-field-delim], from
// behind the first delimiter.
func parseFields(b []byte) (Record, error) {
	var rec Record
	for last := false; !last; {
		field, rest, more := bytes.Cut(b, []byte(";"))
		b, last = rest, !more
		field = bytes.Trim(field, blanks)
		if len(field) == 0 {
			if last {
				break // the optional delimiter at the end
			}
			return Record{}, &RecordError{"empty field before a semicolon"}
		}
		name, value, ok := bytes.Cut(field, []byte("="))
		if !ok {
			return Record{}, &RecordError{fmt.Sprintf("field %s: want name=value", quote(field))}
		}
		var reason string
		if string(name) == "id" && rec.ID == "" {
			rec.ID, reason = string(value), idFault(value)
		} else {
			reason = extensionFault(name, value)
		}
		if reason != "" {
			return Record{}, &RecordError{reason}
		}
	}
	if rec.ID == "" {
		return Record{}, &RecordError{"no id"}
	}
	return rec, nil
}

// idFault holds a value against sts-id: 1*32(ALPHA / DIGIT).
func idFault(value []byte) string {
	const want = "want 1 to 32 letters or digits"
	switch {
	case len(value) == 0:
		return "id is empty: " + want
	case len(value) > maxIDLength:
		return fmt.Sprintf("id has %d characters: %s", len(value), want)
	}
	for _, c := range value {
		if !hostname.IsLetterDigit(c) {
			return fmt.Sprintf("id %s: %s", quote(value), want)
		}
	}
	return ""
}

// extensionFault holds an ignored field against sts-extension: unknown fields
// are ignored, but only in a record that is syntactically valid (8461 §3.2).
func extensionFault(name, value []byte) string {
	if !validName(name) {
		return fmt.Sprintf("field name %s: want a letter or digit, then up to 31 of letters, digits, _ - .", quote(name))
	}
	if len(value) == 0 {
		return fmt.Sprintf("field %s has no value", quote(name))
	}
	for _, c := range value {
		// sts-ext-value = 1*(%x21-3A / %x3C / %x3E-7E)
		if c <= ' ' || c > '~' || c == '=' || c == ';' {
			return fmt.Sprintf("field %s: value %s has a character other than printable ASCII without blank and =", quote(name), quote(value))
		}
	}
	return ""
}

// validName is sts-ext-name and sts-policy-ext-name, which are the same.
func validName(name []byte) bool {
	if len(name) == 0 || len(name) > maxNameLength || !hostname.IsLetterDigit(name[0]) {
		return false
	}
	for _, c := range name {
		if !hostname.IsLetterDigit(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// ParsePolicy reads a policy file (8461 §3.2). The error is a *PolicyError
// that names the first line at fault.
//
// Beyond the grammar: a max_age above MaxMaxAge counts as that, blank lines at
// the end are tolerated, a final dot in a pattern is dropped, and a name whose last
// label is a number is taken for an address: such an mx line is ignored, but where
// there is no other it is a fault. Repeated mx lines are all kept.
func ParsePolicy(b []byte) (Policy, error) {
	if reason := encodingFault(b); reason != "" {
		return Policy{}, &PolicyError{1, reason}
	}
	var p policyParser
	number := 0
	for line := range bytes.Lines(b) {
		number++
		if rest, ended := bytes.CutSuffix(line, []byte("\n")); ended {
			line = bytes.TrimSuffix(rest, []byte("\r"))
		}
		if at, reason := p.line(number, line); reason != "" {
			return Policy{}, &PolicyError{at, reason}
		}
	}
	if at, reason := p.missing(); reason != "" {
		return Policy{}, &PolicyError{at, reason}
	}
	return p.policy, nil
}

// encodingFault is about the first bytes of a file, as some editors write them.
func encodingFault(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xef\xbb\xbf")):
		return "begins with a byte order mark"
	case bytes.HasPrefix(b, []byte("\xff\xfe")), bytes.HasPrefix(b, []byte("\xfe\xff")):
		return "UTF-16: want UTF-8"
	}
	return ""
}

// policyParser is what has been read so far.
type policyParser struct {
	policy                Policy
	version, mode, maxAge bool // seen
	blank                 int  // number of the first blank line

	// The first mx line that is ignored because it has an address, and why; 0: none.
	address       int
	addressReason string
}

// line takes one line without its end. When it is at fault the reason is not
// empty, and at is the number of the line to blame.
func (p *policyParser) line(number int, line []byte) (at int, reason string) {
	if reason := textFault(line); reason != "" {
		return number, reason
	}
	if len(bytes.Trim(line, blanks)) == 0 {
		if p.blank == 0 {
			p.blank = number
		}
		return number, ""
	}
	if p.blank != 0 { // tolerated at the end only
		return p.blank, "blank line before the end"
	}
	key, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return number, fmt.Sprintf("%s: want key: value", quote(line))
	}
	if !validName(key) {
		return number, fmt.Sprintf("key %s: want a letter or digit, then up to 31 of letters, digits, _ - .", quote(key))
	}
	return number, p.field(number, string(key), string(bytes.Trim(value, blanks)))
}

// textFault refuses what is not allowed anywhere in the file: sts-policy-ext-value
// is UTF-8 without CTLs, everything else is ASCII. A tab is a blank, and
// field refuses it inside a value.
func textFault(line []byte) string {
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return fmt.Sprintf("control byte 0x%02x", c)
		}
	}
	if !utf8.Valid(line) {
		return "not UTF-8"
	}
	return ""
}

// field takes one key and its value without the blanks around it.
func (p *policyParser) field(number int, key, value string) (reason string) {
	// Of every field but mx the first one counts and all others are ignored,
	// whatever they say (8461 §3.2).
	switch {
	case key == "version" && !p.version:
		p.version, reason = true, versionFault(value)
	case key == "mode" && !p.mode:
		p.mode, reason = true, modeFault(value)
		p.policy.Mode = Mode(value)
	case key == "max_age" && !p.maxAge:
		p.maxAge = true
		p.policy.MaxAge, reason = parseMaxAge(value)
	case key == "mx":
		pattern, err := parsePattern(value)
		if errors.Is(err, hostname.ErrAddress) {
			if p.address == 0 {
				p.address, p.addressReason = number, err.Error()
			}
			return ""
		}
		p.policy.MX = append(p.policy.MX, pattern) // at fault: a line is there all the same
		if err != nil {
			return err.Error()
		}
		value = strings.TrimSuffix(value, ".")
	default:
		return ignoredFault(key, value)
	}
	p.policy.Lines = append(p.policy.Lines, key+": "+value)
	return reason
}

func versionFault(value string) string {
	if value != "STSv1" {
		return fmt.Sprintf("version %s: want STSv1", quote(value))
	}
	return ""
}

func modeFault(value string) string {
	switch Mode(value) {
	case Enforce, Testing, None:
		return ""
	}
	return fmt.Sprintf("mode %s: want enforce, testing or none", quote(value))
}

// parseMaxAge reads sts-policy-max-age-value, 1*10(DIGIT), in seconds.
func parseMaxAge(value string) (age time.Duration, reason string) {
	fault := fmt.Sprintf("max_age %s: want 1 to 10 digits", quote(value))
	if len(value) > maxAgeDigits {
		return 0, fault
	}
	seconds, err := strconv.ParseUint(value, 10, 64) // takes digits only, neither sign nor underscore
	if err != nil {
		return 0, fault
	}
	// 31557600 is the maximum (8461 §3.2). More than that means as long as possible.
	return time.Duration(min(seconds, uint64(MaxMaxAge/time.Second))) * time.Second, ""
}

// ignoredFault holds a field that is ignored against sts-policy-ext-value: not
// empty, and no blank inside it but the space.
func ignoredFault(key, value string) string {
	if value == "" {
		return key + " has no value"
	}
	if bytes.ContainsRune([]byte(value), '\t') {
		return fmt.Sprintf("value of %s has a tab in it", key)
	}
	return ""
}

// missing names the first required field that the file does not have. Where it is
// an mx line, and one is ignored, at is the number of that one and reason why.
func (p *policyParser) missing() (at int, reason string) {
	switch {
	case !p.version:
		return 0, "no version line"
	case !p.mode:
		return 0, "no mode line"
	case !p.maxAge:
		return 0, "no max_age line"
	case len(p.policy.MX) > 0 || p.policy.Mode == None: // 8461 §3.2
		return 0, ""
	case p.address > 0:
		return p.address, p.addressReason
	}
	return 0, fmt.Sprintf("no mx line: mode %s needs one", p.policy.Mode)
}
