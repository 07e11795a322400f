package socketmap

import "time"

// deadline is the read or the write deadline of a connection. Setting one costs
// a timer and a lock in the runtime, so it is set a quarter further ahead than
// asked for and then left alone until that quarter is used up: a busy
// connection does not set it for each request.
type deadline struct {
	set func(time.Time) error
	at  time.Duration // since the server's epoch
}

// extend makes sure that the deadline is at least limit away.
func (d *deadline) extend(now, limit time.Duration) error {
	if d.at-now >= limit && d.at-now <= limit+limit/4 {
		return nil
	}
	return d.setIn(now, limit+limit/4)
}

// setIn sets the deadline to exactly limit from now.
func (d *deadline) setIn(now, limit time.Duration) error {
	d.at = now + limit
	return d.set(time.Now().Add(limit))
}
