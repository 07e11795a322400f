package config

import (
	"maps"
	"reflect"
)

// Changes returns the keys of the settings in which two configurations differ,
// in the order in which they are shown. The overrides count as one key.
func Changes(old, new Config) []string {
	var keys []string
	before, after := old.settings(), new.settings()
	for i := range before {
		if !reflect.DeepEqual(before[i].get(), after[i].get()) {
			keys = append(keys, before[i].key)
		}
	}
	if !maps.Equal(old.Override, new.Override) || !maps.Equal(old.FileOverride, new.FileOverride) {
		keys = append(keys, overrideSection)
	}
	return keys
}
