package appender

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

// Writer is the ownership of one partition, from a claim to its end.
//
// Append, AppendKeepalive and Prove gather; Flush sends. What they were given is answered through
// done, once each and in the order given, from a goroutine of the appender: done must be cheap
// and must not call back into the writer. One goroutine at a time calls Append, AppendKeepalive,
// Prove, Flush and Resume; the rest may be called from any.
//
// A refusal (ErrRefused, ErrTooLarge) does not end the writer, but it puts up a barrier: whatever
// was gathered behind the refused entry was decided on state that is now not stored, so it is
// refused too, and so is whatever else is appended, proofs included, until the caller has taken
// its state back to what is acknowledged and calls Resume. Without the barrier this happens:
//
//	caller   decides e1 (version 7) and e2 (version 8) of one stream, appends both
//	broker   refuses the batch of e1
//	caller   has not read that answer yet; decides e3 (version 9), appends it
//	broker   stores e3: a stream with a gap
type Writer struct {
	a           *Appender
	p           Partition
	claim       event.Claim
	compacted   bool
	claimOffset int64
	graceUntil  time.Time // until then an unknown topic id is retried; zero once claimed
	claimed     bool      // the caller has it; before, it is the claim's own

	waitingEntries, waitingBytes atomic.Int64

	mu      sync.Mutex
	queue   []*batch // full batches, oldest first
	gather  *batch   // takes the next entry; nil until there is one
	flight  *batch   // under way, or waiting for its retry
	flushed bool     // gather is to be sent
	// scheduled: exactly one goroutine of the appender (a sender or the router) holds the writer,
	// in its list or at work on it. The holder alone touches flight's contents and calls done.
	scheduled  bool
	sender     *sender // of the leader last known; nil: the router finds it
	nextSeq    int32
	nextOffset int64 // base offset expected of the next batch; -1 when any will do
	refusal    error // the barrier
	err        error
	dead       chan struct{}

	// For the holder: when the flight failed last, and not before when it is sent again.
	failedAt time.Time
	retryAt  time.Time
	// failure is the last reason for a retry, for the message of a claim that ran out of time.
	failure atomic.Pointer[string]
}

// ClaimOffset is where the claim record stands; the first entry follows it. After a re-claim the
// caller compares it with the former writer's NextOffset: unless they are equal somebody else
// wrote in between, and all state is to be dropped and recovered in full (PROTOCOL W4).
func (w *Writer) ClaimOffset() int64 { return w.claimOffset }

// NextOffset is where the next batch will stand: one past the last acknowledged record.
func (w *Writer) NextOffset() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nextOffset
}

// Held is the producer id and epoch that the claim stands under.
func (w *Writer) Held() event.Claim { return w.claim }

// Append gathers the records as one atomic entry: they will stand next to each other in one
// batch, or not at all. It encodes at once and keeps nothing of the slices. It does not block, and
// it does not send: Flush does, so that a whole poll is gathered first.
func (w *Writer) Append(records []Record, done func(Result)) {
	w.append(records, entry{done: done})
}

// AppendKeepalive gathers a keep-alive record, which keeps the broker from forgetting an idle
// producer (PROTOCOL W3). Its headers are all it has, but that on a compacted topic, which takes
// no record without a key, each keep-alive replaces the one before.
func (w *Writer) AppendKeepalive(done func(Result)) {
	w.append([]Record{w.keepalive()}, entry{done: done})
}

// Prove calls done(nil) once there is a proof of ownership that was sent after this call (PROTOCOL
// W15): the acknowledgement of what is gathered; when nothing is, a keep-alive, or with
// Config.ProveByListOffsets the leader's word that the partition ends where this writer ended it.
// As with Append it is Flush that sends. done gets an error that wraps ErrRefused when an entry
// before it was refused, else the error that ended the writer.
func (w *Writer) Prove(done func(error)) {
	w.mu.Lock()
	b := w.gathering()
	e := entry{prove: done, first: b.records, err: w.refusal}
	if e.err == nil {
		b.proofs++
	}
	w.enter(b, e)
	held := w.hurryAnswered(e.err)
	w.mu.Unlock()
	w.afterSchedule(held)
}

func (w *Writer) append(records []Record, e entry) {
	w.mu.Lock()
	e.err = w.refusal
	b := w.gathering()
	if e.err == nil {
		b, e = w.encode(b, records, e)
	}
	w.enter(b, e)
	held := w.hurryAnswered(e.err)
	w.mu.Unlock()
	w.afterSchedule(held)
}

