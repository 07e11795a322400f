// Command tlspolicyd answers Postfix which TLS policy to use for a next hop.
package main

import (
	"context"
	"os"
)

func main() {
	stop := startProfile()
	status := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}
