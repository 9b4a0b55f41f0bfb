package engine

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// owner owns one partition of one category for as long as the group assigns it here. One
// goroutine, run, takes the partition over, decides its commands and takes in the
// acknowledgements; there is no lock on what it knows. Other goroutines reach it through the
// mailbox (deliver, and the callbacks of appender and outbox) and two atomics.
type owner struct {
	engine     *Engine
	category   *boundCategory
	namespace  string
	partition  int32
	partitions int32
	topics     ownedTopics
	log        *slog.Logger
	clock      func() time.Time
	metrics    *partitionMetrics
	budget     *stateBudget

	ctx     context.Context // ends when the partition is lost or the drain time is over
	cancel  context.CancelFunc
	leaving chan struct{} // closed on revoke: take nothing new, finish what is under way (W8)
	stopped chan struct{} // closed when run has returned

	mailbox     mailbox
	committable atomic.Int64 // the group offset may stand here (W11); -1 before the first command
	committed   atomic.Int64 // where the group offset stands, as far as we know
	fetchFailed atomic.Pointer[topicChangedError]
	state       atomic.Pointer[ownerState]

	// What follows belongs to run.
	writer      *appender.Writer
	termNumber  int
	onAppend    func(appender.Result) // called by the appender's sender, in append order
	table       *streamTable
	highest     int64 // H
	outcomes    map[int64]Outcome
	origins     map[originKey]int64
	lastEventID string
	// lastEventOffset is that of the last acknowledged event, ackedHighest the highest command
	// offset among the acknowledged events.
	lastEventOffset int64
	ackedHighest    int64
	keeper          *keeper

	unfinished []*command // in offset order; the group offset stays below the first
	todo       []*command // the waiting ones of unfinished
	nextOffset int64      // the next command offset that is expected from the group
	appended   fifo[*command]
	unproven   []*command // answers gathered since the last proof was asked for
	proofs     int        // proofs under way
	proving    int        // answers that wait for them
	unsent     int        // replies, letters and re-routes under way
	gathered   bool       // something was appended or asked to be proven since the last flush
	refused    bool       // a batch was refused: wait until nothing is under way, then take up again
	fair       fairQueue  // submissions
	directs    []*command // submissions that are decided and not answered, in order
	directTurn bool
	renewing   bool      // the claim is to be renewed: wait until nothing is under way
	blocked    time.Time // no deciding before, after an infrastructure error
	blockedErr error
	retryWait  time.Duration

	hashScratch   []byte
	idScratch     []byte
	stateScratch  []byte
	values        []byte         // of the events in decided
	decided       []pendingEvent // by the decider, for the command in hand
	arena         []byte
	headers       []event.Header
	records       []appender.Record
	appendBinding *codec.Binding
	batchBytesMax int
	renewAt       time.Time
	lastAppend    time.Time
	prove         atomic.Bool // a keep-alive is wanted now, see watchTopics
	sweepAt       time.Time
	budgetHeld    int64
	skew          time.Duration // of the broker's clock against ours
	turnAt        time.Time     // when the command or the results in hand were taken up
}

// turnTime is the time of what is in hand: one reading of the clock serves all that is done for a
// command, or for the results of one turn.
func (o *owner) turnTime() time.Time {
	if o.turnAt.IsZero() {
		return o.clock()
	}
	return o.turnAt
}

// turnLogTime is logTime of what is in hand.
func (o *owner) turnLogTime() time.Time { return o.turnTime().Add(o.skew) }

// logTime is now by the clock that stamps the events: a command id's age is counted by it, so that
// a host whose clock is off forgets nothing early.
func (o *owner) logTime() time.Time { return o.clock().Add(o.skew) }

// clockSkewMax is how far a host's clock may be off for a recovery to keep all command ids that
// still count.
const clockSkewMax = 24 * time.Hour

// ownedTopics are the topics of an owner's partition.
type ownedTopics struct {
	commands    string
	events      string
	snapshots   string
	commandsID  [16]byte
	eventsID    [16]byte
	snapshotsID [16]byte
}

// ownerState is what health checks see of an owner.
type ownerState struct {
	phase string // taking over, serving, waiting, stopped
	err   error
}

// mailbox takes what other goroutines bring. Bounded by the fetch pause (records) and by
// InFlightMax (results).
type mailbox struct {
	pacer   *pacer
	mu      sync.Mutex
	open    bool // a term serves
	busy    bool // the owner counts as busy with the pacer
	records []*kgo.Record
	bytes   int
	results []result
	// submissions wait to be sorted by stream; submitted counts those that are not answered.
	submissions []*command
	submitted   atomic.Int64
	wake        chan struct{}
}

