package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// SnapshotConfig says when a category's streams are saved. The zero value of a field means its
// default.
type SnapshotConfig struct {
	// Policy says when the latest snapshot of a changed stream is due; default snapshot.Default().
	Policy snapshot.Policy
	// HistoryEvery is after how many versions an older state is kept beside the latest; default 100.
	HistoryEvery int
	// HistoryAgeMax is after how long it is removed; default 30 days.
	HistoryAgeMax time.Duration
	// CheckpointInterval is the least time between two checkpoints of a partition; default 5 s.
	CheckpointInterval time.Duration
	// ShareMax bounds the bytes of snapshots by those of the events appended, so that saving costs
	// little of the append rate; default 0.1. Streams that end after few events need that much, else the tail of
	// a restart grows for as long as the load lasts. A partition at rest saves everything that is
	// dirty, whatever share and policy say.
	ShareMax float64
}

func (c SnapshotConfig) withDefaults() SnapshotConfig {
	if c.Policy == nil {
		c.Policy = snapshot.Default()
	}
	def(&c.HistoryEvery, 100)
	def(&c.HistoryAgeMax, 30*24*time.Hour)
	def(&c.CheckpointInterval, 5*time.Second)
	def(&c.ShareMax, 0.1)
	return c
}

func (c SnapshotConfig) validate() error {
	var faults []error
	if c.HistoryEvery < 1 {
		faults = append(faults, fmt.Errorf("snapshots: HistoryEvery is %d", c.HistoryEvery))
	}
	if c.HistoryAgeMax < 0 || c.CheckpointInterval < 0 {
		faults = append(faults, fmt.Errorf("snapshots: HistoryAgeMax %s or CheckpointInterval %s is negative", c.HistoryAgeMax, c.CheckpointInterval))
	}
	if c.ShareMax < 0 || c.ShareMax > 1 {
		faults = append(faults, fmt.Errorf("snapshots: ShareMax %g is not within 0 and 1", c.ShareMax))
	}
	return errors.Join(faults...)
}

// keeper saves what an owner knows: the latest state of every changed stream, history slots, and
// the checkpoint that a restart begins at. It belongs to the owner's goroutine.
//
// # What a checkpoint may say
//
// "All state of event offsets ≤ X is in the snapshots" holds for the greatest X below the first
// event that is in no acknowledged snapshot. Streams become dirty in the order of their first such
// event, so X follows the head of one queue. Two bounds more:
//
//   - W12: X stays below every event whose command the group offset has not passed. Else:
//     event of command 7 is at or below X, its reply is not sent, the owner dies;
//     its successor reads snapshots and a tail without that event, finds 7 ≤ H,
//     and cannot answer what became of it.
//   - X stays at or above our own claim, since the checkpoint names the claim that counts behind X.
//
// # Never ahead of the log
//
// Only acknowledged state is saved. While commands of a stream are under way that is not its
// current state but the one before the oldest of them (stream.acked).
type keeper struct {
	o       *owner
	cfg     SnapshotConfig
	format  *snapshot.Format
	encoder *snapshotEncoder
	writer  *appender.Writer
	saved   func(appender.Result) // of this term

	dirty      map[string]*dirtyStream // by id: the newest, whose snapshot is not under way
	queue      fifo[*dirtyStream]      // by first
	due        fifo[*dirtyStream]      // by policy, before their turn
	inFlight   fifo[*saving]           // in append order
	budget     float64                 // snapshots that may be taken now
	acks       int                     // events acknowledged since the last turn
	handled    fifo[handledCommand]
	coverable  int64 // W12: the highest X that the group offset allows
	origins    map[originKey]int64
	claimAt    int64
	written    int64     // X of the last acknowledged checkpoint
	checkpoint bool      // one is under way
	lastAt     time.Time // of the last checkpoint
	lastAppend time.Time
	history    fifo[historySlot]
	historyAt  map[string]time.Time // by key, of the newest write
}

// dirtyStream is a stream whose latest snapshot lacks events.
type dirtyStream struct {
	id     string
	first  int64 // offset of the first event that it lacks
	since  time.Time
	events int
	fold   time.Duration
	isDue  bool
	taken  bool // a snapshot with all of its events is under way
}

