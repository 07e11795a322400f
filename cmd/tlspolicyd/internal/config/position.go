package config

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// entry is one key with its value, or one table header, and where it stands.
// It is all that is used of the TOML library's syntax tree, whose API may
// change.
type entry struct {
	path     []string // of the key from the root
	array    bool     // the header of an array of tables
	start    int      // offset of the key
	value    int      // offset of the value; -1 for a header or an inline table
	elements []int    // offsets of the elements when the value is an array
}

// key returns the path in one string, safe to print.
func (e entry) key() string {
	parts := make([]string, len(e.path))
	for i, p := range e.path {
		parts[i] = p
		if p == "" || strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			parts[i] = strconv.QuoteToASCII(p)
		}
	}
	return bounded(strings.Join(parts, "."))
}

// entries lists what is in the file, in the order of the file. The data must
// be valid TOML.
func entries(data []byte) []entry {
	var (
		p     unstable.Parser
		list  []entry
		table []string
	)
	p.Reset(data)
	for p.NextExpression() {
		n := p.Expression()
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			var start int
			table, start, _ = keyPath(nil, n)
			list = append(list, entry{path: table, array: n.Kind == unstable.ArrayTable, start: start, value: -1})
		case unstable.KeyValue:
			list = appendKeyValue(list, data, table, n)
		}
	}
	return list
}

func appendKeyValue(list []entry, data []byte, table []string, n *unstable.Node) []entry {
	path, start, end := keyPath(table, n)
	e := entry{path: path, start: start, value: valueOffset(data, end)}
	switch v := n.Value(); v.Kind {
	case unstable.InlineTable:
		e.value = -1
		list = append(list, e)
		for it := v.Children(); it.Next(); {
			list = appendKeyValue(list, data, path, it.Node())
		}
		return list
	case unstable.Array:
		for it := v.Children(); it.Next(); {
			at := e.value // nested arrays and tables have no range of their own
			if raw := it.Node().Raw; raw.Length > 0 {
				at = int(raw.Offset)
			}
			e.elements = append(e.elements, at)
		}
	}
	return append(list, e)
}

// keyPath returns the full path of a node's key and the offsets of its first
// byte and behind its last.
func keyPath(table []string, n *unstable.Node) (path []string, start, end int) {
	path = append(path, table...)
	start = -1
	for it := n.Key(); it.Next(); {
		k := it.Node()
		path = append(path, string(k.Data))
		if start < 0 {
			start = int(k.Raw.Offset)
		}
		end = int(k.Raw.Offset + k.Raw.Length)
	}
	return path, start, end
}

// valueOffset returns where the value begins after a key that ends at end.
func valueOffset(data []byte, end int) int {
	rest := bytes.TrimLeft(data[end:], " \t=")
	return len(data) - len(rest)
}

// position turns an offset into a line and a column, both from 1.
func position(data []byte, offset int) (line, column int) {
	before := data[:offset]
	return 1 + bytes.Count(before, []byte("\n")), offset - bytes.LastIndexByte(before, '\n')
}
