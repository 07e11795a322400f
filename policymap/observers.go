package policymap

import "time"

// Observers tells several observers, in order.
type Observers []Observer

// Answered implements Observer.
func (all Observers) Answered(tlsrpt bool, level Level, origin Origin) {
	for _, o := range all {
		o.Answered(tlsrpt, level, origin)
	}
}

// Resolved implements Observer.
func (all Observers) Resolved(r Resolution) {
	for _, o := range all {
		o.Resolved(r)
	}
}

// Changed implements Observer.
func (all Observers) Changed(c Change) {
	for _, o := range all {
		o.Changed(c)
	}
}

// Fetched implements Observer.
func (all Observers) Fetched(domain string, background bool, took time.Duration, err error) {
	for _, o := range all {
		o.Fetched(domain, background, took, err)
	}
}

// Refreshed implements Observer.
func (all Observers) Refreshed(domain string, outcome Outcome) {
	for _, o := range all {
		o.Refreshed(domain, outcome)
	}
}

// StoreFailed implements Observer.
func (all Observers) StoreFailed(domain string, err error) {
	for _, o := range all {
		o.StoreFailed(domain, err)
	}
}

// ClockStepped implements Observer.
func (all Observers) ClockStepped(by time.Duration) {
	for _, o := range all {
		o.ClockStepped(by)
	}
}

var _ Observer = Observers(nil)