// saving is a record under way to the snapshots partition.
type saving struct {
	first      int64 // as of dirtyStream; -1 for what covers no events
	checkpoint int64 // X, -1 for a snapshot
}

// handledCommand is a command whose reply is sent but that the group offset has not passed yet.
type handledCommand struct {
	command int64
	event   int64 // of its last event, -1 without one
	origin  *event.Origin
}

type historySlot struct {
	key string
	at  time.Time
}

// Numbers of the pace. A turn comes every keeperTick.
const (
	keeperTick         = 200 * time.Millisecond
	keeperBaseTurn     = 20    // snapshots a turn, whatever is appended
	keeperIdleTurn     = 2_000 // when nothing was appended since the last turn
	keeperInFlightMax  = 4_000
	keeperBudgetMax    = 4_000
	historySlotsMax    = 1_000_000
	foldTimeEstimation = 4 * time.Microsecond
	// A snapshot counts once for each so many bytes, about what an event takes with its headers: one
	// that remembers 128 commands has 8 KiB, and costs the broker as much as fourteen events.
	snapshotUnitBytes = 600
)

func newKeeper(o *owner, cfg SnapshotConfig, format *snapshot.Format) *keeper {
	return &keeper{o: o, cfg: cfg, format: format, dirty: map[string]*dirtyStream{}, origins: map[originKey]int64{}, coverable: -1, written: -1, historyAt: map[string]time.Time{}}
}

// claim starts a term: the snapshots partition is claimed like the events partition, so that a
// snapshot of an owner of old cannot replace ours.
func (k *keeper) claim(ctx context.Context, last appender.LastClaim, lastEventID string) error {
	info := k.o.claimInfo(lastEventID)
	info.Compacted = true
	encoder, err := newSnapshotEncoder(k.format)
	if err != nil {
		return err
	}
	w, err := k.o.engine.appender.Claim(ctx, k.target(), info, last, nil)
	if err != nil {
		return fmt.Errorf("claiming the snapshots: %w", err)
	}
	k.encoder = encoder
	k.writer = w
	return nil
}

// begin takes in what was recovered.
func (k *keeper) begin(r *recovery) {
	term := k.o.termNumber
	k.saved = func(res appender.Result) { k.o.mailbox.post(result{kind: resultSaved, append: res, term: term}) }
	k.claimAt = k.o.writer.ClaimOffset()
	k.written = r.covered
	k.lastAt, k.lastAppend = k.o.clock(), k.o.clock()
	for key, at := range r.origins {
		k.origins[key] = at
	}
	k.coverable = k.claimAt - 1
	if r.firstUncommitted >= 0 {
		k.coverable = min(k.coverable, r.firstUncommitted-1)
	}
	for _, d := range r.dirty {
		k.dirty[d.id] = d
		k.queue.push(d)
	}
	for _, slot := range r.snapshots.history {
		k.noteHistory(slot.key, slot.at)
	}
}

// renew claims anew, together with the events partition (W3). Nothing is under way.
func (k *keeper) renew(ctx context.Context) error {
	held, expected := k.writer.Held(), k.writer.NextOffset()
	p := k.target()
	info := k.o.claimInfo(k.o.lastEventID)
	info.Compacted = true
	k.writer.Close()
	carried := &held
	if plantedReclaimSteals {
		carried = nil
	}
	w, err := k.o.engine.appender.Claim(ctx, p, info, appender.LastClaim{Claim: held, Known: true}, carried)
	if err != nil {
		return fmt.Errorf("renewing the claim on the snapshots: %w", err)
	}
	k.writer = w
	if w.ClaimOffset() != expected && !plantedReclaimSteals {
		return fmt.Errorf("%w: the renewed claim on the snapshots stands at offset %d, expected %d", appender.ErrLost, w.ClaimOffset(), expected)
	}
	// A checkpoint names the claim that counts behind X: with the new claim, X must not lie before it.
	k.claimAt = k.o.writer.ClaimOffset()
	return nil
}

