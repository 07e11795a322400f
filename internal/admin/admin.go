// Package admin is the operator's side of the daemon.
package admin

import _ "github.com/prometheus/client_golang/prometheus/promhttp"
