package projector

import (
	"container/list"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// stored is a stream as Postgres has it: its last version and, in an entity view, its row.
type stored struct {
	version event.Version
	row     projection.Row // the columns after the key; nil where a view keeps versions only
	exists  bool           // the row is there
}

// rowCache keeps what this worker itself wrote or read, up to a bound, the least used going
// first. It is only true while the worker owns the partition: it is made anew at each assignment
// and dropped when a compare-and-set is lost (PROTOCOL P4). It belongs to one goroutine.
type rowCache struct {
	max     int
	entries map[string]*list.Element
	order   *list.List // front: used last
}

type cacheEntry struct {
	key   string
	value stored
}

func newRowCache(rowsMax int) *rowCache {
	return &rowCache{max: rowsMax, entries: map[string]*list.Element{}, order: list.New()}
}

func (c *rowCache) get(key string) (stored, bool) {
	e, ok := c.entries[key]
	if !ok {
		return stored{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry).value, true
}

func (c *rowCache) put(key string, value stored) {
	if e, ok := c.entries[key]; ok {
		e.Value.(*cacheEntry).value = value
		c.order.MoveToFront(e)
		return
	}
	c.entries[key] = c.order.PushFront(&cacheEntry{key: key, value: value})
	for len(c.entries) > c.max {
		c.drop(c.order.Back().Value.(*cacheEntry).key)
	}
}

func (c *rowCache) drop(key string) {
	if e, ok := c.entries[key]; ok {
		c.order.Remove(e)
		delete(c.entries, key)
	}
}

func (c *rowCache) clear() {
	clear(c.entries)
	c.order.Init()
}
