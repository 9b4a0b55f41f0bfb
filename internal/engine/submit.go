package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Submission is a request in memory, for the instance that owns its partition: it becomes no record
// on a commands topic, and its outcome no reply (the fast path of DESIGN §5). Reply headers of the
// request have no meaning.
type Submission struct {
	Category string
	StreamID string
	Request  event.Request
	Value    []byte // framed Avro; not to be changed any more: when ctx ends first, the owner may still read it
}

// What Submit answers instead of an outcome. After each of them the request is certainly not
// stored by this call.
var (
	// ErrNotOwner: this instance does not serve the request's partition now.
	ErrNotOwner = errors.New("this instance does not own the request's partition")
	// ErrBusy: the limits of the partition, the stream or the instance are reached; try again later.
	ErrBusy = errors.New("too many requests are waiting")
)

// Limits of what waits in memory.
const (
	submissionsMax          = 65_536   // of the instance
	submissionsBytesMax     = 64 << 20 // likewise
	submissionsPartitionMax = 8_192
	submissionsStreamMax    = 1_024
	submissionBytesFixed    = 512
)

// admission bounds what waits in all partitions together. Safe for concurrent use.
type admission struct {
	waiting atomic.Int64
	bytes   atomic.Int64
	answers sync.Pool // of empty channels
}

// channel is one that no answer can come into any more but the next submission's.
func (a *admission) channel() chan answered {
	if done, ok := a.answers.Get().(chan answered); ok {
		return done
	}
	return make(chan answered, 1)
}

func (a *admission) enter(bytes int64) bool {
	if a.waiting.Add(1) > submissionsMax || a.bytes.Add(bytes) > submissionsBytesMax {
		a.waiting.Add(-1)
		a.bytes.Add(-bytes)
		return false
	}
	return true
}

func (a *admission) leave(bytes int64) {
	a.waiting.Add(-1)
	a.bytes.Add(-bytes)
}

// answered is what a submission comes to.
type answered struct {
	outcome Outcome
	err     error
}

// Submit decides a request at the owner of its partition and waits for the outcome. When ctx ends
// first its error is returned, and what became of the request is unknown: ask again with the same
// id. Safe for concurrent use; requests of one stream that were submitted one after the other are
// decided in that order.
func (e *Engine) Submit(ctx context.Context, s Submission) (Outcome, error) {
	commands := topics.Commands(e.cfg.Namespace, s.Category)
	partitions, known := e.counts[commands]
	if !known {
		return Outcome{}, fmt.Errorf("category %q is not served here", s.Category)
	}
	if err := event.ValidateID(s.StreamID); err != nil {
		return invalid(CodeKey, err), nil
	}
	tp := topicPartition{commands, topics.Partition([]byte(s.StreamID), partitions)}
	e.mu.Lock()
	o := e.owners[tp]
	e.mu.Unlock()
	if o == nil {
		return Outcome{}, ErrNotOwner
	}
	bytes := int64(submissionBytesFixed + len(s.StreamID) + len(s.Value))
	if !e.admission.enter(bytes) {
		return Outcome{}, ErrBusy
	}
	defer e.admission.leave(bytes)
	done := e.admission.channel()
	if err := o.submit(newSubmitted(s, done, e.cfg.Clock())); err != nil {
		e.admission.answers.Put(done)
		return Outcome{}, err
	}
	select {
	case a := <-done:
		e.admission.answers.Put(done)
		return a.outcome, a.err
	case <-ctx.Done():
		return Outcome{}, ctx.Err() // the answer may still come into done
	}
}

// newSubmitted is a submission as a command: one piece of memory.
func newSubmitted(s Submission, done chan answered, now time.Time) *command {
	c := &struct {
		command
		record kgo.Record
	}{}
	c.record = kgo.Record{Key: []byte(s.StreamID), Value: s.Value, Offset: -1, Timestamp: now}
	c.command = command{record: &c.record, request: s.Request, parsed: true, direct: done, id: s.StreamID}
	c.request.ReplyTo.Topic = ""
	return &c.command
}