// result is a message of appender or outbox.
type result struct {
	kind    resultKind
	append  appender.Result
	proof   []*command
	err     error
	command *command
	term    int // the term that asked; answers to an earlier term are void
}

type resultKind uint8

const (
	resultAppend resultKind = iota
	resultProof
	resultSent  // reply, letter or re-route acknowledged (or given up)
	resultSaved // snapshot, history slot or checkpoint acknowledged
)

func (m *mailbox) post(r result) {
	m.mu.Lock()
	m.results = append(m.results, r)
	wake := m.work()
	m.mu.Unlock()
	m.signalIf(wake)
}

// work makes a serving owner busy and says whether it has to be woken: one that is busy looks into
// the mailbox before it rests.
func (m *mailbox) work() (wake bool) {
	if m.open && m.busy {
		return false
	}
	if m.open {
		m.busy = true
		m.pacer.begin()
	}
	return true
}

func (m *mailbox) signalIf(wake bool) {
	if wake {
		m.signal()
	}
}

// rest ends the owner's turn, unless more has come. takes says whether it would take records now.
func (m *mailbox) rest(takes bool) bool {
	m.mu.Lock()
	if len(m.results) > 0 || (m.records != nil && takes) || m.submissions != nil {
		m.mu.Unlock()
		return false
	}
	ended := m.busy
	m.busy = false
	m.mu.Unlock()
	if ended {
		m.pacer.end()
	}
	return true
}

// serve opens or closes the mailbox to the pacer's count. Opened, the owner begins busy.
func (m *mailbox) serve(open bool) {
	m.mu.Lock()
	ended := m.busy && !open
	m.open = open
	if open {
		m.work()
	} else {
		m.busy = false
	}
	m.mu.Unlock()
	if ended {
		m.pacer.end()
	}
}

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) takeResults(into []result) []result {
	m.mu.Lock()
	defer m.mu.Unlock()
	into = append(into[:0], m.results...)
	clear(m.results)
	m.results = m.results[:0]
	return into
}

func (m *mailbox) takeRecords() []*kgo.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	records := m.records
	m.records, m.bytes = nil, 0
	return records
}

// deliver hands fetched commands over, as one. It reports whether the owner has so many now that
// the fetch of its partition must pause.
func (o *owner) deliver(records []*kgo.Record) (full bool) {
	m := &o.mailbox
	m.mu.Lock()
	if m.records == nil {
		m.records = records
	} else {
		m.records = append(m.records, records...)
	}
	for _, r := range records {
		m.bytes += len(r.Key) + len(r.Value) + categoryBytesFixed
	}
	wake := m.work()
	full = len(m.records) >= o.engine.cfg.InboxRecordsMax || m.bytes >= o.engine.cfg.InboxBytesMax
	m.mu.Unlock()
	m.signalIf(wake)
	return full
}

// run takes the partition over again and again until it is given away. Fenced or lost, it drops
// all it knows and recovers from the log; what was under way is taken up from the start:
//
//	owner A appends command 7, is fenced before the acknowledgement
//	A passes the membership test (W7), claims, reads the log up to its claim
//	the log has command 7's event: H ≥ 7, the answer comes from there
//	the log has it not: command 7 is decided again, once
func (o *owner) run() {
	defer close(o.stopped)
	defer o.metrics.disowned()
	backoff := reclaimBackoffMin
	for {
		began := o.clock()
		err := o.term()
		o.endTerm()
		o.metrics.ended(err)
		switch {
		case o.ctx.Err() != nil || errors.Is(err, errStopped):
			return
		case isPermanent(err) && !o.topicStands(err):
			o.fail(err)
			return
		}
		if o.clock().Sub(began) > reclaimBackoffMax {
			backoff = reclaimBackoffMin
		}
		o.setState("waiting", err)
		o.log.Warn("partition is taken over anew", "cause", err, "backoff", backoff)
		if !o.pause(backoff/2 + time.Duration(rand.Int64N(int64(backoff)))) {
			return
		}
		backoff = min(2*backoff, reclaimBackoffMax)
	}
}

// Bounds of the wait before a fenced owner claims again (W7).
const (
	reclaimBackoffMin = 100 * time.Millisecond
	reclaimBackoffMax = 60 * time.Second
)

// fail stops the partition loudly: it is not served until an operator has acted, and readiness says so.
func (o *owner) fail(err error) {
	o.setState("stopped", err)
	o.metrics.stopped()
	o.log.Error("partition stopped", "cause", err)
	var foreign *ForeignGroupError
	if errors.As(err, &foreign) {
		o.engine.stopWith(err)
	}
}

func (o *owner) setState(phase string, err error) { o.state.Store(&ownerState{phase: phase, err: err}) }

// pause waits, unless the owner is told to stop.
func (o *owner) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-o.leaving:
		return false
	case <-o.ctx.Done():
		return false
	}
}

