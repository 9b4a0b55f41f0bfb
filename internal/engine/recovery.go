package engine

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

// recovery is all that an owner learns from its events partition: nothing else is needed to go
// on where the owner before it stopped (DESIGN §5). It belongs to the owner's goroutine.
type recovery struct {
	category *boundCategory
	table    *streamTable
	lineage  event.Lineage
	// group and instance of the last claim, and the commands topic it speaks of.
	group           string
	instance        string
	commandsTopicID [16]byte
	// currentCommands is the commands topic as it is now: fs-command-offset counts only behind
	// claims that name it (W9).
	currentCommands [16]byte
	highest         int64               // H: the highest fs-command-offset, -1 without one (W12)
	outcomesFrom    int64               // outcomes are kept from this command offset on
	outcomes        map[int64]Outcome   // by command offset
	origins         map[originKey]int64 // the highest origin offset by partition (W14)
	lastEventID     string
	lastEventOffset int64 // -1 without an event
	// snapshots are what the read began with; covered is X, the offset up to which they hold all
	// state, -1 without a checkpoint. refold are streams that are folded from their first event.
	snapshots *restored
	covered   int64
	refold    map[string]bool
	// verifyID is the id that the event at verifyOffset must have (W9), -1 for none.
	verifyOffset int64
	verifyID     string
	// dirty are the streams with events that no snapshot has, by the first of these.
	dirty   []*dirtyStream
	dirtyBy map[string]*dirtyStream
	// firstUncommitted is the first event of a command that the group offset has not passed, -1
	// without one.
	firstUncommitted int64
	// lastCommandOffset is that of the event before, to tell where the next command's events begin.
	lastCommandOffset int64
	next              int64 // the next offset to read
	voidRecords       int
	voids             []voidRecord // the first of them
	events            int
	now               int64 // unix seconds, of this host
	// claimStamp is the stamp of the last claim, when the broker gave it (LogAppendTime); else zero.
	claimStamp time.Time
}

// voidRecord is a record that no current owner wrote, and the claim that counted where it stands.
type voidRecord struct {
	record *kgo.Record
	claim  event.Claim
}

// voidLettersMax bounds the letters of one take-over; the rest is counted.
const voidLettersMax = 1000

func newRecovery(c *boundCategory, currentCommands [16]byte, outcomesFrom int64) *recovery {
	return &recovery{
		category: c, table: newStreamTable(), currentCommands: currentCommands, highest: -1,
		outcomesFrom: outcomesFrom, outcomes: map[int64]Outcome{}, origins: map[originKey]int64{},
		lastEventOffset: -1, covered: -1, verifyOffset: -1, firstUncommitted: -1,
		snapshots: &restored{}, dirtyBy: map[string]*dirtyStream{},
	}
}

// begin takes in what the snapshots say and returns the offset from which the log is to be read.
func (r *recovery) begin(in *restored, logStart int64) int64 {
	r.snapshots = in
	c := in.checkpoint
	if c == nil {
		return logStart
	}
	r.table.cold, in.streams = in.streams, nil
	r.table.bytes += r.table.cold.memory()
	r.covered, r.refold = c.Offset, in.refold
	r.verifyOffset, r.verifyID = c.LastEventOffset, c.LastEventID
	r.highest, r.group, r.commandsTopicID = c.HighestCommand, c.Group, c.CommandsTopicID
	if c.CommandsTopicID != r.currentCommands {
		r.highest = -1
	}
	for _, o := range c.Origins {
		r.origins[originKey{o.TopicID, o.Partition}] = o.Offset
	}
	if len(r.refold) > 0 {
		return logStart
	}
	r.lineage = event.Lineage{Claim: event.Claim{ProducerID: c.ProducerID, Epoch: int16(c.ProducerEpoch)}, Known: true}
	if c.LastEventOffset == c.Offset {
		return c.Offset // it is read once more, to see that it is the one
	}
	return c.Offset + 1
}

// errOtherLog: the log is not the one that the snapshots were taken of (W9). They are thrown away.
var errOtherLog = errors.New("the log has another event where the checkpoint saw its last one")

