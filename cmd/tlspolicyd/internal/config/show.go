package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

const overrideDoc = `A domain or ".parent" (its children, not itself; the longest match wins) with
"skip" (no policy, whatever the domain publishes), "lookup" (exempt from the
parent's line) or a literal Postfix policy.`

// WriteTOML writes all settings with a comment each, as a file that Load
// reads back to the same settings.
func (c Config) WriteTOML(w io.Writer) error {
	var b bytes.Buffer
	section := ""
	overridden := false
	for _, s := range c.settings() {
		if s.section() == "log" && !overridden {
			c.writeOverrides(&b)
			overridden = true
		}
		if s.section() != section {
			if section != "" {
				b.WriteByte('\n')
			}
			section = s.section()
			fmt.Fprintf(&b, "[%s]\n", section)
		}
		writeComment(&b, s.doc)
		fmt.Fprintf(&b, "%s = %s\n", s.name(), literal(s.get()))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func (c Config) writeOverrides(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n[%s]\n", overrideSection)
	writeComment(b, overrideDoc)
	for _, name := range slices.Sorted(maps.Keys(c.Override)) {
		fmt.Fprintf(b, "%s = %s\n", literal(name), literal(c.Override[name]))
	}
}

func writeComment(b *bytes.Buffer, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintf(b, "# %s\n", line)
	}
}

// literal writes a string, int64, bool or []string as TOML does.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return jsonString(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = jsonString(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// jsonString quotes a string. A JSON string is a basic string of TOML too, but
// for DEL, which TOML wants escaped.
func jsonString(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// MarshalJSON gives the settings under the keys and in the forms of the file.
func (c Config) MarshalJSON() ([]byte, error) {
	tree := map[string]map[string]any{overrideSection: {}}
	for name, policy := range c.Override {
		tree[overrideSection][name] = policy
	}
	for _, s := range c.settings() {
		if tree[s.section()] == nil {
			tree[s.section()] = make(map[string]any)
		}
		tree[s.section()][s.name()] = s.get()
	}
	return json.Marshal(tree)
}
