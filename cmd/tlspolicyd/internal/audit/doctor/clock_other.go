//go:build !linux

package doctor

import "errors"

func kernelSynchronised() (bool, error) {
	return false, errors.New("only looked at on Linux")
}
