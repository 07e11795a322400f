package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"tlspolicyd/policymap"
	"tlspolicyd/policymap/policy"
)

// maxChanges bounds, in bytes, the file and what of it is in memory.
const maxChanges = 1 << 20

// Changes keeps the changes of policies and DANE states in a file of JSON lines
// beside the database. It is an Observer. The file is written in the background: a
// disk that fails costs the history, and no lookup waits for it.
type Changes struct {
	policymap.Observers // all other events are ignored

	path string
	log  *slog.Logger

	mu        sync.Mutex
	list      []Change // the oldest first
	size      int      // of list, in bytes of the file
	unwritten int      // the last of list
	rewrite   bool     // the file has more than list, or is broken

	wake chan struct{}
	done chan struct{}
}

// NewChanges reads the file at path, if there is one. It must be closed.
func NewChanges(path string, log *slog.Logger) *Changes {
	c := &Changes{path: path, log: log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if f, err := os.Open(path); err == nil {
		text, _ := io.ReadAll(io.LimitReader(f, 2*maxChanges)) // what can be read of it
		f.Close()
		for line := range bytes.Lines(text) {
			var one Change
			if json.Unmarshal(line, &one) != nil {
				c.rewrite = true // the end of the last line is missing after a crash
				continue
			}
			c.list = append(c.list, one)
			c.size += len(line)
		}
		c.trim()
	}
	go c.write()
	return c
}

// Changed implements policymap.Observer.
func (c *Changes) Changed(change policy.Change) {
	one := Change{
		At: time.Now().UTC().Truncate(time.Second), Key: change.Key, What: change.What,
		Old: change.Old, New: change.New, Weaker: change.Weaker,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, one)
	c.size += len(one.line())
	c.unwritten++
	c.trim()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// trim drops the oldest changes when there are too many. The last quarter to go is
// only for those that made something weaker: they are not pushed out by others.
func (c *Changes) trim() {
	if c.size <= maxChanges {
		return
	}
	first, size := len(c.list), 0
	var kept []Change // the newest first
	for first > 0 {
		first--
		one := c.list[first]
		n := len(one.line())
		if size+n <= maxChanges/2 || one.Weaker && size+n <= maxChanges*3/4 {
			kept = append(kept, one)
			size += n
		}
	}
	c.list = c.list[:0]
	for i := len(kept) - 1; i >= 0; i-- {
		c.list = append(c.list, kept[i])
	}
	c.size, c.rewrite = size, true
}

func (c Change) line() []byte {
	text, _ := json.Marshal(c) // there is nothing in it that cannot be written
	return append(text, '\n')
}

// List returns the changes of a domain, or all, the oldest first.
func (c *Changes) List(domain string) []Change {
	c.mu.Lock()
	list := slices.Clone(c.list) // Changed does not wait for the rest
	c.mu.Unlock()
	return slices.DeleteFunc(list, func(one Change) bool { return domain != "" && domainOfKey(one.Key) != domain })
}

// domainOfKey returns the policy domain of a next hop.
func domainOfKey(key string) string {
	if hop, ok := policy.ParseNextHop(key); ok {
		return hop.Domain
	}
	return key
}

// Close writes what waits. Changed must not be called any more.
func (c *Changes) Close() {
	close(c.wake)
	<-c.done
}

func (c *Changes) write() {
	defer close(c.done)
	failed := false
	for range c.wake {
		err := c.flush()
		if err != nil && !failed {
			c.log.Warn("the history of policy changes cannot be written", "reason", err)
		}
		failed = err != nil
	}
	_ = c.flush() // reported already
}

// flush appends what is new, or writes the whole file anew.
func (c *Changes) flush() error {
	c.mu.Lock()
	rewrite, from := c.rewrite, len(c.list)-c.unwritten
	if rewrite {
		from = 0
	}
	var text bytes.Buffer
	for _, one := range c.list[from:] {
		text.Write(one.line())
	}
	c.rewrite, c.unwritten = false, 0
	c.mu.Unlock()
	if text.Len() == 0 {
		return nil
	}
	err := c.save(text.Bytes(), rewrite)
	if err != nil {
		c.mu.Lock()
		c.rewrite = true
		c.mu.Unlock()
	}
	return err
}

func (c *Changes) save(text []byte, rewrite bool) error {
	path, flags := c.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND
	if rewrite {
		path, flags = c.path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil && rewrite {
		err = os.Rename(path, c.path)
	}
	return err
}
