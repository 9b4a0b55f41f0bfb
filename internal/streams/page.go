package streams

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/foldstream/foldstream/pkg/event"
)

// Taker takes the events of a page one by one, while they are read: a page of ten thousand then
// needs no more memory than what is made of it.
type Taker interface {
	// Begin says that the page's events follow. A read that waits may begin more than once; what
	// was taken before does not count then.
	Begin()
	// Take takes an event, which is good until Take returns. An error ends the read, which returns
	// it; ErrPageFull says that the event was taken, and that the page ends behind it. A connection
	// to Postgres waits meanwhile.
	Take(e *event.Recorded) error
}

// ErrPageFull is what a Taker says to end a page.
var ErrPageFull = errors.New("page is full")

// LoadInto is Load with the events given to a Taker; the page's Events are nil. Only if it returns
// no error are the events that it gave the page.
func (s *Store) LoadInto(ctx context.Context, q Query, taker Taker) (Page, error) {
	began := s.cfg.Clock()
	page, err := s.load(ctx, q, taker)
	s.observe("load", began, err)
	return page, err
}

// Load reads events of a stream. A page ends before its limit only where PageBytesMax is reached;
// Next is then set.
func (s *Store) Load(ctx context.Context, q Query) (Page, error) {
	var all collected
	page, err := s.LoadInto(ctx, q, &all)
	if err == nil {
		page.Events = all.events
	}
	return page, err
}

// collected is a Taker that keeps the events. Values share blocks.
type collected struct {
	events []event.Recorded
	block  []byte
}

const blockBytes = 64 << 10

// Begin implements Taker.
func (c *collected) Begin() { *c = collected{} }

// Take implements Taker.
func (c *collected) Take(e *event.Recorded) error {
	kept := *e
	kept.Value = c.keep(e.Value)
	if e.Extra != nil {
		kept.Extra = make([]event.Header, len(e.Extra))
		for i, h := range e.Extra {
			kept.Extra[i] = event.Header{Key: h.Key, Value: c.keep(h.Value)}
		}
	}
	c.events = append(c.events, kept)
	return nil
}

func (c *collected) keep(raw []byte) []byte {
	if raw == nil {
		return nil
	}
	if len(raw) > cap(c.block)-len(c.block) {
		c.block = make([]byte, 0, max(blockBytes, len(raw)))
	}
	n := len(c.block)
	c.block = append(c.block, raw...)
	return c.block[n:len(c.block):len(c.block)]
}

// paging gives the events of a page to its Taker and proves that no version is missing, neither
// between them nor at the page's ends.
type paging struct {
	q     Query
	place place
	taker Taker

	step  event.Version
	want  event.Version // the version that must be next
	given int
	cut   bool  // there may be more
	fault error // a version that is missing, or the Taker's error
}

func newPaging(p place, q Query, taker Taker) *paging {
	g := &paging{q: q, place: p, taker: taker, step: 1, want: max(q.From, 1)}
	if q.Backward {
		g.step = -1
		if q.From <= 0 {
			g.want = math.MaxInt64
		}
	}
	return g
}

// give returns errEnough where no more events are wanted; why is in the paging.
func (g *paging) give(e *event.Recorded) error {
	if g.done() {
		return errEnough
	}
	if e.Version != g.want {
		g.fault = g.missing(e.Offset, e.Version)
		return errEnough
	}
	g.want += g.step
	g.given++
	switch err := g.taker.Take(e); {
	case errors.Is(err, ErrPageFull):
		g.cut = true
	case err != nil:
		g.fault = err
		return errEnough
	}
	return nil
}

func (g *paging) done() bool { return g.cut || g.fault != nil || g.given >= g.q.Limit }

func (g *paging) missing(offset int64, beside event.Version) error {
	return &LogError{Topic: g.place.topic, Partition: g.place.partition, Offset: offset, Stream: g.q.Stream, Reason: missing(g.want, beside)}
}

// finish returns the From of the next page; 0 when there is none.
func (g *paging) finish(last event.Version) (event.Version, error) {
	switch {
	case g.fault != nil:
		return 0, g.fault
	case g.want < 1 || g.want > last:
		return 0, nil // to the stream's end
	case !g.cut && g.given < g.q.Limit:
		return 0, g.missing(-1, g.want-g.step)
	}
	return g.want, nil
}

func missing(want, next event.Version) string {
	return fmt.Sprintf("the index lacks version %d beside version %d: were months of the view %s detached? Attach them, or rebuild the view", want, next, eventsView)
}

// loadOnce reads a page, and says up to where it has read the log.
func (s *Store) loadOnce(ctx context.Context, p place, q Query, taker Taker) (Page, int64, error) {
	g := newPaging(p, q, taker)
	taker.Begin()
	read := s.loadForward
	if q.Backward {
		read = s.loadBackward
	}
	v, err := read(ctx, p, g)
	if err != nil {
		return Page{}, v.end, err
	}
	page := Page{Stream: q.Stream, Version: v.version()}
	if page.Version == 0 {
		return page, v.end, fmt.Errorf("%w: %s", ErrNoStream, q.Stream)
	}
	page.Next, err = g.finish(page.Version)
	return page, v.end, err
}

// loadForward gives the index's rows as they come, then the tail's events.
func (s *Store) loadForward(ctx context.Context, p place, g *paging) (view, error) {
	var more []query
	rows := eventRows{place: p, stream: g.q.Stream, take: g.give}
	if s.index != nil {
		more = append(more, s.index.eventsQuery(&rows, g.want, math.MaxInt64, g.q.Limit))
	}
	v, err := s.look(ctx, p, g.q.Stream, more...)
	if err != nil {
		return v, err
	}
	g.cut = g.cut || rows.cut
	for i := range v.tail {
		if e := &v.tail[i]; e.Version >= g.q.From && !g.done() {
			_ = g.give(e) // it says that it is done
		}
	}
	return v, nil
}

// loadBackward gives the tail's events from a version down, then the index's rows, which were read
// before.
func (s *Store) loadBackward(ctx context.Context, p place, g *paging) (view, error) {
	var more []query
	var older collected
	rows := eventRows{place: p, stream: g.q.Stream, take: older.Take}
	if s.index != nil {
		more = append(more, s.index.backwardQuery(&rows, g.want, g.q.Limit))
	}
	v, err := s.look(ctx, p, g.q.Stream, more...)
	if err != nil {
		return v, err
	}
	g.want = min(g.want, v.version())
	for i := len(v.tail) - 1; i >= 0 && !g.done(); i-- {
		if e := &v.tail[i]; e.Version <= g.want {
			_ = g.give(e)
		}
	}
	for i := range older.events {
		if g.done() {
			break
		}
		_ = g.give(&older.events[i])
	}
	g.cut = g.cut || rows.cut
	return v, nil
}
