package audit

import (
	"encoding/json"
	"testing"
)

func TestWorst(t *testing.T) {
	for name, c := range map[string]struct {
		grades []Grade
		want   Grade
	}{
		"nothing was found":               {nil, OK},
		"all well":                        {[]Grade{OK, OK}, OK},
		"a warning":                       {[]Grade{OK, Warn, OK}, Warn},
		"what is unknown does not pass":   {[]Grade{Warn, Unknown}, Unknown},
		"a failure is worse than unknown": {[]Grade{Unknown, Fail, Warn}, Fail},
		"the order does not count":        {[]Grade{Fail, Unknown}, Fail},
	} {
		t.Run(name, func(t *testing.T) {
			var topics []Topic
			for _, g := range c.grades {
				topics = append(topics, Topic{Findings: []Finding{{Grade: g}}})
			}
			if got := Worst(topics); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Code: "a-b", Grade: Unknown})
	if want := `{"code":"a-b","grade":"unknown","subject":"","text":"","evidence":"","advice":"","fix":""}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := json.Marshal(Finding{}); err == nil {
		t.Error("a finding without a grade was written")
	}
}
