package mtasts

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// noProxy is what the environment names as a proxy in all tests: nothing
// answers there, so a fetch that goes by the environment fails. net/http reads
// the environment once in a process, so one test could not set it.
const noProxy = "http://127.0.0.1:1"

func TestMain(m *testing.M) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		os.Setenv(name, noProxy)
	}
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}