func (k *keeper) target() appender.Partition {
	return appender.Partition{
		Topic: k.o.topics.snapshots, TopicID: k.o.topics.snapshotsID, Partition: k.o.partition,
		TransactionalID: topics.TopicTransactionalID(k.o.topics.snapshots, k.o.partition),
	}
}

// keepAlive keeps the broker from forgetting an idle producer (W3).
func (k *keeper) keepAlive(now time.Time) {
	if now.Sub(k.lastAppend) <= k.o.engine.limits.keepaliveAfter {
		return
	}
	k.lastAppend = now
	k.inFlight.push(&saving{first: -1, checkpoint: -1})
	k.writer.AppendKeepalive(k.saved)
	k.o.engine.pacer.flush(k.writer)
}

func (k *keeper) end() {
	if k.writer != nil {
		k.writer.Close()
		k.writer = nil
	}
}

// promoted notes the events of an acknowledged command.
func (k *keeper) promoted(c *command, s *stream, firstOffset int64) {
	count := int(c.outcome.Last - c.outcome.First + 1)
	k.acks += count
	d := k.dirty[s.id]
	if d == nil {
		d = &dirtyStream{id: s.id, first: firstOffset, since: k.o.turnTime()}
		k.dirty[s.id] = d
		k.queue.push(d)
	}
	d.events += count
	if k.o.category.Decider != nil {
		d.fold += time.Duration(count) * foldTimeEstimation
	}
	if !d.isDue && k.cfg.Policy.Due(snapshot.Progress{Events: d.events, FoldTime: d.fold}) {
		d.isDue = true
		k.due.push(d)
	}
	every := event.Version(k.cfg.HistoryEvery)
	if k.o.category.Decider != nil && c.outcome.Last/every > (c.outcome.First-1)/every {
		k.saveHistory(c, s)
	}
}

// handledCommand notes a command that is done, for W12 and for the origins of the checkpoint.
func (k *keeper) handledCommand(c *command) {
	h := handledCommand{command: c.record.Offset, event: -1, origin: c.request.Origin}
	if c.outcome.Kind == OutcomeAccepted && c.outcome.Offset >= 0 {
		h.event = c.outcome.Offset
	}
	if h.event >= 0 || h.origin != nil {
		k.handled.push(h)
	}
}

// passCommitted takes in how far the group offset has come: below it no command comes again, so
// its events may be covered and its origin counts as handled.
func (k *keeper) passCommitted() {
	committed := k.o.committed.Load()
	for k.handled.len() > 0 && k.handled.at(0).command < committed {
		h := k.handled.pop()
		k.coverable = max(k.coverable, h.event)
		if h.origin != nil {
			key := originOf(*h.origin)
			if high, seen := k.origins[key]; !seen || h.origin.Offset > high {
				k.origins[key] = h.origin.Offset
			}
		}
	}
	// Commands at or below H that are not committed yet may still be on their way to us.
	if committed > k.o.highest && k.handled.len() == 0 && len(k.o.unfinished) == 0 {
		k.coverable = max(k.coverable, k.o.writer.NextOffset()-1)
	}
}

// turn takes the snapshots that are due and that the budget allows, then a checkpoint.
func (k *keeper) turn(now time.Time) error {
	k.passCommitted()
	idle := k.acks == 0
	k.budget += keeperBaseTurn + float64(k.acks)*k.cfg.ShareMax
	if idle {
		k.budget += keeperIdleTurn
	}
	k.budget = min(k.budget, keeperBudgetMax)
	k.acks = 0
	for k.due.len() > 0 && k.mayTake() {
		if d := k.due.pop(); !d.taken {
			if err := k.save(d, now); err != nil {
				return err
			}
		}
	}
	for k.queue.len() > 0 && k.mayTake() {
		d := k.queue.at(0)
		if !d.taken && !idle && !k.cfg.Policy.Due(snapshot.Progress{Events: d.events, Dirty: now.Sub(d.since), FoldTime: d.fold}) {
			break
		}
		k.queue.pop()
		if !d.taken {
			if err := k.save(d, now); err != nil {
				return err
			}
		}
	}
	k.expireHistory(now)
	k.saveCheckpoint(now)
	k.o.engine.pacer.flush(k.writer)
	return nil
}