// term is one ownership: take over, then serve until fenced, lost or told to stop.
func (o *owner) term() error {
	o.setState("taking over", nil)
	if err := o.takeOver(); err != nil {
		return err
	}
	o.setState("serving", nil)
	o.metrics.owned()
	return o.serve()
}

// endTerm drops what only this term knew. Unfinished commands are kept, to be taken up again.
func (o *owner) endTerm() {
	if o.writer != nil {
		o.writer.Close()
		o.writer = nil
		o.metrics.disowned()
	}
	if o.keeper != nil {
		o.keeper.end()
		o.keeper = nil
	}
	o.termNumber++
	o.budget.set(o, 0)
	o.table, o.outcomes, o.origins = nil, nil, nil
	o.appended.clear()
	o.unproven, o.proofs, o.proving, o.refused, o.renewing = nil, 0, 0, false, false
	o.settleDecided()
	o.settleWaiting()
	o.takeUpAgain(phaseDecided)
}

// takeUpAgain puts unfinished commands at most in phase upTo back in line, in offset order (W10).
func (o *owner) takeUpAgain(upTo phase) {
	todo := make([]*command, 0, len(o.unfinished))
	for _, c := range o.unfinished {
		if c.phase <= upTo {
			c.again()
			todo = append(todo, c)
		}
	}
	o.todo = todo
}

// takeUpRefused puts what was taken back in line again, each to be appended alone.
func (o *owner) takeUpRefused() {
	for _, c := range o.unfinished {
		c.redo = c.redo || c.phase == phaseDecided
	}
	for _, c := range o.directs {
		c.redo = c.redo || c.phase == phaseDecided
	}
	o.takeUpAgain(phaseDecided)
	o.takeUpDirects()
}

// serve is the owner's loop: decide what waits, flush, take in results.
func (o *owner) serve() error {
	tick := time.NewTicker(ownerTick)
	defer tick.Stop()
	saving := time.NewTicker(keeperTick)
	defer saving.Stop()
	o.mailbox.serve(true)
	defer o.mailbox.serve(false)
	ready := make(chan struct{})
	close(ready)
	var results []result
	turns := 0
	leaving := o.leaving
	for {
		if failed := o.fetchFailed.Load(); failed != nil {
			return failed
		}
		if err := o.decideWaiting(); err != nil {
			return err
		}
		if leaving == nil && o.drained() {
			return errStopped
		}
		if o.renewing && leaving != nil && o.idle() && o.keeper.inFlight.len() == 0 {
			if err := o.renew(); err != nil {
				return err
			}
			continue
		}
		// With work in the mailbox the select must not wait, but the other cases get their chance every
		// few turns: an owner that never rests has to renew, to save and to leave, too.
		var work <-chan struct{}
		if !o.mailbox.rest(o.takesRecords()) {
			if turns++; turns%turnsPerSelect != 0 {
				results = o.mailbox.takeResults(results)
				if err := o.takeIn(results); err != nil {
					return err
				}
				continue
			}
			work = ready
		}
		select {
		case <-work:
		case <-o.ctx.Done():
			return o.ctx.Err()
		case <-leaving:
			leaving = nil
			continue
		case <-o.mailbox.wake:
			// Others that are about to bring something get their turn first: a fuller turn costs one
			// yield, and no time when nobody is.
			runtime.Gosched()
		case <-tick.C:
			if err := o.onTick(); err != nil {
				return err
			}
		case <-saving.C:
			if o.renewing {
				o.engine.pacer.flush(o.keeper.writer) // what promotions have gathered
				continue
			}
			if err := o.keeper.turn(o.clock()); err != nil {
				return err
			}
		case <-o.keeper.writer.Dead():
			return o.keeper.writer.Err()
		case <-o.writer.Dead():
			// The results that tell which entries were sent may still be on their way; none of them
			// changes what happens now: the log decides.
			return o.writer.Err()
		}
		results = o.mailbox.takeResults(results)
		if err := o.takeIn(results); err != nil {
			return err
		}
	}
}

const (
	ownerTick      = time.Second
	turnsPerSelect = 8
)

// unsentPerInFlight bounds the answers on their way by Config.InFlightMax.
const unsentPerInFlight = 4

// drained says whether a leaving owner may go: nothing decided is unacknowledged, nothing
// answered is unsent.
func (o *owner) drained() bool {
	if o.appended.len() > 0 || o.proofs > 0 || len(o.unproven) > 0 {
		return false
	}
	for _, c := range o.unfinished {
		if c.phase == phaseAnswered {
			return false
		}
	}
	return true
}

func (o *owner) isLeaving() bool {
	select {
	case <-o.leaving:
		return true
	default:
		return false
	}
}

