//go:build e2e

package e2e

import (
	"crypto/tls"
	"net"
	"time"
)

const webDir = workDir + "/web"

// policyHosts is nginx.
type policyHosts struct {
	root string
	proc *process
}

// newPolicyHosts has nginx serve the policy files, each under a certificate of
// its own.
func newPolicyHosts(root string, ca *authority, files []policy) (*policyHosts, error) {
	config := `
daemon off;
pid ` + webDir + `/nginx.pid;
error_log stderr info;
worker_processes 1;
events { worker_connections 256; }
http {
  access_log ` + logDir + `/nginx-access.log;
  types { text/plain txt; }
  client_body_temp_path ` + webDir + `/tmp-body;
  proxy_temp_path       ` + webDir + `/tmp-proxy;
  fastcgi_temp_path     ` + webDir + `/tmp-fastcgi;
  uwsgi_temp_path       ` + webDir + `/tmp-uwsgi;
  scgi_temp_path        ` + webDir + `/tmp-scgi;
`
	server := func(address, domain, certName, location string) error {
		pair, err := ca.certificate(certName)
		if err != nil {
			return err
		}
		config += "server { listen " + address + ":443 ssl; server_name mta-sts." + domain + ";" +
			" ssl_certificate " + webDir + "/" + domain + ".pem;" +
			" ssl_certificate_key " + webDir + "/" + domain + ".pem;" + location + " }\n"
		return write(webDir+"/"+domain+".pem", pair.pem)
	}
	for _, f := range files {
		address, certName := policyHost, "mta-sts."+f.domain
		if f.domain == "wrongcert.open.test" {
			address, certName = wrongPolicyHost, "unrelated.invalid"
		}
		if err := server(address, f.domain, certName, " root "+webDir+"/"+f.domain+";"); err != nil {
			return nil, err
		}
		if err := f.publish(); err != nil {
			return nil, err
		}
	}
	// RFC 8461 §3.3: a redirect is not followed, even to a policy that is right.
	redirect := " return 301 https://mta-sts.sts.open.test$request_uri;"
	if err := server(policyHost, "redirect.open.test", "mta-sts.redirect.open.test", redirect); err != nil {
		return nil, err
	}
	if err := write(webDir+"/nginx.conf", config+"}\n"); err != nil {
		return nil, err
	}
	return &policyHosts{root: root}, nil
}

// publish puts the policy where nginx reads it.
func (p policy) publish() error {
	return write(webDir+"/"+p.domain+"/.well-known/mta-sts.txt", p.text)
}

func (h *policyHosts) start() (err error) {
	h.proc, err = start(h.root, 0, "/usr/sbin/nginx", "-e", "stderr", "-c", webDir+"/nginx.conf")
	if err != nil {
		return err
	}
	return waitFor(func() error {
		dialer := &net.Dialer{Timeout: time.Second}
		conn, err := tls.DialWithDialer(dialer, "tcp", policyHost+":443", &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
		}
		return err
	})
}
