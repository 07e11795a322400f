package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// dropPages has the kernel forget what it holds of a file in memory.
func dropPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
}