// Commands decided between two flushes: few enough that the first are on their way while the
// rest is decided.
const decideChunk = 128

// decideWaiting decides commands in order until none is left, too many are under way, or one has
// to wait.
func (o *owner) decideWaiting() error {
	o.takeDelivered()
	o.takeSubmitted()
	if o.isLeaving() {
		o.settleWaiting()
		return nil
	}
	for sinceFlush := 0; ; sinceFlush++ {
		if sinceFlush == decideChunk {
			o.flush()
			o.writer.Flush()
			sinceFlush = 0
			if dead := o.writer.Err() != nil; dead {
				return nil //nolint:nilerr // the loop sees Dead
			}
		}
		c := o.upNext()
		if c == nil || !o.mayDecide(c) {
			break
		}
		if err := o.handle(c); err != nil {
			o.block(c, err)
			break
		}
		o.took(c)
	}
	if o.gathered {
		o.flush()
	}
	return nil
}

// upNext returns the command whose turn it is: records of the commands topic, in their order
// (W10), and submissions, fair between streams, take turns.
func (o *owner) upNext() *command {
	if len(o.todo) > 0 && (o.fair.len() == 0 || !o.directTurn) {
		return o.todo[0]
	}
	return o.fair.peek()
}

func (o *owner) took(c *command) {
	if c.direct != nil {
		o.fair.pop()
		o.directTurn = false
		if c.phase != phaseDone {
			o.directs = append(o.directs, c)
		}
		return
	}
	o.todo = o.todo[1:]
	o.directTurn = true
}

func (o *owner) mayDecide(c *command) bool {
	switch {
	case o.refused || o.renewing:
		return false
	case o.appended.len() > 0 && o.appended.at(o.appended.len()-1).redo:
		return false // were it refused, what is decided behind it would have to be taken back with it
	case o.appended.len()+o.proving+len(o.unproven) >= o.engine.cfg.InFlightMax:
		return false
	case o.unsent >= unsentPerInFlight*o.engine.cfg.InFlightMax:
		return false // a slow reply broker slows its askers down
	case c.redo && (o.appended.len() > 0 || o.proofs > 0 || len(o.unproven) > 0):
		return false
	}
	return o.blocked.IsZero() || !o.clock().Before(o.blocked)
}

// block makes the partition wait after an error that is not the command's own fault (W10: nothing
// behind it is decided before it).
func (o *owner) block(c *command, err error) {
	if o.retryWait == 0 {
		o.retryWait = retryWaitMin
	}
	o.blocked, o.blockedErr = o.clock().Add(o.retryWait), err
	time.AfterFunc(o.retryWait, o.mailbox.signal)
	o.retryWait = min(2*o.retryWait, retryWaitMax)
	o.setState("serving", err)
	o.metrics.blocked()
	o.log.Error("command waits", "offset", c.record.Offset, "type", c.request.Type, "cause", err)
}

const (
	retryWaitMin = 50 * time.Millisecond
	retryWaitMax = 10 * time.Second
)

// takesRecords says whether the line is short enough for more. What is not taken fills the inbox,
// and a full inbox pauses the fetch: a flood waits in Kafka.
func (o *owner) takesRecords() bool { return len(o.todo) < o.engine.cfg.InFlightMax && !o.isLeaving() }

// takeDelivered moves fetched records into the line.
func (o *owner) takeDelivered() {
	if !o.takesRecords() {
		return
	}
	records := o.mailbox.takeRecords()
	if records == nil {
		return
	}
	o.engine.resume(o)
	slab := make([]command, len(records))
	for i, rec := range records {
		if rec.Offset < o.nextOffset {
			continue // fetched before a rebalance and again after it
		}
		o.nextOffset = rec.Offset + 1
		c := &slab[i]
		c.record = rec
		o.unfinished = append(o.unfinished, c)
		o.todo = append(o.todo, c)
	}
	o.metrics.pending(len(o.unfinished))
}

// handle decides one command and sets on its way what comes of it.
func (o *owner) handle(c *command) error {
	o.turnAt = o.clock()
	if !c.parsed {
		o.parse(c)
	}
	var v verdict
	var err error
	if c.direct == nil && c.record.Offset <= o.highest {
		v, err = o.recall(c)
	} else {
		v, err = o.evaluate(c)
	}
	if err != nil {
		return err
	}
	if o.blockedErr != nil {
		o.blocked, o.blockedErr, o.retryWait = time.Time{}, nil, 0
		o.setState("serving", nil)
	}
	o.noteOrigin(c, v)
	switch v.kind {
	case verdictAppend:
		return o.append(c, v)
	case verdictReroute:
		c.phase = phaseAnswered
		o.metrics.rerouted()
		o.unsent++
		o.engine.outbox.reroute(o, c, v.target)
	case verdictDrop:
		o.metrics.repeatedReroute()
		o.finish(c)
	default:
		c.phase = phaseDecided
		c.outcome = v.outcome
		c.letter = v.letter
		o.unproven = append(o.unproven, c)
		o.gathered = true
	}
	return nil
}

