package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every code of doctor has a place, and only those: a new one is either provoked
// by an end-to-end test or has a reason why not. The end-to-end tests hold the
// places against what they have seen.
func TestDoctorCodesHavePlaces(t *testing.T) {
	source, err := os.ReadFile("../../cmd/tlspolicyd/internal/audit/doctor/codes.go")
	if os.IsNotExist(err) { // run.sh runs the tests from the top
		source, err = os.ReadFile("cmd/tlspolicyd/internal/audit/doctor/codes.go")
	}
	if err != nil {
		t.Fatal(err)
	}
	places := doctorPlaces()
	known := regexp.MustCompile(`(?m)^\t\w+ += "([a-z-]+)"$`).FindAllStringSubmatch(string(source), -1)
	if len(known) != strings.Count(string(source), ` = "`) || len(known) == 0 {
		t.Fatalf("codes.go has lines that are not understood: %d codes", len(known))
	}
	for _, code := range known {
		if _, placed := places[code[1]]; !placed {
			t.Errorf("%s: provoke it in doctor_*_test.go, or say in doctor_codes_test.go why that cannot be", code[1])
		}
		delete(places, code[1])
	}
	for code := range places {
		t.Errorf("there is no code %s", code)
	}
}
