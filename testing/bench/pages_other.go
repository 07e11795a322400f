//go:build !linux

package main

import "errors"

func dropPages(string) error { return errors.New("the figures are made on Linux only") }