// encode puts the records into b, or, when b is full, into the batch after it. An entry that no
// batch can hold puts up the barrier.
func (w *Writer) encode(b *batch, records []Record, e entry) (*batch, entry) {
	bytesMax := w.a.cfg.BatchBytesMax
	if len(records) == 0 {
		w.refusal = fmt.Errorf("%w: an entry without records", ErrRefused)
		e.err = w.refusal
		return b, e
	}
	e.first = b.records
	bytes, fits := b.add(records, w.a.cfg.Clock, bytesMax)
	if !fits && b.records > 0 {
		w.queue = append(w.queue, b)
		w.gather = nil
		b = w.gathering()
		e.first = 0
		bytes, fits = b.add(records, w.a.cfg.Clock, bytesMax)
	}
	if !fits {
		w.refusal = fmt.Errorf("%w: %d records for %s are more than %d bytes", ErrTooLarge, len(records), w.p, bytesMax)
		e.err = w.refusal
	}
	e.bytes = bytes
	return b, e
}

func (w *Writer) gathering() *batch {
	if w.gather == nil {
		w.gather = w.a.batches.get()
	}
	return w.gather
}

func (w *Writer) enter(b *batch, e entry) {
	b.entries = append(b.entries, e)
	w.waitingEntries.Add(1)
	w.waitingBytes.Add(int64(e.bytes))
}

// hurryAnswered has an entry told at once whose answer is already known: it was refused, or the
// writer is dead.
func (w *Writer) hurryAnswered(err error) (held bool) {
	if err == nil && w.err == nil {
		return false
	}
	w.flushed = true
	return w.schedule()
}

// Flush has everything sent that was given to Append, AppendKeepalive and Prove. While a batch is
// under way the rest goes on gathering, and is sent as soon as that is acknowledged.
func (w *Writer) Flush() {
	w.mu.Lock()
	held := false
	if w.gather != nil || len(w.queue) > 0 {
		w.flushed = true
		held = w.schedule()
	}
	w.mu.Unlock()
	w.afterSchedule(held)
}

// Resume takes down the barrier that a refusal put up: from now on entries and proofs are taken
// again, as decided on state that does not hold anything refused. Without a refusal it does
// nothing.
func (w *Writer) Resume() {
	w.mu.Lock()
	w.refusal = nil
	w.mu.Unlock()
}

// Waiting counts the entries and proofs that are not answered yet, and their bytes as encoded.
func (w *Writer) Waiting() (entries, bytes int) {
	return int(w.waitingEntries.Load()), int(w.waitingBytes.Load())
}

// Full says whether Config.WaitingBytesMax waits: the caller should not begin another poll.
func (w *Writer) Full() bool { return int(w.waitingBytes.Load()) >= w.a.cfg.WaitingBytesMax }

// Dead is closed when the writer takes nothing more: fenced, lost or closed. Err says which.
func (w *Writer) Dead() <-chan struct{} { return w.dead }

// Err is nil while the writer lives, else wraps ErrFenced, ErrLost or ErrClosed.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends the writer. A request under way is waited for, and its answer told; a batch is not
// retried any more, and what waited behind it ends with FateError{ErrClosed, NotSent}. Close does
// not wait for any of it; closing twice is harmless.
func (w *Writer) Close() { w.die(fmt.Errorf("%w: writer of %s", ErrClosed, w.p)) }

// die ends the writer for one cause, the first.
func (w *Writer) die(cause error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = cause
	close(w.dead)
	held, claimed := w.schedule(), w.claimed
	w.mu.Unlock()
	w.a.forget(w)
	w.a.router.nudge() // it may hold the writer
	w.afterSchedule(held)
	if claimed && !errors.Is(cause, ErrClosed) {
		w.a.cfg.Logger.Warn("writer lost its partition", "partition", w.p.String(),
			"producer", w.claim.ProducerID, "epoch", w.claim.Epoch, "cause", cause)
	}
}

// schedule hands the writer to a goroutine of the appender, unless one holds it already. When the
// appender is closed there is none: then it returns true, and the caller is the holder and calls
// afterSchedule without the lock.
func (w *Writer) schedule() (held bool) {
	if w.scheduled {
		return false
	}
	w.scheduled = true
	if w.sender != nil {
		return !w.sender.push(w)
	}
	return !w.a.router.push(w)
}

func (w *Writer) afterSchedule(held bool) {
	if held {
		w.next()
	}
}

