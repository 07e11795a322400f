package dnsclient

import "github.com/miekg/dns"

// TXT returns the strings of one TXT record joined without a space, byte for
// byte as they were on the wire (RFC 8461 §3.1 asks for exactly that). The DNS
// library hands strings out in the escaped form of a zone file, where `\DDD`
// is a byte in decimal and `\X` is X itself (RFC 1035 §5.1).
func TXT(rr *dns.TXT) []byte {
	var out []byte
	for _, s := range rr.Txt {
		out = appendUnescaped(out, s)
	}
	return out
}

func appendUnescaped(out []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		switch {
		case i == len(s): // a lone backslash at the end escapes nothing
		case i+2 < len(s) && digit(s[i]) && digit(s[i+1]) && digit(s[i+2]):
			out = append(out, (s[i]-'0')*100+(s[i+1]-'0')*10+(s[i+2]-'0'))
			i += 2
		default:
			out = append(out, s[i])
		}
	}
	return out
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