// parse reads a command's headers. A reply topic that may not be named is forgotten at once: no
// path may answer there, or anybody could have us write into an events topic.
func (o *owner) parse(c *command) {
	c.request, c.faults = event.ParseRequest(c.record.Headers)
	c.parsed = true
	if topic := c.request.ReplyTo.Topic; topic != "" && !o.replyTopicAllowed(topic) {
		c.request.ReplyTo.Topic, c.replyFault = "", fmt.Errorf("reply topic %q: want %s, a topic that begins with %s., or a saga's commands topic",
			topic, topics.Replies(o.namespace), topics.Replies(o.namespace))
	}
}

// recall answers a command at or below H without deciding it (W12): from its event in the log,
// or, when it is mis-routed or undecodable, as if it came for the first time; what left no event
// is unknown. So is a re-route whose origin was passed: it may be a repetition, but also the first
// of its kind, with an answer that was never sent, also when its id left an event:
//
//	c1 and c2 are re-routed; c1 is rejected, or repeats a request that was accepted, c2 is accepted
//	the owner dies before it answers
//	its successor learns c2's origin from the log, reads c1, whose origin is lower
//	dropped as repeated, c1 would never be answered
func (o *owner) recall(c *command) (verdict, error) {
	if outcome, known := o.outcomes[c.record.Offset]; known {
		return answer(outcome), nil
	}
	v, err := o.evaluate(c)
	var decider *DeciderError
	if errors.As(err, &decider) {
		v, err = verdict{}, nil // it is not to be decided again anyway
	}
	if err != nil || v.kind == verdictReroute || v.letter != nil {
		return v, err
	}
	return answer(Outcome{
		Kind: OutcomeUnknown, Partition: o.partition, Offset: -1,
		Message: "the instance that decided this request stopped before its answer was sent, and the request left no event: ask again with the same id",
	}), nil
}

// noteOrigin remembers the highest origin. The command itself may be decided again, after a refused
// batch, and is no repetition then.
func (o *owner) noteOrigin(c *command, v verdict) {
	if c.request.Origin == nil || v.kind == verdictReroute || v.kind == verdictDrop || o.checkOrigin(c.request.Origin) != nil {
		return
	}
	c.originNoted = true
	key := originOf(*c.request.Origin)
	if high, seen := o.origins[key]; !seen || c.request.Origin.Offset > high {
		o.origins[key] = c.request.Origin.Offset
	}
}

// append gives the events their versions, hands them to the appender and moves the stream on.
// The stream is speculative until the acknowledgement; undo has what it was before.
func (o *owner) append(c *command, v verdict) error {
	id := c.streamID()
	var encoded []byte
	if o.category.Decider != nil {
		var err error
		if o.stateScratch, err = o.category.appendState(o.stateScratch[:0], v.state); err != nil {
			return &DeciderError{Category: o.category.Name, Stream: c.stream(o.category.Name), Type: c.request.Type, Err: fmt.Errorf("state does not encode: %w", err)}
		}
		encoded = bytes.Clone(o.stateScratch)
	}
	s := v.stream
	if s == nil {
		s = o.table.obtain(id)
	}
	if s.pending == 0 {
		s.acked = ackedState{s.version, s.state}
	}
	s.pending++
	c.after = encoded
	c.previous = undo{stream: s, id: id, version: s.version, state: s.state}
	first := s.version + 1
	c.decidedThrough = o.decidedThrough()
	c.lastEventID = v.events[len(v.events)-1].id
	o.writer.Append(o.recordsOf(c, v, first), o.onAppend)
	s.version += event.Version(len(v.events))
	if o.category.Decider != nil {
		o.table.setState(s, encoded)
	}
	s.window.add(remembered{
		key: c.windowKey(), hash: v.hash, first: first, count: int32(len(v.events)), offset: -1,
		at: o.turnLogTime().Unix(), dedupeUntil: unixOrZero(c.request.DedupeUntil),
	})
	o.table.bytes += rememberedBytesFixed
	s.changed = true
	if first == 1 {
		o.budget.set(o, o.table.bytes) // new streams are refused by it; the rest is told once a turn
	}
	c.phase = phaseDecided
	c.outcome = Outcome{Kind: OutcomeAccepted, First: first, Last: s.version, Partition: o.partition}
	o.appended.push(c)
	o.gathered = true
	if plantedAnswerBeforeAppend && c.direct == nil {
		early := *c
		early.outcome.Offset = o.writer.NextOffset() + int64(o.appended.len()) - 1
		o.engine.outbox.answer(o, &early)
	}
	return nil
}

