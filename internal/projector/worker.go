package projector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// letterSink writes letters and waits for them; *deadletter.Sink is one.
type letterSink interface {
	Produce(ctx context.Context, letters ...deadletter.Letter) ([]deadletter.Placed, error)
}

// lettered is a letter with what its row needs beside it.
type lettered struct {
	deadletter.Letter
	placed  deadletter.Placed
	typ     string
	version *int64
}

// worker applies one partition. run is its only goroutine; what others ask for is in status.
type worker struct {
	cfg      *Config
	place    place
	category string
	store    *store
	decoder  *decoder
	sink     letterSink
	metrics  *metrics
	view     string // label: <name>.v<N>
	log      *slog.Logger
	queue    *queue
	gate     *gate
	breaker  *breaker           // nil: a tool's worker
	resume   func(place)        // fetch the partition again
	onFenced func(place, error) // called once, when another worker has taken over

	// Of run alone.
	epoch  int64
	at     position
	verify bool // the record at at.next-1 comes first, and must have at.lastEventID
	parked map[string]int64
	cache  *rowCache
	// In bulk: the batch is tried with look-ups, since the log misled about what is new.
	looksUp     bool
	corrections corrections

	status status
	// ctx ends the worker: no batch is begun after it. hard ends the batch under way.
	ctx, hard        context.Context
	cancel, hardStop context.CancelFunc
	done             chan struct{}
}

// status is what a worker shows to others.
type status struct {
	mu           sync.Mutex
	topicID      string
	next         int64
	end          int64     // high watermark
	lastStamp    time.Time // of the last record applied
	waitingSince time.Time // zero while nothing waits; else since when without progress
	stopped      error
	stalled      bool
}

func (s *status) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// offer takes what was fetched. It never blocks; pause says that the partition is to be paused.
func (w *worker) offer(topicID [16]byte, end int64, records []*kgo.Record) (pause bool) {
	w.status.mu.Lock()
	w.status.end = end
	w.status.topicID = event.FormatTopicID(topicID)
	if w.status.stopped != nil {
		w.status.mu.Unlock()
		return true
	}
	if len(records) > 0 && w.status.waitingSince.IsZero() {
		w.status.waitingSince = w.cfg.Clock()
	}
	w.status.mu.Unlock()
	w.showLag()
	if len(records) == 0 {
		return false
	}
	return w.queue.push(records)
}

// run applies batch after batch until ctx ends, the partition is lost, or it must stop.
func (w *worker) run() {
	defer close(w.done)
	defer w.queue.close()
	for {
		records, resume := w.queue.take(w.ctx, w.cfg.BatchRecordsMax, w.cfg.BatchBytesMax)
		if resume {
			w.resume(w.place)
		}
		if len(records) == 0 || !w.gate.wait(w.ctx) {
			return
		}
		if err := w.apply(records); err != nil {
			w.end(err)
			return
		}
		w.progress(records)
	}
}

// end records why the worker ends by itself.
func (w *worker) end(err error) {
	switch {
	case errors.Is(err, errFenced):
		w.cache.clear()
		w.metrics.fenced.WithLabelValues(w.view).Inc()
		w.log.Warn("partition was taken over by another worker", "epoch", w.epoch)
		w.onFenced(w.place, err)
	case w.hard.Err() != nil || w.ctx.Err() != nil:
		// Revoked or shutting down: what was not committed is applied by the next owner.
	default:
		w.halt(err)
	}
}

// halt stops the partition until a person has looked at it.
func (w *worker) halt(err error) {
	w.status.mu.Lock()
	first := w.status.stopped == nil
	if first {
		w.status.stopped = fmt.Errorf("view %s, %s[%d] is stopped: %w", w.view, w.place.topic, w.place.partition, err)
	}
	w.status.waitingSince = time.Time{}
	w.status.mu.Unlock()
	if !first {
		return
	}
	w.queue.close()
	w.gauge(w.metrics.stopped, 1)
	w.log.Error("partition is stopped: it needs a person, then a restart", "error", err)
}

func (w *worker) progress(records []*kgo.Record) {
	w.status.mu.Lock()
	w.status.next = w.at.next
	w.status.lastStamp = records[len(records)-1].Timestamp
	w.status.waitingSince = time.Time{}
	if w.queue.len() > 0 {
		w.status.waitingSince = w.cfg.Clock()
	}
	w.status.mu.Unlock()
	w.gauge(w.metrics.offset, float64(w.at.next))
	w.gauge(w.metrics.parked, float64(len(w.parked)))
	w.showLag()
}