// next is the holder's: it tells every entry whose answer is known and returns the batch to send.
// When there is none the writer is nobody's again.
func (w *Writer) next() *batch {
	for {
		b, sent, cause := w.head()
		switch {
		case b == nil:
			return nil
		case cause != nil:
			w.tell(b, 0, &FateError{Cause: cause, NotSent: !sent})
		case b.sealed || b.listing:
			return b
		case b.records > 0 || b.proofs > 0:
			w.ready(b)
			return b
		default:
			w.tell(b, 0, nil) // each of its entries was refused before
		}
	}
}

// head takes the next batch; it becomes the flight. cause is set when the writer is dead, then
// sent says whether the batch may be in the log.
func (w *Writer) head() (b *batch, sent bool, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.flight != nil:
		b = w.flight
		sent = b.attempts > 0
	case len(w.queue) > 0 && (w.flushed || w.err != nil):
		b = w.queue[0]
		w.queue = append(w.queue[:0], w.queue[1:]...)
	case w.gather != nil && (w.flushed || w.err != nil):
		b = w.gather
		w.gather, w.flushed = nil, false
	default:
		w.scheduled = false
		return nil, false, nil
	}
	w.flight = b
	return b, sent, w.err
}

// ready makes a batch that has not been sent yet fit for it.
func (w *Writer) ready(b *batch) {
	if b.records == 0 {
		if w.a.cfg.ProveByListOffsets {
			b.listing = true
			b.expected = w.nextOffset
			return
		}
		b.add([]Record{w.keepalive()}, w.a.cfg.Clock, w.a.cfg.BatchBytesMax)
	}
	b.seal(w.claim, w.nextSeq, w.nextOffset)
}

// tell answers the entries of the flight and lets go of it. An entry that was refused before it
// was sent keeps that answer.
func (w *Writer) tell(b *batch, base int64, err error) {
	w.mu.Lock()
	w.flight = nil
	w.mu.Unlock()
	w.answer(b, base, err)
}

func (w *Writer) answer(b *batch, base int64, err error) {
	bytes := 0
	for i := range b.entries {
		bytes += b.entries[i].bytes
	}
	w.waitingEntries.Add(-int64(len(b.entries)))
	w.waitingBytes.Add(-int64(bytes))
	for i := range b.entries {
		e := &b.entries[i]
		if e.err != nil {
			e.tell(0, e.err)
			continue
		}
		e.tell(base+int64(e.first), err)
	}
	w.a.batches.put(b)
}

// acked ends the flight well, if it stands where it must (PROTOCOL W5).
func (w *Writer) acked(b *batch, base int64) {
	if b.expected >= 0 && base != b.expected {
		w.die(fmt.Errorf("%w: the batch on %s stands at offset %d, expected %d: somebody else wrote to the partition; take it over anew and look for a second writer",
			ErrLost, w.p, base, b.expected))
		return
	}
	w.mu.Lock()
	w.flight = nil
	w.nextSeq = nextSequence(w.nextSeq, b.records)
	w.nextOffset = base + int64(b.records)
	w.mu.Unlock()
	w.answer(b, base, nil)
}

// refused ends the flight, and with it all that was gathered behind; the sequence is not used.
func (w *Writer) refused(b *batch, cause error) {
	refusal := fmt.Errorf("%w: %s: %w", ErrRefused, w.p, cause)
	behind := fmt.Errorf("%w: it was appended behind a refused batch on %s; take the state back and call Resume", ErrRefused, w.p)
	w.mu.Lock()
	rest := w.queue
	if w.gather != nil {
		rest = append(rest, w.gather)
	}
	w.flight, w.queue, w.gather, w.flushed = nil, nil, nil, false
	w.refusal = behind
	w.mu.Unlock()
	w.answer(b, 0, refusal)
	for _, b := range rest {
		w.answer(b, 0, behind)
	}
}

// failed notes an attempt without a result: the holder hands the writer to the router.
func (w *Writer) failed(b *batch, reason string, now time.Time) {
	w.failure.Store(&reason)
	w.failedAt = now
	w.retryAt = now.Add(time.Duration(min(b.attempts-1, 8)) * w.a.cfg.MetadataInterval)
	w.a.cfg.Observe.BatchRetried(w.p, reason)
}

// tooOld says whether the flight may not be sent again (PROTOCOL W3).
func (w *Writer) tooOld(b *batch) bool {
	return b != nil && b.attempts > 0 && w.a.cfg.Clock().Sub(b.firstSent) > w.a.cfg.RetryAgeMax
}

// pending is the flight, for the holder.
func (w *Writer) pending() *batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flight
}