// decidedThrough is the highest offset of the commands topic that was decided: with an event of a
// submission it becomes part of H (W12), since the submission may change what an answer without an
// event rested on:
//
//	record c5 is answered "conflict", a submission moves the stream on, the owner dies
//	its successor reads c5 again: decided now it would be accepted, after it was told to have failed
func (o *owner) decidedThrough() int64 {
	if len(o.todo) > 0 {
		return o.todo[0].record.Offset - 1
	}
	return o.nextOffset - 1
}

// recordsOf builds the events' records in scratch memory that the appender copies from at once.
func (o *owner) recordsOf(c *command, v verdict, first event.Version) []appender.Record {
	o.arena, o.headers, o.records = o.arena[:0], o.headers[:0], o.records[:0]
	text := func(s string) []byte {
		at := len(o.arena)
		o.arena = append(o.arena, s...)
		return o.arena[at:len(o.arena):len(o.arena)]
	}
	r := &c.request
	commandID := text(r.ID)
	correlation := text(correlation(r))
	at := len(o.arena)
	o.arena = hex.AppendEncode(o.arena, v.hash[:])
	hash := o.arena[at:len(o.arena):len(o.arena)]
	at = len(o.arena)
	o.arena = strconv.AppendInt(o.arena, c.record.Offset, 10)
	commandOffset := o.arena[at:len(o.arena):len(o.arena)]
	now := o.turnTime()
	for i := range v.events {
		e := &v.events[i]
		start := len(o.headers)
		add := func(name string, value []byte) {
			o.headers = append(o.headers, event.Header{Key: name, Value: value})
		}
		add(event.HeaderID, text(e.id))
		add(event.HeaderType, text(e.typ))
		add(event.HeaderSource, o.category.source)
		add(event.HeaderSpecVersion, specVersionBytes)
		at := len(o.arena)
		o.arena = e.time.UTC().AppendFormat(o.arena, time.RFC3339Nano)
		add(event.HeaderTime, o.arena[at:len(o.arena):len(o.arena)])
		add(event.HeaderSubject, c.record.Key)
		add(event.HeaderContentType, contentTypeBytes)
		at = len(o.arena)
		o.arena = appendVersion(o.arena, first+event.Version(i))
		add(event.HeaderSequence, o.arena[at:len(o.arena):len(o.arena)])
		add(event.HeaderCorrelationID, correlation)
		add(event.HeaderCausationID, commandID)
		if r.UserID != "" {
			add(event.HeaderUserID, text(r.UserID))
		}
		if r.Traceparent != "" {
			add(event.HeaderTraceparent, text(r.Traceparent))
		}
		add(event.HeaderCommandID, commandID)
		add(event.HeaderCommandHash, hash)
		if c.direct == nil {
			add(event.HeaderCommandOffset, commandOffset)
		} else if c.decidedThrough >= 0 {
			add(event.HeaderDecidedOffset, text(strconv.FormatInt(c.decidedThrough, 10)))
		}
		if !r.DedupeUntil.IsZero() {
			add(event.HeaderDedupeUntil, text(event.FormatTime(r.DedupeUntil)))
		}
		if r.Origin != nil {
			add(event.HeaderOrigin, text(r.Origin.String()))
		}
		o.headers = append(o.headers, r.Extra...)
		o.headers = append(o.headers, e.headers...)
		o.records = append(o.records, appender.Record{
			Key: c.record.Key, Value: e.value, Headers: o.headers[start:len(o.headers):len(o.headers)], Time: now,
		})
	}
	return o.records
}

var (
	specVersionBytes = []byte(event.SpecVersion)
	contentTypeBytes = []byte(event.ContentTypeAvro)
)

// flush sends what was gathered and asks for the proof that the gathered answers wait for (W15):
//
//	old owner A decides "conflict" on its state, is stopped (SIGSTOP)
//	B takes over and accepts what A would have refused
//	A goes on and sends its answer: false
//
// With the proof, sent after the decision, A learns of B's claim before it answers. One proof
// serves all answers of a chunk; it also waits for every batch that they were decided on, since a
// partition has one batch in flight.
func (o *owner) flush() {
	o.gathered = false
	if plantedNegativeWithoutProof {
		for _, c := range o.unproven {
			o.answer(c)
		}
		o.unproven = nil
	}
	if len(o.unproven) > 0 {
		group := o.unproven
		o.unproven = nil
		o.proofs++
		o.proving += len(group)
		term := o.termNumber
		o.writer.Prove(func(err error) {
			o.mailbox.post(result{kind: resultProof, proof: group, err: err, term: term})
		})
	}
	o.engine.pacer.flush(o.writer)
}