// LogFault is a record in an events topic that our rules cannot have let in. The partition stops.
type LogFault struct {
	Topic     string
	Partition int32
	Offset    int64
	Err       error
}

func (e *LogFault) Error() string {
	return fmt.Sprintf("%s[%d]@%d breaks the log's rules: %v; the partition stops: find out who wrote it, only ingest may write to events topics",
		e.Topic, e.Partition, e.Offset, e.Err)
}

func (e *LogFault) Unwrap() error { return e.Err }

// visit folds one record of the events partition.
func (r *recovery) visit(ctx context.Context, rec *kgo.Record) error {
	r.next = rec.Offset + 1
	switch r.lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) {
	case event.VerdictControl:
		return r.visitControl(rec)
	case event.VerdictVoid:
		r.voidRecords++
		if len(r.voids) < voidLettersMax {
			r.voids = append(r.voids, voidRecord{rec, r.lineage.Claim})
		}
		if !plantedVoidApplied {
			return nil
		}
	}
	if rec.Offset <= r.covered && !r.refold[string(rec.Key)] && rec.Offset != r.verifyOffset {
		return nil
	}
	recorded, err := event.ParseRecorded(r.category.Name, rec)
	if err != nil {
		return &LogFault{rec.Topic, rec.Partition, rec.Offset, err}
	}
	if rec.Offset == r.verifyOffset && recorded.ID != r.verifyID {
		return errOtherLog
	}
	if rec.Offset <= r.covered && !r.refold[recorded.Stream.ID] {
		r.lastEventID, r.lastEventOffset = recorded.ID, recorded.Offset
		return nil
	}
	if err := r.fold(ctx, &recorded); err != nil {
		var fault *DeciderError
		if ctx.Err() != nil || errors.As(err, &fault) || !errors.Is(err, codec.ErrBadData) {
			return err
		}
		return &LogFault{rec.Topic, rec.Partition, rec.Offset, err}
	}
	return nil
}

func (r *recovery) visitControl(rec *kgo.Record) error {
	if event.Control(rec.Headers) != event.ControlClaim {
		return nil
	}
	text := func(name string) string { v, _ := event.HeaderValue(rec.Headers, name); return string(v) }
	r.group, r.instance = text(event.HeaderGroup), text(event.HeaderInstance)
	r.claimStamp = time.Time{}
	if logAppendTime := rec.Attrs.TimestampType() == 1; logAppendTime {
		r.claimStamp = rec.Timestamp
	}
	id, err := event.ParseTopicID(text(event.HeaderCommandsTopicID))
	if err != nil {
		return &LogFault{rec.Topic, rec.Partition, rec.Offset, fmt.Errorf("claim: %w", err)}
	}
	r.commandsTopicID = id
	return nil
}

var errGap = errors.New("version does not follow the stream's last one")

func (r *recovery) fold(ctx context.Context, e *event.Recorded) error {
	s := r.table.obtain(e.Stream.ID)
	r.lastEventID, r.lastEventOffset = e.ID, e.Offset
	if e.Version <= s.version && e.Offset <= s.offset {
		return r.remember(nil, e) // its snapshot is newer than the checkpoint and has it
	}
	if e.Version != s.version+1 {
		return fmt.Errorf("%w: stream %s is at %d, the event has %d: %w", errGap, e.Stream, s.version, e.Version, codec.ErrBadData)
	}
	s.version, s.offset, s.changed = e.Version, e.Offset, true
	r.events++
	r.markDirty(e)
	if r.category.Decider != nil {
		if err := r.evolve(ctx, s, e); err != nil {
			return err
		}
	}
	return r.remember(s, e)
}

