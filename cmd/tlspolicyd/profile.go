//go:build profile

package main

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// profileEnv names the file for the CPU profile of a whole run. Only a build
// with the tag "profile" knows it: default.pgo is made of that (make pgo).
const profileEnv = "TLSPOLICYD_PROFILE"

// startProfile returns what ends the profile.
func startProfile() (stop func()) {
	path := os.Getenv(profileEnv)
	if path == "" {
		return func() {}
	}
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "profile:", err)
		}
	}
}