// submit puts a request into the mailbox of an owner that serves.
func (o *owner) submit(c *command) error {
	m := &o.mailbox
	m.mu.Lock()
	switch {
	case !m.open:
		m.mu.Unlock()
		return ErrNotOwner
	case m.submitted.Load() >= submissionsPartitionMax:
		m.mu.Unlock()
		return ErrBusy
	}
	m.submitted.Add(1)
	m.submissions = append(m.submissions, c)
	wake := m.work()
	m.mu.Unlock()
	m.signalIf(wake)
	return nil
}

// takeSubmitted sorts what was submitted by stream.
func (o *owner) takeSubmitted() {
	m := &o.mailbox
	m.mu.Lock()
	submissions := m.submissions
	m.submissions = nil
	m.mu.Unlock()
	for _, c := range submissions {
		if !o.fair.push(c.streamID(), c) {
			o.settle(c, answered{err: ErrBusy})
		}
	}
}

// settle tells a submission its fate.
func (o *owner) settle(c *command, a answered) {
	c.phase = phaseDone
	o.mailbox.submitted.Add(-1)
	c.direct <- a
}

// settleWaiting ends what was submitted and is not decided: it is not stored.
func (o *owner) settleWaiting() {
	o.takeSubmitted()
	for c := o.fair.pop(); c != nil; c = o.fair.pop() {
		o.settle(c, answered{err: ErrNotOwner})
	}
}

// settleDecided ends what was decided and is not acknowledged: what became of it is unknown (W16).
func (o *owner) settleDecided() {
	for _, c := range o.directs {
		if c.phase == phaseDone {
			continue
		}
		o.metrics.outcome(OutcomeUnknown)
		o.settle(c, answered{outcome: Outcome{
			Kind: OutcomeUnknown, Partition: o.partition, Offset: -1,
			Message: "the owner lost the partition before the append was acknowledged: ask again with the same id",
		}})
	}
	o.directs = nil
}

// takeUpDirects puts decided submissions back in line, each before what its stream has waiting.
func (o *owner) takeUpDirects() {
	for i := len(o.directs) - 1; i >= 0; i-- {
		if c := o.directs[i]; c.phase == phaseDecided {
			c.again()
			o.fair.unpop(c)
		}
	}
	o.directs = nil
}

// fairQueue hands out requests stream by stream in turn, so that a stream that floods waits behind
// its own requests only. Requests of one stream keep their order. It belongs to the owner.
type fairQueue struct {
	byStream map[string]*fifo[*command]
	turn     fifo[string] // streams that have something, in the order of their turns
	waiting  int
	spare    []*fifo[*command]
}

const spareFifosMax = 256

// open makes room for a stream that has nothing yet.
func (q *fairQueue) open(stream string) *fifo[*command] {
	if q.byStream == nil {
		q.byStream = map[string]*fifo[*command]{}
	}
	f := &fifo[*command]{}
	if n := len(q.spare); n > 0 {
		f, q.spare = q.spare[n-1], q.spare[:n-1]
	}
	q.byStream[stream] = f
	q.turn.push(stream)
	return f
}

func (q *fairQueue) len() int { return q.waiting }

func (q *fairQueue) push(stream string, c *command) bool {
	f := q.byStream[stream]
	if f == nil {
		f = q.open(stream)
	}
	if f.len() >= submissionsStreamMax {
		return false
	}
	f.push(c)
	q.waiting++
	return true
}

// peek returns the next request without taking it, or nil.
func (q *fairQueue) peek() *command {
	if q.waiting == 0 {
		return nil
	}
	return q.byStream[q.turn.at(0)].at(0)
}

// pop returns the next request, or nil.
func (q *fairQueue) pop() *command {
	if q.waiting == 0 {
		return nil
	}
	stream := q.turn.pop()
	f := q.byStream[stream]
	c := f.pop()
	q.waiting--
	if f.len() == 0 {
		delete(q.byStream, stream)
		if len(q.spare) < spareFifosMax && cap(f.items) <= 16 {
			q.spare = append(q.spare, f)
		}
	} else {
		q.turn.push(stream)
	}
	return c
}

// unpop puts a request back to the front of its stream.
func (q *fairQueue) unpop(c *command) {
	stream := c.streamID()
	f := q.byStream[stream]
	if f == nil {
		f = q.open(stream)
	}
	f.unpop(c)
	q.waiting++
}
