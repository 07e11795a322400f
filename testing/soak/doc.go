// Package soak holds no program: its tests take the real daemon, as a process of
// its own, to where everything around it fails. It is killed under load, its
// disk fills up, its file descriptors run out, one client floods it. The network
// is testing/lab on real sockets of the loopback interface.
//
// Each test has a short form, which `go test ./...` runs, and a long one, the
// same code with larger numbers, which `make soak` runs: see scale_test.go.
//
// Faults below the program come from the kernel and not from fakes: resource
// limits, a small tmpfs in a mount namespace, and system calls that a seccomp
// filter hands over to the test, which delays them or lets them fail
// (intercept_test.go); all of that is Linux. What is measured goes into docs/faults.md (faults_test.go).
package soak
