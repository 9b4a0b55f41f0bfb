package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/twmb/franz-go/pkg/kgo"
)

// pacer decides when what the owners have gathered is sent: when all of them have come to rest.
//
// A poll wakes many owners at once, and so does the answer to a produce request. If each sent what
// it has when it is done, the first one's few records would make a request, and all others' wait
// for its answer: at 16 commands in flight that took five times the requests. So whoever brings
// work counts as busy while handing it out, an owner counts as busy until its mailbox is empty,
// and the one that leaves the count at zero sends for all. Nothing lingers: with one command in
// flight its owner is the last one.
//
// An owner that is busy for long (a registry that is away, a slow decider) does not hold the
// others up for more than paceMax. Safe for concurrent use.
type pacer struct {
	busy    atomic.Int64
	waiting atomic.Bool // something is gathered
	timer   *time.Timer
	produce func(*kgo.Record, func(*kgo.Record, error))

	mu       sync.Mutex
	writers  []*appender.Writer
	outgoing []outgoing
	spare    gathered // memory of an earlier send
}

type gathered struct {
	writers  []*appender.Writer
	outgoing []outgoing
}

type outgoing struct {
	record *kgo.Record
	done   func(*kgo.Record, error)
}

// Limits of what is gathered before it is sent all the same.
const (
	paceMax         = 2 * time.Millisecond
	paceOutgoingMax = 1024
)

func newPacer(produce func(*kgo.Record, func(*kgo.Record, error))) *pacer {
	p := &pacer{produce: produce}
	p.timer = time.AfterFunc(time.Hour, p.send)
	p.timer.Stop()
	return p
}

// begin and end bracket work that may gather something.
func (p *pacer) begin() { p.busy.Add(1) }

func (p *pacer) end() {
	if p.busy.Add(-1) == 0 {
		p.send()
	}
}

// flush has a writer flushed at the next send.
func (p *pacer) flush(w *appender.Writer) {
	p.mu.Lock()
	p.writers = append(p.writers, w)
	p.mu.Unlock()
	p.gathered()
}

// add has a record produced at the next send.
func (p *pacer) add(record *kgo.Record, done func(*kgo.Record, error)) {
	p.mu.Lock()
	p.outgoing = append(p.outgoing, outgoing{record, done})
	full := len(p.outgoing) >= paceOutgoingMax
	p.mu.Unlock()
	if full {
		p.send()
		return
	}
	p.gathered()
}

func (p *pacer) gathered() {
	if p.waiting.CompareAndSwap(false, true) {
		p.timer.Reset(paceMax)
	}
}

// send hands everything over. Produce may block when its buffer is full: then owners slow down,
// which is meant.
func (p *pacer) send() {
	if !p.waiting.Load() {
		return
	}
	p.timer.Stop() // before the next gathering, whose timer it would stop
	if !p.waiting.CompareAndSwap(true, false) {
		return
	}
	p.mu.Lock()
	sent := gathered{p.writers, p.outgoing}
	p.writers, p.outgoing = p.spare.writers, p.spare.outgoing
	p.spare = gathered{}
	p.mu.Unlock()
	for _, w := range sent.writers {
		w.Flush()
	}
	for _, o := range sent.outgoing {
		p.produce(o.record, o.done)
	}
	clear(sent.writers)
	clear(sent.outgoing)
	p.mu.Lock()
	p.spare = gathered{sent.writers[:0], sent.outgoing[:0]}
	p.mu.Unlock()
}

func (p *pacer) stop() { p.timer.Stop() }
