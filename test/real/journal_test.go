//go:build unix

package real

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/pkg/event"
)

// journal follows commands, replies and events from outside while the services run. One goroutine
// writes it; it is read under its lock.
type journal struct {
	w      *world
	client *kgo.Client

	mu       sync.Mutex
	changed  chan struct{} // closed and renewed at each step
	err      error
	position ends
	// open holds the commands without a reply, at the place of their first sending.
	open     map[string]sending
	answered map[string]struct{}
	replies  int
	events   map[place][]int64 // offsets of the valid events
	lineages map[place]*event.Lineage
	owners   map[place]string // the instance of the last claim
	claims   map[string]int   // by instance
}

type sending struct {
	place  place
	offset int64
}

// follow starts a journal from the start of all topics. It ends with the test.
func (w *world) follow() *journal {
	w.t.Helper()
	names := append(append(w.commandsTopics(), w.eventsTopics()...), w.repliesTopic())
	at, err := w.endsOf(w.ctx, names...)
	if err != nil {
		w.t.Fatal(err)
	}
	j := &journal{
		w: w, client: w.reader(at), changed: make(chan struct{}), position: ends{},
		open: map[string]sending{}, answered: map[string]struct{}{},
		events: map[place][]int64{}, lineages: map[place]*event.Lineage{}, owners: map[place]string{}, claims: map[string]int{},
	}
	for p := range at {
		j.position[p] = 0
	}
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() { defer close(done); j.run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
	return j
}

func (j *journal) run(ctx context.Context) {
	for {
		fetches := j.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		j.mu.Lock()
		for _, e := range fetches.Errors() {
			j.err = errors.Join(j.err, fmt.Errorf("follow %s[%d]: %w", e.Topic, e.Partition, e.Err))
		}
		fetches.EachRecord(j.note)
		close(j.changed)
		j.changed = make(chan struct{})
		failed := j.err != nil
		j.mu.Unlock()
		if failed {
			return
		}
	}
}

// note takes one record in.
func (j *journal) note(rec *kgo.Record) {
	p := place{rec.Topic, rec.Partition}
	j.position[p] = rec.Offset + 1
	switch {
	case rec.Topic == j.w.repliesTopic():
		j.noteReply(rec)
	case slices.Contains(j.w.commandsTopics(), rec.Topic):
		id := header(rec, event.HeaderID)
		if _, done := j.answered[id]; !done {
			if _, again := j.open[id]; !again {
				j.open[id] = sending{p, rec.Offset}
			}
		}
	default:
		j.noteEvent(p, rec)
	}
}

func (j *journal) noteReply(rec *kgo.Record) {
	id := header(rec, event.HeaderCausationID)
	j.replies++
	j.answered[id] = struct{}{}
	delete(j.open, id)
}

func (j *journal) noteEvent(p place, rec *kgo.Record) {
	if j.lineages[p] == nil {
		j.lineages[p] = &event.Lineage{}
	}
	switch j.lineages[p].Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) {
	case event.VerdictEvent:
		j.events[p] = append(j.events[p], rec.Offset)
	case event.VerdictControl:
		if event.Control(rec.Headers) == event.ControlClaim {
			j.owners[p] = header(rec, event.HeaderInstance)
			j.claims[j.owners[p]]++
		}
	}
}

func header(rec *kgo.Record, name string) string {
	value, _ := event.HeaderValue(rec.Headers, name)
	return string(value)
}

// until waits until a condition on the journal holds, or a child that must live ends. The
// condition runs under the lock.
func (j *journal) until(ctx context.Context, alive *child, holds func() bool) error {
	var ended <-chan struct{}
	if alive != nil {
		ended = alive.done
	}
	for {
		j.mu.Lock()
		ok, err, changed := holds(), j.err, j.changed
		j.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			return alive.early()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reach waits until all before these positions is in the journal.
func (j *journal) reach(ctx context.Context, to ends) error {
	return j.until(ctx, nil, func() bool {
		for p, end := range to {
			if j.position[p] < end {
				return false
			}
		}
		return true
	})
}

// repliesSeen counts the replies so far.
func (j *journal) repliesSeen() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.replies
}

// unanswered counts the commands that stand before these positions and have no reply.
func (j *journal) unanswered(before ends) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, s := range j.open {
		if s.offset < before[s.place] {
			n++
		}
	}
	return n
}

// eventsWithin counts the valid events of a partition from an offset on, before another.
func (j *journal) eventsWithin(p place, from, before int64) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	first, _ := slices.BinarySearch(j.events[p], from)
	last, _ := slices.BinarySearch(j.events[p], before)
	return max(0, last-first)
}