func (r *recovery) evolve(ctx context.Context, s *stream, e *event.Recorded) error {
	binding := r.category.byType[e.Type]
	if binding == nil {
		return fmt.Errorf("event type %s is not among the decider's Types, so its state cannot be folded: register it again: %w", e.Type, codec.ErrBadData)
	}
	payload, err := r.category.codec.Inspect(ctx, e.Type, e.Value)
	if err != nil {
		return err
	}
	data, err := binding.Decode(payload)
	if err != nil {
		return err
	}
	state, err := r.category.decodeState(s.state)
	if err != nil {
		return err
	}
	state, err = r.category.evolve(state, decider.Message{
		Type: e.Type, ID: e.ID, Stream: e.Stream, Version: e.Version, Time: e.Time,
		CorrelationID: e.CorrelationID, CausationID: e.CausationID, UserID: e.UserID, Data: data,
	})
	if err != nil {
		return err
	}
	encoded, err := r.category.encodeState(state)
	if err != nil {
		return err
	}
	r.table.setState(s, encoded)
	return nil
}

// markDirty notes that a stream has events that no snapshot has.
func (r *recovery) markDirty(e *event.Recorded) {
	d := r.dirtyBy[e.Stream.ID]
	if d == nil {
		d = &dirtyStream{id: e.Stream.ID, first: e.Offset, since: unixTime(r.now)}
		r.dirtyBy[d.id] = d
		r.dirty = append(r.dirty, d)
	}
	d.events++
	d.fold += foldTimeEstimation
}

// remember rebuilds the window (W13), H and the outcomes (W12), and the origins (W14).
func (r *recovery) remember(s *stream, e *event.Recorded) error {
	if e.Origin != nil {
		key := originOf(*e.Origin)
		if high, seen := r.origins[key]; !seen || e.Origin.Offset > high {
			r.origins[key] = e.Origin.Offset
		}
	}
	if e.CommandID == "" {
		return nil
	}
	if s != nil {
		if err := r.rememberCommand(s, e); err != nil {
			return err
		}
	}
	if r.commandsTopicID == r.currentCommands {
		r.highest = max(r.highest, e.DecidedOffset)
	}
	if e.CommandOffset >= 0 && r.commandsTopicID == r.currentCommands {
		r.highest = max(r.highest, e.CommandOffset)
		if e.CommandOffset >= r.outcomesFrom {
			if r.firstUncommitted < 0 {
				r.firstUncommitted = e.Offset
			}
			first := e.Version
			if o, known := r.outcomes[e.CommandOffset]; known {
				first = o.First
			}
			r.outcomes[e.CommandOffset] = Outcome{
				Kind: OutcomeAccepted, First: first, Last: e.Version, Partition: e.Partition, Offset: e.Offset,
			}
		}
	}
	return nil
}

// rememberCommand adds to the stream's window.
func (r *recovery) rememberCommand(s *stream, e *event.Recorded) error {
	entry := remembered{
		key: keyOf(e.CommandID), first: e.Version, count: 1, offset: e.Offset, at: e.RecordedAt.Unix(),
	}
	if !e.DedupeUntil.IsZero() {
		entry.dedupeUntil = e.DedupeUntil.Unix()
	}
	// The events of one command are neighbours. The id may also be one that was forgotten and came
	// again, as another command.
	same := r.lastCommandOffset == e.CommandOffset
	r.lastCommandOffset = e.CommandOffset
	if n := len(s.window.entries); n > 0 && same && s.window.entries[n-1].key == entry.key && s.window.entries[n-1].offset+1 == e.Offset {
		last := &s.window.entries[n-1] // the command's next event
		last.count++
		last.offset = e.Offset
		return nil
	}
	if n, err := hex.Decode(entry.hash[:], []byte(e.CommandHash)); err != nil || n != len(entry.hash) {
		return fmt.Errorf("header %s is not 16 bytes of hex: %w", event.HeaderCommandHash, codec.ErrBadData)
	}
	if plantedWindowLost {
		return nil
	}
	// The stamps are the broker's, whose clock may differ from ours: until our claim tells by how
	// much, nothing is forgotten that could still count.
	lenient := unixTime(r.now).Add(-clockSkewMax)
	if s.window.len() > 0 || entry.dedupeUntil > lenient.Unix() || entry.at >= lenient.Add(-r.category.limits.ageMax).Unix() {
		s.window.add(entry)
		r.table.bytes += rememberedBytesFixed
	}
	if s.window.due(r.category.limits) {
		r.table.bytes -= int64(s.window.evict(r.category.limits, lenient)) * rememberedBytesFixed
	}
	return nil
}
