package doctor

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is a Postfix release; a snapshot such as "3.11-20250304" has no patch
// level, and is counted as the first one of its release.
type Version struct{ Major, Minor, Patch int }

// parseVersion reads mail_version.
func parseVersion(s string) (Version, error) {
	numbers, _, _ := strings.Cut(s, "-")
	parts := strings.Split(numbers, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return Version{}, fmt.Errorf("%q is no version of Postfix", oneLine(s))
	}
	var n [3]int
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 16)
		if err != nil {
			return Version{}, fmt.Errorf("%q is no version of Postfix", oneLine(s))
		}
		n[i] = int(v)
	}
	return Version{n[0], n[1], n[2]}, nil
}

// atLeast reports whether v is that release or a later one.
func (v Version) atLeast(major, minor, patch int) bool {
	switch {
	case v.Major != major:
		return v.Major > major
	case v.Minor != minor:
		return v.Minor > minor
	}
	return v.Patch >= patch
}

// String is "3.10.5".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }
