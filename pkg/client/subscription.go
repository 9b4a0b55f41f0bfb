package client

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
)

// source feeds a subscription with events: a partitioned log, or a stream of messages.
type source interface {
	// fetch hands what it reads to subscription.add, never more than subscription.room allows,
	// until ctx ends or something is wrong that trying again does not mend.
	fetch(ctx context.Context) error
	// store stores the place of a track that is known to be the source's still.
	store(ctx context.Context, t *track) error
	// letter stores a letter.
	letter(ctx context.Context, e *entry, err error, attempts int, firstAt time.Time) error
	// position names the place of all tracks.
	position(tracks []*track) string
	// close is called once nothing runs any more.
	close()
}

// subscription is a Subscribe under way: one goroutine fetches, Workers handle, one stores places.
//
//	fetch ──add──► track (order of the log) ──► ready ──► workers ──done──► track.place ──► store
//	                 └─ per stream, where Sequential: the next one becomes ready when its
//	                    predecessor is done
//
// A track's place moves only past entries that are all done, so what is stored never skips one.
type subscription struct {
	c      *Client
	cfg    Subscription
	filter filter
	src    source

	ready   chan *entry   // has room for QueueMax
	started chan struct{} // closed once src is there
	fail    context.CancelCauseFunc
	// hard ends handlers that outlast the drain.
	hard context.Context

	storing sync.Mutex // held while a place is stored, and while a track is taken away

	mu      sync.Mutex
	tracks  map[int32]*track
	waiting map[event.StreamID][]*entry // of streams that have one in hand; Sequential only
	undone  int                         // entries added and not done or dropped
	freed   chan struct{}               // signals that undone fell
}

func newSubscription(c *Client, cfg Subscription) *subscription {
	return &subscription{
		c: c, cfg: cfg, filter: newFilter(cfg), ready: make(chan *entry, cfg.QueueMax), started: make(chan struct{}),
		tracks: map[int32]*track{}, waiting: map[event.StreamID][]*entry{}, freed: make(chan struct{}, 1),
	}
}

// place is how far a track has come: the next offset and whose records count there, or a token.
type place struct {
	offset  int64
	lineage event.Lineage
	token   string
}

// track is one ordered part of the log: a partition as long as it is assigned, or a connection's
// messages. Its fields are under subscription.mu.
type track struct {
	number  int32
	read    event.Lineage // of the fetching goroutine alone
	at      place
	stored  place
	entries []*entry // in order, the first is not done
	active  int      // in hand of a worker
	closing bool     // queued entries are dropped
	idle    chan struct{}

	ctx  context.Context // of its handlers
	stop context.CancelFunc
}

// entry is an event, or a stretch without one.
type entry struct {
	event Event
	track *track
	after place
	done  bool
}

// open begins a track. A stored place that differs from at is stored at the next occasion.
func (s *subscription) open(number int32, at, stored place) {
	t := &track{number: number, at: at, stored: stored, read: at.lineage}
	t.ctx, t.stop = context.WithCancel(s.hard)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tracks[number] = t
}

func (s *subscription) track(number int32) *track {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tracks[number]
}

// pass moves a track over what is no event for the handler.
func (s *subscription) pass(t *track, after place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := len(t.entries); {
	case n == 0:
		t.at = after
	case t.entries[n-1].done:
		t.entries[n-1].after = after
	default:
		t.entries = append(t.entries, &entry{track: t, after: after, done: true})
	}
}

// add queues an event; the caller has asked for room. What the filter holds back is passed over.
func (s *subscription) add(t *track, e Event, after place) {
	if !s.filter.passes(&e) {
		s.pass(t, after)
		return
	}
	e.position = s.position
	one := &entry{event: e, track: t, after: after}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.entries = append(t.entries, one)
	s.undone++
	s.c.metrics.queue.WithLabelValues(s.cfg.Name).Set(float64(s.undone))
	if s.cfg.Mode == Sequential {
		if queue, busy := s.waiting[e.Stream]; busy {
			s.waiting[e.Stream] = append(queue, one)
			return
		}
		s.waiting[e.Stream] = nil
	}
	s.ready <- one
}

func (s *subscription) position() string {
	s.mu.Lock()
	tracks := make([]*track, 0, len(s.tracks))
	for _, t := range s.tracks {
		c := *t
		tracks = append(tracks, &c)
	}
	s.mu.Unlock()
	return s.src.position(tracks)
}

