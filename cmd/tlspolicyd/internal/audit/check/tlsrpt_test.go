package check_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tlspolicyd/cmd/tlspolicyd/internal/audit/check"
)

func TestParseTLSRPT(t *testing.T) {
	for _, test := range []struct {
		situation string
		texts     []string
		want      []string
		fault     string
	}{
		{"RFC 8460 §3.1, example 1", []string{"v=TLSRPTv1;rua=mailto:reports@example.test"}, []string{"mailto:reports@example.test"}, ""},
		{"RFC 8460 §3.1, example 2", []string{"v=TLSRPTv1; rua=https://reporting.example.test/v1/tlsrpt"}, []string{"https://reporting.example.test/v1/tlsrpt"}, ""},
		{"two destinations", []string{"v=TLSRPTv1; rua=mailto:a@b.test , https://c.test/;"}, []string{"mailto:a@b.test", "https://c.test/"}, ""},
		{"an extension", []string{"v=TLSRPTv1 ; x-own=1; rua=mailto:a@b.test"}, []string{"mailto:a@b.test"}, ""},
		{"others beside it are discarded", []string{"hello", "v=TLSRPTv1; rua=mailto:a@b.test", "v=STSv1; id=1"}, []string{"mailto:a@b.test"}, ""},
		{"an escaped exclamation mark", []string{"v=TLSRPTv1; rua=mailto:a%21b@c.test"}, []string{"mailto:a%21b@c.test"}, ""},
		{"none", nil, nil, "no TLSRPT record"},
		{"none that begins like one", []string{"v=TLSRPTv1 rua=mailto:a@b.test"}, nil, "no TXT record (of 1) begins with v=TLSRPTv1;"},
		{"letter case counts", []string{"v=tlsrptv1; rua=mailto:a@b.test"}, nil, "no TLSRPT record"},
		{"two", []string{"v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1;"}, nil, "more than one TLSRPT record"},
		{"no rua", []string{"v=TLSRPTv1;"}, nil, "no rua field"},
		{"no value", []string{"v=TLSRPTv1; rua"}, nil, "want name=value"},
		{"an empty rua", []string{"v=TLSRPTv1; rua="}, nil, "want mailto: or https: in front"},
		{"an address without mailto:", []string{"v=TLSRPTv1; rua=a@b.test"}, nil, "want mailto: or https: in front"},
		{"http", []string{"v=TLSRPTv1; rua=http://b.test/"}, nil, "want mailto: or https:"},
		{"mailto: of no address", []string{"v=TLSRPTv1; rua=mailto:b.test"}, nil, "not a mail address"},
		{"https: without host", []string{"v=TLSRPTv1; rua=https:///x"}, nil, "no host"},
		{"an exclamation mark (8460 §3)", []string{"v=TLSRPTv1; rua=mailto:a@b.test!10m"}, nil, "%21"},
		{"control bytes", []string{"v=TLSRPTv1; rua=\x1b[2J"}, nil, `rua "\x1b[2J"`},
	} {
		t.Run(test.situation, func(t *testing.T) {
			var texts [][]byte
			for _, text := range test.texts {
				texts = append(texts, []byte(text))
			}
			got, err := check.ParseTLSRPT(texts)
			if test.fault != "" {
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), `\\`, `\`), test.fault) {
					t.Errorf("%q, %v, want %q", got, err, test.fault)
				}
				return
			}
			if d := cmp.Diff(test.want, got); err != nil || d != "" {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
}

// FuzzParseTLSRPT: whatever is in DNS, what comes back is printable and
// bounded, and there is an error exactly when there is no destination.
func FuzzParseTLSRPT(f *testing.F) {
	f.Add([]byte("v=TLSRPTv1; rua=mailto:a@b.test,https://c.test/"), []byte("hello"))
	f.Add([]byte("v=TLSRPTv1;"), []byte("v=TLSRPTv1; rua=\x1b[2J"))
	f.Add([]byte("v=TLSRPTv1; rua=mailto:%zz"), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		list, err := check.ParseTLSRPT([][]byte{a, b})
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%q, %v", list, err)
		}
		if err != nil {
			list = append(list, err.Error())
		}
		for _, text := range list {
			if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%d bytes: %q", len(text), text)
			}
		}
	})
}