func (w *worker) showLag() {
	w.status.mu.Lock()
	lag, age := int64(0), time.Duration(0)
	if w.status.next >= 0 {
		lag = max(0, w.status.end-w.status.next)
	}
	if lag > 0 && !w.status.lastStamp.IsZero() {
		age = max(0, w.cfg.Clock().Sub(w.status.lastStamp))
	}
	w.status.mu.Unlock()
	w.gauge(w.metrics.lag, float64(lag))
	w.gauge(w.metrics.lagAge, age.Seconds())
}

func (w *worker) gauge(g *prometheus.GaugeVec, v float64) {
	g.WithLabelValues(w.view, w.place.topic, strconv.Itoa(int(w.place.partition))).Set(v)
}

// apply applies records, in as many tries as infrastructure makes necessary. It returns nil once
// they are committed, and an error when the partition must not go on here.
func (w *worker) apply(records []*kgo.Record) error {
	if err := w.check(records); err != nil {
		return err
	}
	b := newBatch(w.category, w.store.view, w.at, records)
	if b.after.next == w.at.next {
		return nil // all of it was applied before
	}
	b.after.topicID = w.at.topicID
	err := w.try(b)
	if errors.Is(err, errHalve) {
		half := len(records) / 2
		if err := w.apply(records[:half]); err != nil {
			return err
		}
		return w.apply(records[half:])
	}
	var at *fateAt
	if !errors.As(err, &at) || deadletter.FateOf(err).Verdict != deadletter.Stop {
		return err
	}
	// What lies before the record that stops the partition still counts.
	if head := b.before(w.category, w.store.view, w.at, at.offset); head.after.next != w.at.next {
		head.after.topicID = w.at.topicID
		if headErr := w.try(head); headErr != nil {
			return headErr
		}
	}
	return err
}

// check holds the position against the log (PROTOCOL W9): the same topic, and the same event
// just before the position.
func (w *worker) check(records []*kgo.Record) error {
	w.status.mu.Lock()
	fetched := w.status.topicID
	w.status.mu.Unlock()
	if w.at.topicID == "" {
		w.at.topicID = fetched
	}
	if fetched != w.at.topicID {
		return topicChanged(w.place.topic, w.at.topicID, fetched)
	}
	if !w.verify {
		return nil
	}
	w.verify = false
	rec := records[0]
	if rec.Offset != w.at.next-1 {
		return nil // deleted by retention since the position was taken
	}
	if id, _ := event.HeaderValue(rec.Headers, event.HeaderID); string(id) != w.at.lastEventID {
		return stopAt(rec.Offset, "log-changed", "the log has another event at offset %d than the one that this view applied (have id %q, want %q): the log lost records and was written on; rebuild the view",
			rec.Offset, deadletter.CleanText(string(id), event.IDBytesMax), w.at.lastEventID)
	}
	return nil
}

func topicChanged(topic, stored, found string) error {
	return deadletter.Stopped("topic-id", fmt.Errorf("topic %s is not the one that this view has read (its id is %s, the offset row has %s): it was deleted and made again; restore the old topic, or drop this view version's schema and its offset rows and let it rebuild",
		topic, found, stored))
}

// errHalve: the batch came to too many rows, or failed often enough to suspect its size. A transaction whose folding takes
// longer than idleTimeout is ended by Postgres however often it is tried; half of it may pass.
var errHalve = errors.New("batch is to be halved")

// halveAfter is the number of tries before a batch of several records is halved.
const halveAfter = 3

