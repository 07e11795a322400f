//go:build !linux

package doctor

import "errors"

func kernelSynchronized() (bool, error) { return false, errors.New("only checked on Linux") }