// takeIn handles results in the order in which they came.
func (o *owner) takeIn(results []result) error {
	o.turnAt = o.clock()
	defer func() { o.budget.set(o, o.table.bytes) }()
	for i := range results {
		var err error
		r := &results[i]
		if r.kind != resultSent && r.term != o.termNumber {
			continue
		}
		switch r.kind {
		case resultAppend:
			err = o.onAppended(r.append)
		case resultProof:
			err = o.onProof(r.proof, r.err)
		case resultSaved:
			err = o.keeper.onSaved(r.append)
		case resultSent:
			err = o.onSent(r.command, r.err)
		}
		if err != nil {
			return err
		}
	}
	if o.refused && o.appended.len() == 0 && o.proofs == 0 && len(o.unproven) == 0 {
		o.refused = false
		o.writer.Resume()
		o.takeUpRefused()
	}
	o.advance()
	for len(o.directs) > 0 && o.directs[0].phase == phaseDone {
		o.directs = o.directs[1:]
	}
	return nil
}

// onAppended promotes the oldest command under way, or takes it back.
func (o *owner) onAppended(r appender.Result) error {
	c := o.appended.pop()
	switch {
	case r.Err == nil:
		o.promote(c, r.Offset)
		return nil
	case errors.Is(r.Err, appender.ErrRefused):
		return o.onRefused(c, r.Err)
	}
	return r.Err
}

// promote makes a command's events final.
func (o *owner) promote(c *command, offset int64) {
	count := int64(c.outcome.Last - c.outcome.First + 1)
	c.outcome.Offset = offset + count - 1
	o.lastEventID, o.lastEventOffset = c.lastEventID, c.outcome.Offset
	o.ackedHighest = max(o.ackedHighest, c.record.Offset)
	if c.direct != nil {
		o.ackedHighest = max(o.ackedHighest, c.decidedThrough)
	}
	o.lastAppend = o.turnTime()
	s := c.previous.stream
	for i := len(s.window.entries) - 1; i >= 0; i-- {
		if e := &s.window.entries[i]; e.first == c.outcome.First {
			e.offset = c.outcome.Offset
			break
		}
	}
	if s.window.due(o.category.limits) {
		o.table.bytes -= int64(s.window.evict(o.category.limits, o.turnLogTime())) * rememberedBytesFixed
	}
	s.offset = c.outcome.Offset
	s.pending--
	s.acked = ackedState{}
	if s.pending > 0 {
		s.acked = ackedState{c.outcome.Last, c.after}
	}
	s.changed = true
	o.keeper.promoted(c, s, offset)
	c.previous, c.after = undo{}, nil
	o.answer(c)
}

// onRefused takes a command's events back (W17). All that was decided behind a refused batch is
// refused with it; when the last of it has come back, the commands are decided again, each in a
// batch of its own, so that the one at fault is refused alone and answered.
func (o *owner) onRefused(c *command, cause error) error {
	if c.previous.stream == nil {
		return nil // taken back already
	}
	if c.redo || (!o.refused && o.appended.len() == 0) {
		o.takeBack(c)
		if o.refused = o.proofs > 0 || len(o.unproven) > 0; !o.refused { // else these were decided on its events
			o.writer.Resume()
		}
		c.outcome = invalid(CodeRefused, cause)
		o.metrics.refused()
		o.answer(c)
		return nil
	}
	o.takeBackAll(cause)
	o.takeBack(c) // the oldest, so the last
	return nil
}

// takeBackAll undoes all that is under way, newest first. It is called at the first answer of a
// refused batch, whether that is a command's or a proof's.
func (o *owner) takeBackAll(cause error) {
	o.refused = true
	o.metrics.refused()
	o.log.Warn("batch refused; its commands are decided again one by one", "cause", cause)
	for i := o.appended.len() - 1; i >= 0; i-- {
		o.takeBack(o.appended.at(i))
	}
}

func (o *owner) takeBack(c *command) {
	u := c.previous
	if u.stream == nil {
		return
	}
	if plantedPromoteBeforeAck {
		u.stream.pending--
		c.previous, c.after = undo{}, nil
		return
	}
	u.stream.window.undoLast()
	u.stream.pending--
	u.stream.changed = true
	o.table.bytes -= rememberedBytesFixed
	u.stream.version = u.version
	o.table.setState(u.stream, u.state)
	if u.version == 0 {
		o.table.drop(u.id)
	}
	o.budget.set(o, o.table.bytes)
	c.previous, c.after = undo{}, nil
}