func (k *keeper) mayTake() bool {
	return k.budget >= 1 && k.inFlight.len() < keeperInFlightMax
}

// save appends a stream's latest snapshot.
func (k *keeper) save(d *dirtyStream, now time.Time) error {
	d.taken = true
	delete(k.dirty, d.id)
	s := k.o.table.get(d.id)
	if s == nil {
		return nil
	}
	value, compressed, err := k.encode(s, now)
	if err != nil {
		return err
	}
	k.budget -= max(1, float64(len(value))/snapshotUnitBytes)
	k.append(snapshot.LatestKey(d.id), value, compressed, &saving{first: d.first, checkpoint: -1})
	k.o.metrics.snapshotted("latest")
	return nil
}

// encode makes the record of a stream's acknowledged state; one that does not fit is replaced by
// the mark that has the stream folded from its events.
func (k *keeper) encode(s *stream, now time.Time) ([]byte, bool, error) {
	acked := ackedState{s.version, s.state}
	if s.pending > 0 {
		acked = s.acked
	}
	if plantedSnapshotAhead {
		acked = ackedState{s.version, s.state}
	}
	snap := snapshot.Snapshot{
		Version: int64(acked.version), Offset: s.offset, EventsTopicID: k.o.topics.eventsID, TakenAt: now,
		StateVersion: k.stateVersion(), State: acked.state,
	}
	value, compressed, err := k.encoder.encode(snap, &s.window)
	if err == nil && len(value)+len(s.id) <= k.o.batchBytesMax {
		return value, compressed, nil
	}
	k.o.log.Warn("a stream's state does not fit a snapshot; it is folded from its events at every restart", "cause", err, "bytes", len(value))
	return k.format.EncodeSnapshot(snapshot.Snapshot{EventsTopicID: k.o.topics.eventsID, TakenAt: now})
}

func (k *keeper) stateVersion() int32 {
	if k.o.category.Decider == nil {
		return 0
	}
	return int32(k.o.category.Decider.StateVersion)
}

// saveHistory keeps the state after a command that reached or passed a multiple of HistoryEvery.
func (k *keeper) saveHistory(c *command, s *stream) {
	if k.historyAt == nil || k.history.len() >= historySlotsMax {
		return
	}
	now := k.o.clock()
	slot := int(c.outcome.Last) / k.cfg.HistoryEvery % snapshot.HistorySlots
	value, compressed, err := k.encoder.encode(snapshot.Snapshot{
		Version: int64(c.outcome.Last), Offset: c.outcome.Offset, EventsTopicID: k.o.topics.eventsID, TakenAt: now,
		StateVersion: k.stateVersion(), State: c.after,
	}, &window{})
	if err != nil || len(value)+len(s.id) > k.o.batchBytesMax {
		return // the latest says so already
	}
	key := snapshot.HistoryKey(s.id, slot)
	k.append(key, value, compressed, &saving{first: -1, checkpoint: -1})
	k.noteHistory(string(key), now)
	k.o.metrics.snapshotted("history")
}

func (k *keeper) noteHistory(key string, at time.Time) {
	k.history.push(historySlot{key, at})
	k.historyAt[key] = at
}

// expireHistory removes history slots that are too old.
func (k *keeper) expireHistory(now time.Time) {
	for k.history.len() > 0 && k.mayTake() {
		slot := k.history.at(0)
		if newest := k.historyAt[slot.key]; newest.After(slot.at) {
			k.history.pop() // written again since
			continue
		}
		if now.Sub(slot.at) < k.cfg.HistoryAgeMax {
			return
		}
		k.history.pop()
		delete(k.historyAt, slot.key)
		k.budget--
		k.append([]byte(slot.key), nil, false, &saving{first: -1, checkpoint: -1})
	}
}

