package admin

import "testing"

// What an audit of the host asks a daemon.
func TestBuildAndStore(t *testing.T) {
	d := start(t)
	if b, err := d.client.Build(t.Context()); err != nil || b.Version != "1.2.3" {
		t.Errorf("got %+v, %v", b, err)
	}
	if state, err := d.client.Store(t.Context()); err != nil || state != "" {
		t.Errorf("got %q, %v, want nothing to be wrong", state, err)
	}
	// Whatever else is not ready: this is about the database.
	d.listening.Store(false)
	if state, err := d.client.Store(t.Context()); err != nil || state != "" {
		t.Errorf("got %q, %v, want nothing to be wrong with the database", state, err)
	}
	if err := d.store.Close(); err != nil {
		t.Fatal(err)
	}
	if state, err := d.client.Store(t.Context()); err != nil || state != "store is closed" {
		t.Errorf("got %q, %v", state, err)
	}
	if _, err := NewClient(d.socket + ".none").Store(t.Context()); err == nil {
		t.Error("somebody answers where nobody is")
	}
}
