package check

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"tlspolicyd/internal/printable"
)

const (
	maxQuote = 150 // bytes of an untrusted text in a finding
	maxList  = 6   // items of a list in a finding
)

// oneLine makes untrusted text printable, for a finding.
func oneLine[T ~string | ~[]byte](s T) string { return printable.Line(s, maxQuote) }

// sentence makes a sentence of the reason of an error.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return string(unicode.ToUpper(rune(s[0]))) + s[1:]
}

// list joins the first items of a list of untrusted texts.
func list(items []string) string {
	var shown []string
	for _, item := range items[:min(len(items), maxList)] {
		shown = append(shown, oneLine(item))
	}
	text := strings.Join(shown, ", ")
	if more := len(items) - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// number is "1 mail host" or "3 mail hosts".
func number(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// issuerText names the issuer of a certificate, which may be empty.
func issuerText(name string) string {
	if name == "" {
		return "an issuer without a name"
	}
	return oneLine(name)
}

func daysLeft(end, now time.Time) int { return int(math.Floor(end.Sub(now).Hours() / 24)) }

// leftText says how long a certificate is valid.
func leftText(end, now time.Time) string {
	switch n := daysLeft(end, now); {
	case !now.Before(end):
		return "expired " + end.UTC().Format(time.DateOnly)
	case end.Sub(now) < 2*time.Hour:
		return fmt.Sprintf("expires in %d minutes, at %s", int(end.Sub(now).Minutes()), end.UTC().Format(time.RFC3339))
	case n < 2:
		return fmt.Sprintf("expires in %d hours, at %s", int(end.Sub(now).Hours()), end.UTC().Format(time.RFC3339))
	default:
		return fmt.Sprintf("expires %s, %d days left", end.UTC().Format(time.DateOnly), n)
	}
}

// expiresSoon is when a certificate should have been renewed: two weeks before its
// end, or a fifth of its life where that is shorter.
func expiresSoon(begin, end, now time.Time) bool {
	return end.Sub(now) < min(14*24*time.Hour, end.Sub(begin)/5)
}

func ageText(d time.Duration) string {
	const day = 24 * time.Hour
	if d < 2*day {
		return fmt.Sprintf("%d s", int64(d/time.Second))
	}
	return fmt.Sprintf("%d s (%d days)", int64(d/time.Second), int64(d/day))
}
