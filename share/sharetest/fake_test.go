package sharetest

import (
	"testing"

	"tlspolicyd/share"
)

func TestEngine(t *testing.T) {
	Run(t, func(*testing.T) func(string, share.Keys) share.Fleet {
		e := NewEngine()
		return func(host string, keys share.Keys) share.Fleet { return e.Member(host, keys) }
	})
}