// try runs transactions until one commits, or something says that none will.
func (w *worker) try(b *batch) error {
	wait := w.cfg.RetryMin
	carefully := false
	for attempt := 1; ; attempt++ {
		start := w.cfg.Clock()
		done, err := w.transaction(w.hard, b, carefully, attempt)
		if err == nil {
			w.commit(b, done, w.cfg.Clock().Sub(start))
			return nil
		}
		if errors.Is(err, errFenced) || errors.Is(err, errHalve) || w.hard.Err() != nil {
			return err
		}
		if errors.Is(err, errPaused) {
			w.gate.set(true)
			if !w.gate.wait(w.ctx) {
				return err
			}
			attempt--
			continue
		}
		if w.lookUp(err) {
			attempt--
			continue
		}
		switch fate := deadletter.FateOf(err); fate.Verdict {
		case deadletter.Stop:
			return err
		case deadletter.Park:
			if carefully {
				return deadletter.Stopped("refused", fmt.Errorf("Postgres refuses the batch, but no event of it alone: %w", err))
			}
			carefully = true // find the event at fault
		default:
			w.metrics.retries.WithLabelValues(w.view, fate.Class).Inc()
			w.log.Warn("batch failed, trying again", "attempt", attempt, "in", wait, "error", err)
			if !pause(w.ctx, wait) {
				return err
			}
			if attempt >= halveAfter && len(b.records) > 1 {
				return errHalve
			}
			wait = min(2*wait, w.cfg.RetryMax)
		}
	}
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outcome is what a transaction did, to be believed once it is committed.
type outcome struct {
	streams []*streamWork
	parked  map[string]int64 // of the partition, after the batch
	letters []lettered
	slots   slotCounts // of the snapshots alone

	corrected int // events skipped on record
}

// transaction applies a batch in one Postgres transaction (PROTOCOL P1). carefully: a try at full
// speed was refused for its data, so apply in parts and let the event at fault become a letter.
func (w *worker) transaction(ctx context.Context, b *batch, carefully bool, attempt int) (*outcome, error) {
	if err := w.decoder.decode(ctx, b); err != nil {
		return nil, err
	}
	if err := w.store.makeMonths(ctx, b); err != nil {
		return nil, err
	}
	tx, err := w.store.db.Begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	parked, asked, err := w.store.fence(ctx, tx, w.place, w.epoch, w.at.next, b.after)
	if err != nil {
		return nil, err
	}
	if err := w.learnCorrections(ctx, tx, asked.revision); err != nil {
		return nil, err
	}
	corrected := w.corrections.apply(b, w.at.topicID)
	if w.store.view.Kind == kindSnapshots {
		return w.keepSlots(ctx, tx, b)
	}
	w.syncParked(parked)
	streams, apart := streamsOf(b, parked)
	if err := w.fold(ctx, tx, streams); err != nil {
		return nil, err
	}
	if countRows(streams) > w.rowsMax() && len(b.records) > 1 {
		return nil, errHalve
	}
	open := unparked(streams)
	if carefully {
		err = w.writeCarefully(ctx, tx, open)
	} else {
		err = w.store.write(ctx, tx, w.category, open)
	}
	if err != nil {
		return nil, err
	}
	out := &outcome{streams: streams, parked: parked, corrected: corrected}
	if err := w.writeLetters(ctx, tx, b, out, apart, asked.letters, attempt); err != nil {
		return nil, err
	}
	return out, w.settle(ctx, tx, b)
}

// settle commits, and where the outcome is unknown, asks the offset row.
func (w *worker) settle(ctx context.Context, tx pgx.Tx, b *batch) error {
	err := commit(ctx, tx)
	var unknown *commitUnknownError
	if !errors.As(err, &unknown) {
		return err
	}
	w.log.Warn("outcome of COMMIT unknown, reading the offset row again", "error", err)
	for wait := w.cfg.RetryMin; ; wait = min(2*wait, w.cfg.RetryMax) {
		epoch, next, readErr := w.store.positionOf(ctx, w.place)
		switch {
		case readErr != nil && pause(ctx, wait):
			continue
		case readErr != nil:
			return err
		case epoch != w.epoch:
			return errFenced
		case next == b.after.next:
			return nil // it was committed
		}
		return deadletter.Retried("commit", err)
	}
}

// syncParked drops what is remembered of streams whose parking changed since the last batch: a
// redrive applies events behind this worker's back, under the offset row's lock (PROTOCOL P3).
func (w *worker) syncParked(parked map[string]int64) {
	for key := range w.parked {
		if _, still := parked[key]; !still {
			w.cache.drop(key)
		}
	}
	for key := range parked {
		if _, known := w.parked[key]; !known {
			w.cache.drop(key)
		}
	}
	w.parked = parked
}

// fold reads what is not remembered of the streams, and folds their steps.
func (w *worker) fold(ctx context.Context, tx pgx.Tx, streams []*streamWork) error {
	var missing []string
	for _, s := range streams {
		if s.parked >= 0 {
			continue
		}
		var known bool
		if s.before, known = w.cache.get(s.id.ID); !known && !w.begins(s) {
			missing = append(missing, s.id.ID)
		}
	}
	var loaded map[string]stored
	if len(missing) > 0 {
		var err error
		if loaded, err = w.store.load(ctx, tx, w.category, missing); err != nil {
			return err
		}
	}
	for _, s := range streams {
		if s.parked >= 0 {
			continue
		}
		if found, ok := loaded[s.id.ID]; ok {
			s.before = found
		}
		if err := s.fold(w.store.view); err != nil {
			return err
		}
	}
	return nil
}

// batchRowsMax bounds the rows that the events of one transaction append or add: a batch that comes
// to more is halved. One event may exceed it.
const batchRowsMax = 50_000

func (w *worker) rowsMax() int {
	if w.store.bulk {
		return 4 * batchRowsMax
	}
	return batchRowsMax
}

func countRows(streams []*streamWork) (n int) {
	for _, s := range streams {
		n += len(s.rows)
	}
	return n
}

func unparked(streams []*streamWork) []*streamWork {
	return slices.DeleteFunc(slices.Clone(streams), func(s *streamWork) bool { return s.parked >= 0 })
}

// writeCarefully halves the streams until only those with a refused event are left.
func (w *worker) writeCarefully(ctx context.Context, tx pgx.Tx, streams []*streamWork) error {
	if len(streams) == 0 {
		return nil
	}
	err := w.inSavepoint(ctx, tx, streams)
	if err == nil || deadletter.FateOf(err).Verdict != deadletter.Park {
		return err
	}
	if len(streams) == 1 {
		return w.writeEventByEvent(ctx, tx, streams[0])
	}
	half := len(streams) / 2
	if err := w.writeCarefully(ctx, tx, streams[:half]); err != nil {
		return err
	}
	return w.writeCarefully(ctx, tx, streams[half:])
}

// writeEventByEvent applies a stream up to the event that Postgres refuses, which parks it.
func (w *worker) writeEventByEvent(ctx context.Context, tx pgx.Tx, s *streamWork) error {
	steps := s.steps
	if s.failedAt >= 0 {
		steps = steps[:s.failedAt]
	}
	total := effect{after: s.before}
	for i, st := range steps {
		one, err := foldSteps(w.store.view, s.id, total.after, []*step{st})
		if err != nil {
			return err
		}
		err = w.inSavepoint(ctx, tx, []*streamWork{{id: s.id, before: total.after, effect: one}})
		switch {
		case err == nil:
			total.add(one)
		case deadletter.FateOf(err).Verdict == deadletter.Park:
			s.failedAt, s.failure = i, err
			s.effect = total
			return nil
		default:
			return err
		}
	}
	s.effect = total
	return nil
}

// inSavepoint writes, and undoes just that when it is refused.
func (w *worker) inSavepoint(ctx context.Context, tx pgx.Tx, streams []*streamWork) error {
	nested, err := tx.Begin(ctx)
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	if err := w.store.write(ctx, nested, w.category, streams); err != nil {
		if back := nested.Rollback(ctx); back != nil {
			return fmt.Errorf("roll back to savepoint: %w", back)
		}
		return err
	}
	return nested.Commit(ctx)
}

// lettersTimeout bounds the writing of letters, during which the transaction is idle: below
// idleTimeout.
const lettersTimeout = 3 * time.Second

// writeLetters makes the batch's letters, writes their bytes to the topic, then their rows.
func (w *worker) writeLetters(ctx context.Context, tx pgx.Tx, b *batch, out *outcome, apart []*step, before map[string]int64, attempt int) error {
	letters, parks := w.letters(out.streams, apart, attempt)
	if len(letters) == 0 {
		return nil
	}
	if err := w.limitParked(out.parked, parks); err != nil {
		return err
	}
	if err := w.limitLetters(letters, before); err != nil {
		return err
	}
	var fresh []deadletter.Letter
	for _, l := range letters {
		if _, already := b.placed[l.Record.Offset]; !already {
			fresh = append(fresh, l.Letter)
		}
	}
	produceCtx, cancel := context.WithTimeout(ctx, lettersTimeout)
	defer cancel()
	placed, err := w.sink.Produce(produceCtx, fresh...)
	if err != nil {
		return deadletter.Retried("letters", err)
	}
	for i, l := range fresh {
		b.placed[l.Record.Offset] = placed[i]
	}
	for i := range letters {
		letters[i].placed = b.placed[letters[i].Record.Offset]
	}
	for key, first := range parks {
		out.parked[key] = first
	}
	out.letters = letters
	return w.store.writeLetters(ctx, tx, w.place, letters, parks)
}

// letters lists the batch's letters in the order of their offsets, and the streams that they park.
func (w *worker) letters(streams []*streamWork, apart []*step, attempt int) (letters []lettered, parks map[string]int64) {
	topicID, _ := event.ParseTopicID(w.at.topicID) // our own text
	consumer, now := w.store.consumer, w.cfg.Clock()
	parks = map[string]int64{}
	add := func(s *step, l deadletter.Letter) {
		made := lettered{Letter: l, typ: s.recorded.Type}
		if s.recorded.Version > 0 {
			version := int64(s.recorded.Version)
			made.version = &version
		}
		letters = append(letters, made)
	}
	for _, s := range apart {
		if s.void {
			add(s, deadletter.Void(consumer, topicID, s.rec, s.claim, now))
			continue
		}
		add(s, deadletter.New(consumer, topicID, s.rec, deadletter.Parked(deadletter.StageDecode, "envelope", s.envelope), attempt, now))
	}
	for _, stream := range streams {
		first := stream.parked
		if stream.failedAt >= 0 {
			first = stream.steps[stream.failedAt].rec.Offset
			parks[stream.id.ID] = first
			add(stream.steps[stream.failedAt], deadletter.New(consumer, topicID, stream.steps[stream.failedAt].rec, stream.failure, attempt, now))
		}
		for i, s := range stream.steps {
			if stream.blocked(i) {
				add(s, deadletter.Blocked(consumer, topicID, s.rec, first, now))
			}
		}
	}
	slices.SortFunc(letters, func(a, b lettered) int { return cmp.Compare(a.Record.Offset, b.Record.Offset) })
	return letters, parks
}

// limitParked stops the partition before the record that would park one key too many.
func (w *worker) limitParked(parked, parks map[string]int64) error {
	over := len(parked) + len(parks) - w.cfg.ParkedKeysMax
	if over <= 0 || len(parks) == 0 {
		return nil
	}
	offsets := make([]int64, 0, len(parks))
	for _, offset := range parks {
		offsets = append(offsets, offset)
	}
	slices.Sort(offsets)
	at := offsets[max(0, len(offsets)-over)]
	return stopAt(at, "parked-keys", "%d keys of this partition are parked, the limit is %d: resolve their letters (table letters, consumer %s), or raise the limit",
		len(parked), w.cfg.ParkedKeysMax, w.store.consumer)
}

// limitLetters stops the partition before the record that would be one letter too many of a stream.
func (w *worker) limitLetters(letters []lettered, before map[string]int64) error {
	counts := map[string]int64{}
	for _, l := range letters {
		key := string(l.Record.Key)
		if l.Reason == deadletter.ReasonVoid {
			continue
		}
		if counts[key]++; before[key]+counts[key] > int64(w.cfg.LettersPerKeyMax) {
			return stopAt(l.Record.Offset, "letters-of-key", "a parked stream has %d letters, the limit is %d: resolve them (table letters, consumer %s, partition %d, offsets up to this one), or raise the limit",
				before[key]+counts[key]-1, w.cfg.LettersPerKeyMax, w.store.consumer, w.place.partition)
		}
	}
	return nil
}

// commit takes over what a committed transaction did.
func (w *worker) commit(b *batch, out *outcome, took time.Duration) {
	w.at = b.after
	w.looksUp = false
	w.parked = out.parked
	applied, skipped := out.slots.applied, out.slots.skipped
	for _, s := range out.streams {
		applied += s.applied
		skipped += s.skipped
		if s.parked < 0 && s.applied > 0 {
			w.cache.put(s.id.ID, s.after)
		}
	}
	w.metrics.applied.WithLabelValues(w.view).Add(float64(applied))
	w.metrics.skipped.WithLabelValues(w.view).Add(float64(skipped))
	w.metrics.unreadable.WithLabelValues(w.view).Add(float64(out.slots.unreadable))
	w.metrics.corrected.WithLabelValues(w.view).Add(float64(out.corrected))
	w.metrics.batches.WithLabelValues(w.view).Inc()
	w.metrics.seconds.WithLabelValues(w.view).Observe(took.Seconds())
	w.metrics.records.WithLabelValues(w.view).Observe(float64(len(b.records)))
	failed := 0
	for _, l := range out.letters {
		if l.Reason == deadletter.ReasonFailed {
			failed++
		}
		w.metrics.letters.WithLabelValues(w.view, string(l.Reason)).Inc()
		if l.Reason == deadletter.ReasonVoid {
			w.metrics.void.WithLabelValues(w.view).Inc()
		}
		w.log.Warn("record became a letter", "offset", l.Record.Offset, "reason", l.Reason, "stage", l.Stage, "class", l.Class, "letter", l.ID)
	}
	w.breaks(failed, applied)
}
