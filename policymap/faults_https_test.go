package policymap

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"tlspolicyd/testing/lab"
)

// httpsOutages are the ways in which a policy host can fail, or be hostile.
// None of them costs more than the policy: a failed fetch is an absence (8461
// §3.3), and what is known goes on applying.
func httpsOutages() []outage {
	bomb := bomb()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
	const chunked = head + "Transfer-Encoding: chunked\r\n\r\n"
	all := []outage{
		{name: "connection refused", host: lab.HostFault{Refuse: true}},
		{name: "connect: no answer", host: lab.HostFault{Stall: lab.AtConnect}, wait: fetchWait},
		{name: "TLS handshake: no answer", host: lab.HostFault{Stall: lab.AtHandshake}, wait: fetchWait},
		{name: "header: no answer", host: lab.HostFault{Stall: lab.AtHeaders}, wait: fetchWait},
		{name: "body: stops half way", host: lab.HostFault{Stall: lab.AtBody}, wait: fetchWait},
		{name: "closes at the TLS handshake", host: lab.HostFault{Hangup: lab.AtHandshake}},
		{name: "closes before the header", host: lab.HostFault{Hangup: lab.AtHeaders}},
		{name: "closes in the middle of the header", host: lab.HostFault{Raw: head}},
		{name: "closes in the middle of the body", host: lab.HostFault{CloseEarly: true}},

		{name: "speaks SSH in the place of TLS", host: lab.HostFault{NoTLS: "SSH-2.0-OpenSSH_9.2\r\n"}},
		{name: "TLS 1.1", host: lab.HostFault{TLSMax: tls.VersionTLS11}},
		{name: "certificate for another name", host: lab.HostFault{Cert: lab.WrongName}},
		{name: "certificate expired", host: lab.HostFault{Cert: lab.Expired}},
		{name: "certificate signed by itself", host: lab.HostFault{Cert: lab.SelfSigned}},
		{name: "certificate of 200 KiB", host: lab.HostFault{Cert: lab.Bulky}, bytes: 320 * kib},

		{name: "header, a byte a second", host: lab.HostFault{Raw: head + "\r\n", Drip: time.Second}, wait: fetchWait},
		{name: "body, a byte a second", host: lab.HostFault{Drip: 1010 * time.Millisecond}, wait: fetchWait},
		{name: "header fields without end", host: lab.HostFault{EndlessHeader: true}},
		{name: "a header line without end", host: lab.HostFault{Raw: head + "X: ", Endless: strings.Repeat("x", 4096)}},
		{name: "20,000 header fields", host: lab.HostFault{Raw: head + strings.Repeat("a: b\r\n", 20000) + "\r\n"}},
		{name: "interim responses without end", host: lab.HostFault{Raw: "HTTP/1.1 103 Early Hints\r\n\r\n", Endless: "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"}},
		{name: "a status line that is none", host: lab.HostFault{Raw: "HTTP/1.1 OK 200\r\n\r\n" + enforce}},
		{name: "a policy without header", host: lab.HostFault{Raw: enforce + "\r\n\r\n"}},

		{name: "1 GiB", host: lab.HostFault{Size: 1 << 30}},
		{name: "1 GiB without length", host: lab.HostFault{Size: 1 << 30, NoLength: true}},
		{name: "1 GiB in chunks", host: lab.HostFault{Raw: chunked, Endless: "1000\r\n" + strings.Repeat("x", 0x1000) + "\r\n"}},
		{name: "chunks of one byte without end", host: lab.HostFault{Raw: chunked, Endless: strings.Repeat("1\r\nx\r\n", 1000)}, bytes: 512 * kib},
		{name: "a chunk size that is no number", host: lab.HostFault{Raw: chunked + "policy\r\n" + enforce + "\r\n0\r\n\r\n"}},
		{name: "a chunk size of 2^64", host: lab.HostFault{Raw: chunked + "10000000000000000\r\n" + enforce}},
		{name: "a negative chunk size", host: lab.HostFault{Raw: chunked + "-1\r\n" + enforce}},
		{name: "a chunk extension without end", host: lab.HostFault{Raw: chunked + "5;x=", Endless: strings.Repeat("x", 4096)}},
		{name: "trailers without end", host: lab.HostFault{Raw: chunked + "0\r\n", Endless: strings.Repeat("X: y\r\n", 1000)}},
		{name: "the last chunk never comes", host: lab.HostFault{Raw: chunked + "5\r\nversi\r\n", Stall: lab.AtBody}, wait: fetchWait},
		{name: "a negative length", host: lab.HostFault{Raw: head + "Content-Length: -1\r\n\r\n" + enforce}},
		{name: "two lengths", host: lab.HostFault{Raw: head + "Content-Length: 10\r\nContent-Length: 20\r\n\r\n" + enforce}},
		{name: "no length, and the connection cut", host: lab.HostFault{Raw: head + "\r\n" + enforce}},
		{name: "a length of 5 TB", host: lab.HostFault{Raw: head + "Content-Length: 5000000000000\r\n\r\n" + enforce}},

		{name: "gzip, said so", host: lab.HostFault{Gzip: true}},
		{name: "gzip bomb of 64 MiB, said so", host: lab.HostFault{Raw: head + "Content-Encoding: gzip\r\n\r\n" + bomb}},
		{name: "gzip bomb of 64 MiB, not said", host: lab.HostFault{Raw: head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(bomb)) + bomb}},
		{name: "redirect to itself", host: lab.HostFault{Redirect: "https://mta-sts.plain.test/.well-known/mta-sts.txt"}},
		{name: "redirect into the operator's network", host: lab.HostFault{Redirect: "http://127.0.0.1/", Status: 307}},
		{name: "status 404", host: lab.HostFault{Status: 404}},
		{name: "status 206", host: lab.HostFault{Status: 206}},
		{name: "status 500", host: lab.HostFault{Status: 500}},
		{name: "media type text/html", host: lab.HostFault{MediaType: "text/html"}},
		{name: "no media type", host: lab.HostFault{MediaType: "-"}},
		{name: "two media types", host: lab.HostFault{Header: http.Header{"Content-Type": {"text/html", "text/plain"}}}},
	}
	for i := range all {
		o := &all[i]
		o.reply, o.back = "NOTFOUND ", httpsBack
		if o.bytes == 0 {
			o.bytes = 128 * kib
		}
	}
	return all
}

// bomb is 64 MiB of nothing, compressed.
func bomb() string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.CopyN(z, zeros{}, 64<<20)
	_ = z.Close()
	return b.String()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