// onProof answers a group of commands that left no event.
func (o *owner) onProof(group []*command, err error) error {
	o.proofs--
	o.proving -= len(group)
	if errors.Is(err, appender.ErrRefused) || (err == nil && o.refused) {
		if !o.refused {
			o.takeBackAll(err)
		}
		return nil // decided on a state that is taken back: decided again with the rest
	}
	if err != nil {
		return err
	}
	for _, c := range group {
		if c.outcome.Kind == OutcomeDuplicate && c.outcome.Offset < 0 {
			c.outcome.Offset = o.offsetOf(c)
		}
		o.answer(c)
	}
	return nil
}

// offsetOf finds the offset of a duplicate's original, which was under way when it was decided.
func (o *owner) offsetOf(c *command) int64 {
	if s := o.table.get(c.streamID()); s != nil {
		if i, ok := s.window.position(c.windowKey()); ok {
			return s.window.entries[i].offset
		}
	}
	return -1
}

// answer sends what a final outcome demands: a letter for what cannot be read, a reply for those
// who ask.
func (o *owner) answer(c *command) {
	c.phase = phaseAnswered
	o.metrics.outcome(c.outcome.Kind)
	if o.engine.cfg.OnOutcome != nil {
		o.engine.cfg.OnOutcome(o.category.Name, o.partition, c.record.Offset, c.outcome)
	}
	if c.direct != nil {
		o.settle(c, answered{outcome: c.outcome})
		return
	}
	if !o.engine.outbox.answer(o, c) {
		o.finish(c)
		return
	}
	o.unsent++
	if plantedCommitPastReply {
		o.finish(c)
	}
}

// onSent finishes a command whose reply, letter or re-route is acknowledged.
func (o *owner) onSent(c *command, err error) error {
	o.unsent--
	if err != nil {
		c.phase = phaseDecided // taken up again by the next term
		return fmt.Errorf("outgoing record of command offset %d: %w", c.record.Offset, err)
	}
	o.finish(c)
	return nil
}

func (o *owner) finish(c *command) { c.phase = phaseDone }

// advance moves the committable offset past all commands that are done (W11).
func (o *owner) advance() {
	n := 0
	for n < len(o.unfinished) && o.unfinished[n].phase == phaseDone {
		o.committable.Store(o.unfinished[n].record.Offset + 1)
		if o.keeper != nil {
			o.keeper.handledCommand(o.unfinished[n])
		}
		o.unfinished[n] = nil
		n++
	}
	if n > 0 {
		o.unfinished = o.unfinished[n:]
		if len(o.unfinished) == 0 {
			o.unfinished = nil
		}
	}
	o.metrics.pending(len(o.unfinished))
}

// onTick renews the claim (W3), keeps an idle producer alive and forgets old command ids.
func (o *owner) onTick() error {
	now := o.clock()
	o.keeper.keepAlive(now)
	switch {
	case now.After(o.sweepAt):
		o.table.sweep(o.category.limits, o.logTime())
		o.budget.set(o, o.table.bytes)
		o.sweepAt = now.Add(sweepInterval)
	case now.After(o.renewAt):
		o.renewing = true
	case o.prove.Swap(false) || now.Sub(o.lastAppend) > o.engine.limits.keepaliveAfter:
		o.lastAppend = now
		o.writer.AppendKeepalive(func(r appender.Result) {
			if r.Err != nil {
				o.log.Warn("keep-alive failed", "cause", r.Err)
			}
			o.mailbox.signal() // a renewal may wait for it
		})
		o.writer.Flush()
	}
	return nil
}

// idle says whether nothing of this writer's is under way, keep-alives included.
func (o *owner) idle() bool {
	entries, _ := o.writer.Waiting()
	return entries == 0 && o.appended.len() == 0 && o.proofs == 0 && len(o.unproven) == 0
}

const sweepInterval = 10 * time.Minute

func unixTime(seconds int64) time.Time { return time.Unix(seconds, 0) }

func unixOrZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func reflectTypeOf(v any) reflect.Type { return reflect.TypeOf(v) }

// fifo is a queue that reuses its memory.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int   { return len(f.items) - f.head }
func (f *fifo[T]) at(i int) T { return f.items[f.head+i] }
func (f *fifo[T]) push(v T)   { f.items = append(f.items, v) }

// unpop puts an item before all others.
func (f *fifo[T]) unpop(v T) {
	if f.head == 0 {
		f.items = append(f.items, v)
		copy(f.items[1:], f.items)
		f.items[0] = v
		return
	}
	f.head--
	f.items[f.head] = v
}

func (f *fifo[T]) pop() T {
	var zero T
	v := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	switch {
	case f.head == len(f.items):
		f.items, f.head = f.items[:0], 0
	case f.head > 1024 && f.head > len(f.items)/2:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return v
}

func (f *fifo[T]) clear() { f.items, f.head = nil, 0 }
