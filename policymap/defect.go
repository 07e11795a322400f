package policymap

import "tlspolicyd/internal/defect"

// DefectObserver is an Observer that wants to know of defects too.
type DefectObserver interface {
	Observer
	// Panicked is called when a look at a next hop or domain, or other work on
	// what is known of it, ended in a defect of this program; the key is empty
	// where that was no one domain's. The stack is that of the goroutine where it
	// happened.
	Panicked(key string, err *defect.Error)
}

// Panicked implements DefectObserver, for those of all that do.
func (all Observers) Panicked(key string, err *defect.Error) {
	for _, o := range all {
		if o, ok := o.(DefectObserver); ok {
			o.Panicked(key, err)
		}
	}
}

// panicked tells of what a look recovered from, and returns it as its error.
func (m *Map) panicked(key string, recovered any) error {
	err := defect.From(recovered)
	if o, ok := m.observer.(DefectObserver); ok {
		o.Panicked(key, err)
	}
	return err
}

// contain runs work on what is known of a domain. A defect that it meets is
// told of and returned, and whoever does the same for other domains goes on.
func (m *Map) contain(domain string, work func()) (met error) {
	defer func() {
		if r := recover(); r != nil {
			met = m.panicked(domain, r)
		}
	}()
	work()
	return nil
}

var _ DefectObserver = Observers(nil)
