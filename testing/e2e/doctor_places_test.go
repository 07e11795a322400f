package e2e

import (
	"os"
	"regexp"
	"testing"
)

// Every code of doctor has a place, and only those: a new one is either provoked
// by an end-to-end test or has a reason why not. The end-to-end tests compare the
// places with what they have seen.
func TestDoctorCodesHavePlaces(t *testing.T) {
	text, err := os.ReadFile("../../docs/doctor.md")
	if os.IsNotExist(err) { // run.sh runs the tests from the top
		text, err = os.ReadFile("docs/doctor.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	places := doctorPlaces()
	for _, code := range regexp.MustCompile("(?m)^\\| `([a-z0-9-]+)` \\| (?:ok|warn|fail|unknown)\\b").FindAllStringSubmatch(string(text), -1) {
		if _, placed := places[code[1]]; !placed {
			t.Errorf("%s: provoke it in doctor_*_test.go, or say in doctor_codes_test.go why that cannot be", code[1])
		}
		delete(places, code[1])
	}
	for code := range places {
		t.Errorf("there is no code %s", code)
	}
}
