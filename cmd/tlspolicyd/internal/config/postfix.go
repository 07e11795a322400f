package config

import "strings"

// What Postfix accepts in a TLS policy, up to version 3.10: postconf(5)
// smtp_tls_policy_maps, TLS_README "Client TLS security levels".

func levels() []string {
	return []string{"none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure"}
}

type policyAttribute struct {
	name   string
	levels []string // where Postfix accepts it; nil: everywhere but with none
	values []string // nil: any
	once   bool
	empty  bool // the empty value means something
}

func attributes() []policyAttribute {
	yesNo := []string{"yes", "no"}
	return []policyAttribute{
		{name: "match", levels: []string{"fingerprint", "verify", "secure"}},
		{name: "servername", once: true}, // Postfix 3.4
		{name: "protocols", once: true, empty: true},
		{name: "ciphers", once: true, values: []string{"high", "medium", "low", "export", "null"}},
		{name: "exclude", once: true, empty: true},
		{name: "tafile", levels: []string{"verify", "secure"}},
		{name: "connection_reuse", values: yesNo}, // Postfix 3.4
		{name: "enable_rpk", values: yesNo},       // Postfix 3.9
	}
}

func attribute(name string) (policyAttribute, bool) {
	for _, a := range attributes() {
		if a.name == name {
			return a, true
		}
	}
	return policyAttribute{}, false
}

func attributeNames() string {
	var names []string
	for _, a := range attributes() {
		names = append(names, a.name)
	}
	return strings.Join(names, ", ")
}

// Attributes that Postfix 3.10 added for policies that come from outside
// (TLSRPT_README).
func tlsrptAttributes() []string {
	return []string{"policy_type", "policy_domain", "policy_string", "policy_ttl", "policy_failure", "mx_host_pattern"}
}
