//go:build linux

package soak

import "os"

// longEnv makes the tests run in their long form.
const longEnv = "TLSPOLICYD_SOAK"

// scale returns the first number in the short form, the second in the long one.
func scale[T any](short, long T) T {
	if os.Getenv(longEnv) != "" {
		return long
	}
	return short
}