// saveCheckpoint appends a checkpoint when it is worth one.
func (k *keeper) saveCheckpoint(now time.Time) {
	x := k.covered()
	if k.checkpoint || x <= k.written || x < k.claimAt || now.Sub(k.lastAt) < k.cfg.CheckpointInterval {
		return
	}
	c := snapshot.Checkpoint{
		Offset: x, LastEventOffset: k.o.lastEventOffset, LastEventID: k.o.lastEventID,
		EventsTopicID: k.o.topics.eventsID, CommandsTopicID: k.o.topics.commandsID, HighestCommand: k.o.ackedHighest,
		ProducerID: k.o.writer.Held().ProducerID, ProducerEpoch: int32(k.o.writer.Held().Epoch), Group: k.o.engine.cfg.Group, TakenAt: now,
	}
	if plantedCheckpointWithoutH {
		c.HighestCommand = -1
	}
	for key, offset := range k.origins {
		c.Origins = append(c.Origins, snapshot.Origin{TopicID: key.topicID, Partition: key.partition, Offset: offset})
	}
	value, err := k.format.EncodeCheckpoint(c)
	if err != nil {
		k.o.log.Error("checkpoint does not encode", "cause", err)
		return
	}
	k.checkpoint, k.lastAt = true, now
	k.append(snapshot.CheckpointKey(), value, false, &saving{first: -1, checkpoint: x})
}

// covered is the highest X that a checkpoint may say now.
func (k *keeper) covered() int64 {
	x := min(k.coverable, k.o.writer.NextOffset()-1)
	for k.queue.len() > 0 && k.queue.at(0).taken {
		k.queue.pop()
	}
	if k.queue.len() > 0 {
		x = min(x, k.queue.at(0).first-1)
	}
	for i := range k.inFlight.len() {
		if first := k.inFlight.at(i).first; first >= 0 {
			x = min(x, first-1)
		}
	}
	return x
}

var zstdHeader = []event.Header{{Key: snapshot.HeaderEncoding, Value: []byte(snapshot.EncodingZstd)}}

func (k *keeper) append(key, value []byte, compressed bool, s *saving) {
	record := [1]appender.Record{{Key: key, Value: value, Time: k.o.clock()}}
	if compressed {
		record[0].Headers = zstdHeader
	}
	k.inFlight.push(s)
	k.lastAppend = record[0].Time
	k.writer.Append(record[:], k.saved)
}

// onSaved takes in the fate of the oldest record under way. Any failure ends the term: the log
// knows everything that was to be saved.
func (k *keeper) onSaved(r appender.Result) error {
	s := k.inFlight.pop()
	if s.checkpoint >= 0 {
		k.checkpoint = false
	}
	if r.Err != nil {
		return fmt.Errorf("saving snapshots: %w", r.Err)
	}
	if s.checkpoint >= 0 {
		k.written = s.checkpoint
		k.o.metrics.checkpointed(s.checkpoint)
	}
	return nil
}

// restored is what a snapshots partition says.
type restored struct {
	checkpoint *snapshot.Checkpoint
	streams    *coldTable
	refold     map[string]bool // streams whose snapshot cannot be read
	history    []historySlot
	claim      appender.LastClaim
	unreadable int
	scratch    []remembered // reused by each snapshot that is read
}

// readSnapshots reads a snapshots partition. What does not match the topics of now is thrown away
// (W9): the answer then has no checkpoint, and all is folded from events.
func (o *owner) readSnapshots(ctx context.Context) (*restored, error) {
	in := &restored{streams: newColdTable(), refold: map[string]bool{}}
	start, end, err := o.engine.listOffsets(ctx, o.topics.snapshots, o.partition)
	if err != nil {
		return nil, err
	}
	tp := topicPartition{o.topics.snapshots, o.partition}
	err = o.engine.reader.readCompacted(ctx, tp, start, end-1, func(rec *kgo.Record) error {
		return o.retrying(ctx, rec.Offset, func() error { return in.visit(ctx, o, rec) })
	})
	if err != nil {
		return nil, err
	}
	if c := in.checkpoint; c == nil || c.EventsTopicID != o.topics.eventsID {
		if c != nil {
			o.log.Warn("snapshots are of another events topic; all is folded from the log")
		}
		in.discard()
	}
	return in, nil
}

