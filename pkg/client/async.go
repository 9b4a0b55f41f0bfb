package client

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// Pending is an asynchronous request. Safe for concurrent use.
type Pending struct {
	id      string
	done    chan struct{}
	outcome Outcome
	err     error
}

// ID returns the request's id.
func (p *Pending) ID() string { return p.id }

// Done is closed once the request is settled.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Outcome waits until the request is settled, and returns its outcome; the zero Outcome where Err
// is not nil.
func (p *Pending) Outcome() Outcome {
	<-p.done
	return p.outcome
}

// Err waits until the request is settled, and returns its error, as Append and Dispatch do.
func (p *Pending) Err() error {
	<-p.done
	return p.err
}

// Wait waits until the request is settled or ctx ends.
func (p *Pending) Wait(ctx context.Context) (Outcome, error) {
	select {
	case <-p.done:
		return p.outcome, p.err
	case <-ctx.Done():
		return Outcome{}, fmt.Errorf("request %s goes on, but is not waited for: %w", p.id, context.Cause(ctx))
	}
}

// DispatchAsync queues a command and returns at once. Requests are sent in batches of
// Config.BatchMax, or of what came within Config.BatchWait. Those of one stream are sent in the
// order in which they were queued; one that must be sent again may come behind later ones, so
// give it an expected version where that matters.
//
// It never waits: when the queue is full the request fails with ErrOverloaded.
func (c *Client) DispatchAsync(stream event.StreamID, command any, opts ...RequestOption) *Pending {
	return c.async.add(func(ctx context.Context) (*sendable, error) { return c.prepareCommand(ctx, stream, command, opts) })
}

// AppendAsync is DispatchAsync for an append.
func (c *Client) AppendAsync(stream event.StreamID, expected event.Expected, events []NewEvent, opts ...RequestOption) *Pending {
	return c.async.add(func(ctx context.Context) (*sendable, error) {
		return c.prepareAppend(ctx, stream, expected, events, opts)
	})
}

// Flush sends what waits for its batch to fill, and waits until everything that was queued before
// it is settled, or ctx ends.
func (c *Client) Flush(ctx context.Context) error { return c.async.flush(ctx) }

// async batches requests. Each lane has a goroutine from its first request on.
type async struct {
	client *Client
	lanes  []*lane
	seed   maphash.Seed

	mu       sync.Mutex
	closed   bool
	open     map[*Pending]struct{} // not settled
	settling sync.WaitGroup
}

// queued is a request in a lane.
type queued struct {
	pending  *Pending
	sendable *sendable
}

func newAsync(c *Client) *async {
	a := &async{client: c, seed: maphash.MakeSeed(), open: map[*Pending]struct{}{}}
	for range max(1, c.via.lanes()) {
		a.lanes = append(a.lanes, &lane{async: a, hurry: make(chan struct{}, 1)})
	}
	return a
}

// settled is a request that ended before it was queued.
func settled(id string, err error) *Pending {
	p := &Pending{id: id, err: err, done: make(chan struct{})}
	close(p.done)
	return p
}

func (a *async) add(prepare func(context.Context) (*sendable, error)) *Pending {
	c := a.client
	// What the registry or the broker must be asked for the first time is bounded.
	ctx, cancel := context.WithTimeout(c.life, c.cfg.AnswerTimeout)
	defer cancel()
	s, err := prepare(ctx)
	if err != nil {
		return settled("", err)
	}
	p := &Pending{id: s.id, done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return settled(s.id, ErrClosed)
	case len(a.open) >= c.cfg.QueueMax:
		return settled(s.id, fmt.Errorf("request %s: %w: %d asynchronous requests are not settled, Config.QueueMax allows no more", s.id, ErrOverloaded, len(a.open)))
	}
	a.open[p] = struct{}{}
	l := a.lanes[maphash.String(a.seed, s.stream.String())%uint64(len(a.lanes))]
	l.start(c.cfg.QueueMax)
	l.queue <- queued{p, s} // has room for all that may be open
	return p
}

