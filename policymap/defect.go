package policymap

import "tlspolicyd/internal/defect"

// DefectObserver is an Observer that wants to know of defects too.
type DefectObserver interface {
	Observer
	// Panicked is called when a look at a next hop or domain ended in a defect
	// of this program. The stack is that of the goroutine where it happened.
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

var _ DefectObserver = Observers(nil)
