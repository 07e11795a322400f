package doctor

import (
	"time"

	"tlspolicyd/cmd/tlspolicyd/internal/audit"
)

func judgeClock(f Facts) []audit.Finding {
	c := f.Clock
	now := c.Now.UTC().Format(time.RFC3339)
	sync := f.Units.systemctl("enable --now systemd-timesyncd")
	switch year := c.Now.UTC().Year(); {
	case year < 2026 || year > 2100: // this program is not older, nor will it be that old
		return []audit.Finding{fail(ClockWrong, "", "The clock cannot be right: certificates, signatures and policies seem to have expired, or not to be valid yet.",
			now, "Set it, and keep it right with chrony, ntpd or systemd-timesyncd.", sync)}
	case c.Untold != "":
		return []audit.Finding{unknown(ClockUntold, "", "Whether the clock is kept right could not be told.", c.Untold, "Hold it against another: "+now+".")}
	case !c.Synchronised:
		return []audit.Finding{warn(ClockUnsynchronised, "", "Nothing keeps the clock right, as far as the kernel knows: certificates and signatures are judged by it.",
			now, "Run chrony, ntpd or systemd-timesyncd.", sync)}
	}
	return []audit.Finding{ok(ClockRight, "", "The kernel says that the clock is synchronised.", now)}
}