func (a *async) settle(p *Pending, outcome Outcome, err error) {
	p.outcome, p.err = outcome, err
	a.mu.Lock()
	delete(a.open, p)
	a.mu.Unlock()
	close(p.done)
}

func (a *async) flush(ctx context.Context) error {
	a.mu.Lock()
	waiting := make([]*Pending, 0, len(a.open))
	for p := range a.open {
		waiting = append(waiting, p)
	}
	a.mu.Unlock()
	for _, l := range a.lanes {
		l.sendNow()
	}
	for i, p := range waiting {
		select {
		case <-p.done:
		case <-ctx.Done():
			return fmt.Errorf("flush: up to %d requests are not settled: %w", len(waiting)-i, context.Cause(ctx))
		}
	}
	return nil
}

// drain refuses further requests and settles those that are there.
func (a *async) drain(ctx context.Context) error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	return a.flush(ctx)
}

// wait waits for the goroutines, whose context has ended.
func (a *async) wait() { a.settling.Wait() }

// lane sends its requests in order.
type lane struct {
	async *async
	queue chan queued // made, under async.mu, with the goroutine
	hurry chan struct{}
}

func (l *lane) start(room int) {
	if l.queue != nil {
		return
	}
	l.queue = make(chan queued, room)
	l.async.settling.Go(l.run)
}

// sendNow ends the wait for a fuller batch, or the next one.
func (l *lane) sendNow() {
	select {
	case l.hurry <- struct{}{}:
	default:
	}
}

func (l *lane) run() {
	c := l.async.client
	for {
		batch := l.next(c.life)
		if batch == nil {
			l.abandon()
			return
		}
		l.send(c, batch)
	}
}

// next gathers a batch; nil when ctx ended.
func (l *lane) next(ctx context.Context) []queued {
	cfg := &l.async.client.cfg
	var batch []queued
	var full <-chan time.Time
	for {
		select {
		case q := <-l.queue:
			batch = append(batch, q)
			if len(batch) >= cfg.BatchMax {
				return batch
			}
			if full == nil {
				timer := time.NewTimer(cfg.BatchWait)
				defer timer.Stop()
				full = timer.C
			}
		case <-full:
			return batch
		case <-l.hurry:
			if batch = l.rest(batch, cfg.BatchMax); len(batch) > 0 {
				return batch
			}
		case <-ctx.Done():
			l.fail(batch)
			return nil
		}
	}
}

// rest adds what is queued already. What does not fit is hurried along in its turn.
func (l *lane) rest(batch []queued, batchMax int) []queued {
	for len(batch) < batchMax {
		select {
		case q := <-l.queue:
			batch = append(batch, q)
			continue
		default:
		}
		return batch
	}
	if len(l.queue) > 0 {
		l.sendNow()
	}
	return batch
}

// send begins all sendings of a batch and settles each as its answer comes.
func (l *lane) send(c *Client, batch []queued) {
	sendables := make([]*sendable, len(batch))
	for i, q := range batch {
		sendables[i] = q.sendable
	}
	c.metrics.batched(len(batch))
	var settling sync.WaitGroup
	running := &settling // waited for before the next batch, where that keeps the order
	if c.via.lanes() == 0 {
		running = &l.async.settling
	}
	c.via.sendAll(c.life, sendables, func(i int, wait answer) {
		running.Go(func() {
			outcome, err := c.finish(c.life, batch[i].sendable, wait)
			l.async.settle(batch[i].pending, outcome, err)
		})
	})
	settling.Wait()
}

// abandon fails what is left in the queue.
func (l *lane) abandon() {
	for {
		select {
		case q := <-l.queue:
			l.fail([]queued{q})
		default:
			return
		}
	}
}

func (l *lane) fail(batch []queued) {
	for _, q := range batch {
		l.async.settle(q.pending, Outcome{}, fmt.Errorf("request %s was not sent: %w", q.pending.id, ErrClosed))
	}
}