// room waits until the queue has room and says how much. A full queue must be half empty first;
// pause and resume hold the fetch back in between.
func (s *subscription) room(ctx context.Context, pause, resume func()) (int, error) {
	if free := s.cfg.QueueMax - s.queued(); free > 0 {
		return free, nil
	}
	s.c.metrics.pauses.WithLabelValues(s.cfg.Name).Inc()
	pause()
	defer resume()
	for {
		if free := s.cfg.QueueMax - s.queued(); free >= (s.cfg.QueueMax+1)/2 {
			return free, nil
		}
		select {
		case <-s.freed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (s *subscription) queued() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.undone
}

// run follows the source until ctx ends or something fails for good.
func (s *subscription) run(outer context.Context) error {
	ctx, fail := context.WithCancelCause(outer)
	defer fail(nil)
	hard, stopHard := context.WithCancel(context.WithoutCancel(outer))
	defer stopHard()
	s.fail, s.hard = fail, hard
	var err error
	if s.src, err = s.c.via.source(ctx, s); err != nil {
		if outer.Err() != nil {
			return nil
		}
		return err
	}
	close(s.started)
	var workers, storer sync.WaitGroup
	quit := make(chan struct{})
	for range s.cfg.Workers {
		workers.Go(func() { s.work(quit) })
	}
	storer.Go(func() { s.storeNowAndThen(ctx) })
	err = s.src.fetch(ctx)
	if err != nil && ctx.Err() == nil {
		fail(err)
	}
	fail(nil)
	storer.Wait()
	s.closeTracks(context.WithoutCancel(outer), s.all(), true)
	close(quit)
	workers.Wait()
	s.src.close()
	s.c.metrics.queue.DeleteLabelValues(s.cfg.Name)
	if cause := context.Cause(ctx); outer.Err() == nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if cause := context.Cause(outer); errors.Is(cause, ErrClosed) {
		return cause
	}
	return nil
}

func (s *subscription) all() []*track {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*track, 0, len(s.tracks))
	for _, t := range s.tracks {
		all = append(all, t)
	}
	return all
}

// storeNowAndThen stores the places that have moved.
func (s *subscription) storeNowAndThen(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.storing.Lock()
		for _, t := range s.all() {
			if err := s.storeTrack(ctx, t); err != nil && ctx.Err() == nil {
				s.c.cfg.Logger.Warn("the place of a subscription cannot be stored, trying again", "subscription", s.cfg.Name, "error", err)
				break
			}
		}
		s.storing.Unlock()
	}
}

// storeTrack stores a track's place when it has moved. The caller holds storing.
func (s *subscription) storeTrack(ctx context.Context, t *track) error {
	s.mu.Lock()
	at := t.at
	moved := at != t.stored && s.tracks[t.number] == t
	s.mu.Unlock()
	if !moved {
		return nil
	}
	const storeTimeout = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.src.store(ctx, &track{number: t.number, at: at}); err != nil {
		return err
	}
	s.mu.Lock()
	t.stored = at
	s.mu.Unlock()
	return nil
}

// closeTracks drops what is queued on tracks, lets handlers under way finish within the drain
// time, stores the places where the tracks are still ours, and forgets the tracks.
func (s *subscription) closeTracks(ctx context.Context, tracks []*track, ours bool) {
	deadline := time.NewTimer(s.cfg.DrainTimeout)
	defer deadline.Stop()
	for _, idle := range s.beginClosing(tracks) {
		select {
		case <-idle:
			continue
		case <-deadline.C:
		}
		for _, t := range tracks {
			t.stop()
		}
		break
	}
	s.storing.Lock()
	defer s.storing.Unlock()
	for _, t := range tracks {
		if ours {
			if err := s.storeTrack(ctx, t); err != nil {
				s.c.cfg.Logger.Warn("the last place of a subscription cannot be stored: events will come again", "subscription", s.cfg.Name, "error", err)
			}
		}
		t.stop()
		s.mu.Lock()
		if s.tracks[t.number] == t {
			delete(s.tracks, t.number)
		}
		s.mu.Unlock()
	}
}

// beginClosing returns, for each track that has handlers under way, what is closed when it has none.
func (s *subscription) beginClosing(tracks []*track) []chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	var busy []chan struct{}
	for _, t := range tracks {
		t.closing = true
		if t.active > 0 {
			t.idle = make(chan struct{})
			busy = append(busy, t.idle)
		}
	}
	return busy
}

// work handles entries until quit.
func (s *subscription) work(quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			return
		case e := <-s.ready:
			for e != nil {
				begun := s.begin(e)
				e = s.next(e, begun, begun && s.handle(e))
			}
		}
	}
}

// begin takes an entry in hand, unless its track is being closed.
func (s *subscription) begin(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.track.closing {
		return false
	}
	e.track.active++
	return true
}