func (in *restored) discard() {
	in.checkpoint, in.streams, in.refold, in.history = nil, newColdTable(), map[string]bool{}, nil
}

func (in *restored) visit(ctx context.Context, o *owner, rec *kgo.Record) error {
	if event.Control(rec.Headers) == event.ControlClaim {
		in.claim = appender.LastClaim{Claim: event.Claim{ProducerID: rec.ProducerID, Epoch: rec.ProducerEpoch}, Known: true}
		return nil
	}
	kind, id, _ := snapshot.ParseKey(rec.Key)
	switch kind {
	case snapshot.KeyCheckpoint:
		c, err := o.engine.snapshots.DecodeCheckpoint(ctx, rec.Value, rec.Headers)
		if errors.Is(err, snapshot.ErrUnreadable) {
			in.checkpoint = nil
			in.unread(o, rec, err)
			return nil
		}
		if err == nil {
			in.checkpoint = &c
		}
		return err
	case snapshot.KeyHistory:
		if rec.Value != nil {
			in.history = append(in.history, historySlot{string(rec.Key), rec.Timestamp})
		}
	case snapshot.KeyLatest:
		return in.visitLatest(ctx, o, rec, id)
	}
	return nil
}

func (in *restored) visitLatest(ctx context.Context, o *owner, rec *kgo.Record, id string) error {
	delete(in.refold, id)
	if rec.Value == nil {
		in.streams.delete(id)
		return nil
	}
	s, err := o.engine.snapshots.DecodeSnapshot(ctx, rec.Value, rec.Headers)
	if err == nil {
		err = o.usable(&s)
	}
	if errors.Is(err, snapshot.ErrUnreadable) {
		in.streams.delete(id)
		in.refold[id] = true
		in.unread(o, rec, err)
		return nil
	}
	if err != nil {
		return err
	}
	held := streamOf(&s, &in.scratch, o.category.limits, o.clock().Add(-clockSkewMax))
	in.streams.put(id, &held)
	return nil
}

// usable says why a snapshot cannot stand for its events.
func (o *owner) usable(s *snapshot.Snapshot) error {
	var want int32
	if o.category.Decider != nil {
		want = int32(o.category.Decider.StateVersion)
	}
	switch {
	case s.Version < 1:
		return fmt.Errorf("%w: it only marks that the state did not fit", snapshot.ErrUnreadable)
	case s.EventsTopicID != o.topics.eventsID:
		return fmt.Errorf("%w: it is of another events topic", snapshot.ErrUnreadable)
	case s.StateVersion != want:
		return fmt.Errorf("%w: it has state version %d, the decider has %d", snapshot.ErrUnreadable, s.StateVersion, want)
	case o.category.Decider != nil && len(s.State) > 0:
		if _, err := o.category.decodeState(s.State); err != nil {
			return fmt.Errorf("%w: its state: %w", snapshot.ErrUnreadable, err)
		}
	}
	return nil
}

func (in *restored) unread(o *owner, rec *kgo.Record, err error) {
	in.unreadable++
	o.metrics.snapshotUnreadable()
	o.log.Warn("snapshot skipped, its stream is folded from events", "offset", rec.Offset, "cause", err)
}

// streamOf is the stream that a snapshot holds. scratch lends memory from call to call.
func streamOf(snap *snapshot.Snapshot, scratch *[]remembered, limits windowLimits, now time.Time) stream {
	s := stream{version: event.Version(snap.Version), offset: snap.Offset}
	if len(snap.State) > 0 {
		s.state = snap.State
	}
	entries := (*scratch)[:0]
	for i := range snap.Commands {
		if plantedWindowLost {
			break
		}
		c := &snap.Commands[i]
		entries = append(entries, remembered{
			key: c.Key, hash: c.Hash, first: event.Version(c.First), count: c.Count, offset: c.Offset, at: c.At, dedupeUntil: c.DedupeUntil,
		})
	}
	*scratch, s.window.entries = entries, entries
	s.window.evict(limits, now)
	return s
}
