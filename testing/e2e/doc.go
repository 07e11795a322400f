// Package e2e holds the end-to-end tests: the daemon between real servers. A
// Postfix of Debian 12 and one of Debian 13, both with smtp(8) chrooted, ask it
// for policies and send real messages to a receiving Postfix; NSD serves zones
// signed by ldns-signzone, Unbound validates them, nginx serves the policies.
//
// Everything runs inside mount, network and process namespaces of the test, on
// addresses of 127.0.0.0/8: ports 25, 53 and 443 are free there, no packet and
// no file gets out, and the end of the test is the end of every process.
//
// The tests have the build tag e2e and need root and the folders that run.sh
// makes: use make e2e.
package e2e