// next ends an entry and returns the next one of its stream, or nil. One that was begun and is not
// done stays the first of its track, whose place does not pass it.
func (s *subscription) next(e *entry, begun, done bool) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := e.track
	if done {
		e.done = true
		t.advance()
	}
	if s.undone--; s.undone <= s.cfg.QueueMax/2 {
		select {
		case s.freed <- struct{}{}:
		default:
		}
	}
	s.c.metrics.queue.WithLabelValues(s.cfg.Name).Set(float64(s.undone))
	if begun {
		t.active--
		if t.active == 0 && t.idle != nil {
			close(t.idle)
			t.idle = nil
		}
	}
	return s.nextOf(e.event.Stream)
}

func (s *subscription) nextOf(stream event.StreamID) *entry {
	if s.cfg.Mode != Sequential {
		return nil
	}
	queue := s.waiting[stream]
	if len(queue) == 0 {
		delete(s.waiting, stream)
		return nil
	}
	s.waiting[stream] = queue[1:]
	return queue[0]
}

// advance moves the place past everything that is done.
func (t *track) advance() {
	n := 0
	for ; n < len(t.entries) && t.entries[n].done; n++ {
		t.at = t.entries[n].after
		t.entries[n] = nil
	}
	t.entries = t.entries[n:]
}

// handle hands an event to the handler until it passes or becomes a letter; false: its time ended
// before either.
func (s *subscription) handle(e *entry) bool {
	ctx := e.track.ctx
	firstAt := s.c.cfg.Clock()
	for attempt := 1; ; attempt++ {
		err := s.once(ctx, &e.event)
		if err == nil {
			s.c.metrics.handled.WithLabelValues(s.cfg.Name).Inc()
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		verdict, forGood := fate(err)
		switch {
		case verdict == deadletter.Stop:
			s.halt(fmt.Errorf("event %s of stream %s version %d: the handler stopped it: %w", e.event.ID, e.event.Stream, e.event.Version, err))
			return false
		case verdict == deadletter.Park, !forGood && attempt > s.cfg.Retry.Attempts:
			return s.letter(ctx, e, asLetter(err), attempt, firstAt)
		}
		s.c.metrics.retries.WithLabelValues(s.cfg.Name).Inc()
		if !s.c.sleep(ctx, s.cfg.Retry.pause(attempt)) {
			return false
		}
	}
}

// once calls the handler; a panic is an error.
func (s *subscription) once(ctx context.Context, e *Event) (err error) {
	if e.payload.Registered == nil && e.fault == nil {
		if err := s.c.inspect(ctx, e); err != nil {
			return deadletter.Retried("schema", err)
		}
	}
	if e.fault != nil {
		return e.fault
	}
	defer func() {
		if p := recover(); p != nil {
			const stackBytesMax = 2 << 10
			stack := debug.Stack()
			err = fmt.Errorf("the handler panicked: %v\n%s", p, stack[:min(len(stack), stackBytesMax)])
		}
	}()
	return s.cfg.Handler(ctx, *e)
}

// letter stores a letter, however long it takes.
func (s *subscription) letter(ctx context.Context, e *entry, cause error, attempts int, firstAt time.Time) bool {
	for n := 1; ; n++ {
		var err error
		if s.cfg.OnLetter != nil {
			err = s.cfg.OnLetter(ctx, Letter{Subscription: s.cfg.Name, Event: e.event, Err: cause, Attempts: attempts, FirstAt: firstAt})
		} else {
			err = s.src.letter(ctx, e, cause, attempts, firstAt)
		}
		switch {
		case err == nil:
			s.c.metrics.letters.WithLabelValues(s.cfg.Name).Inc()
			return true
		case ctx.Err() != nil:
			return false
		case errors.Is(err, errNoLetters):
			s.halt(fmt.Errorf("event %s of stream %s version %d failed %d times, and there is no OnLetter: %w",
				e.event.ID, e.event.Stream, e.event.Version, attempts, cause))
			return false
		}
		s.c.cfg.Logger.Warn("a letter cannot be stored, trying again", "subscription", s.cfg.Name, "error", err)
		if !s.c.sleep(ctx, s.cfg.Retry.pause(n)) {
			return false
		}
	}
}

// halt ends the subscription, and sees to it that no later event of the stream is begun meanwhile.
func (s *subscription) halt(err error) {
	s.mu.Lock()
	for _, t := range s.tracks {
		t.closing = true
	}
	s.mu.Unlock()
	s.fail(err)
}

// errNoLetters: the source has no place for letters.
var errNoLetters = errors.New("no place for letters")
