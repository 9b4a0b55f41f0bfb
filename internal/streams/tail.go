package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// tails keeps what the log has behind the index, by partition, so that reads of a busy partition
// fetch each record once. Safe for concurrent use; each tail has one user at a time, and the
// others of that partition wait for what it fetches:
//
//	reads 1, 2 and 3 of one partition have the ends 100, 103 and 110
//	read 1 fetches [90, …) and gets all there is, up to 108
//	read 2 needs nothing more, read 3 fetches [108, 110)
type tails struct {
	log     *logClient
	metrics *metrics

	recordsMax, bytesMax, cacheBytesMax int64

	fetching chan struct{} // a place for each partition that may be fetched at one time
	bytes    atomic.Int64  // of all tails

	mu      sync.Mutex
	byPlace map[place]*tail
}

// tail is the events of [from, next) of one partition; void and control records are left out.
type tail struct {
	turn chan struct{} // held by the one user
	used atomic.Int64  // unix milliseconds

	topicID [16]byte
	from    int64
	next    int64
	lineage event.Lineage // at next
	records []*kgo.Record // by offset
	byKey   map[string][]*kgo.Record
	bytes   int64

	// trimTo was the index's next offset at trimSet. Reads that began a moment ago may still need
	// what lies behind it, so that it is forgotten trimAfter later.
	trimTo  int64
	trimSet time.Time
}

const (
	trimAfter        = 200 * time.Millisecond
	recordBytesFixed = 250 // record, its slots in slices and map, measured roughly
	headerBytesFixed = 40
)

func newTails(log *logClient, cfg Config, m *metrics) *tails {
	return &tails{
		log: log, metrics: m, recordsMax: cfg.TailRecordsMax, bytesMax: cfg.TailBytesMax, cacheBytesMax: cfg.TailCacheBytesMax,
		fetching: make(chan struct{}, cfg.TailFetchesMax), byPlace: map[place]*tail{},
	}
}

// position is where an index is in a partition: it has the events below next.
type position struct {
	next    int64 // positionStart: nothing yet
	topicID string
	lineage event.Lineage // PROTOCOL W6: the claim that counts at next
}

// positionStart is the next offset of a partition of which the index has nothing, as in the
// projector's offset rows.
const positionStart = -2

// errTailTooLong: the part of the log that the index lacks is beyond the limits.
var errTailTooLong = errors.New("the tail is too long")

// errOtherTopic: the log is not the one that the tail began with.
var errOtherTopic = errors.New("the topic was deleted and made anew")

// read returns the events with a key in [pos.next, end), and may return later ones. Offsets below
// the log's start are kerr.OffsetOutOfRange.
func (ts *tails) read(ctx context.Context, p place, pos position, end int64, key string) ([]*kgo.Record, error) {
	if end-pos.next > ts.recordsMax {
		return nil, errTailTooLong
	}
	kept := ts.of(p)
	select {
	case kept.turn <- struct{}{}:
		defer func() { <-kept.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	t := kept
	if pos.next < t.from && t.next > 0 {
		// This read saw an older index than the one before. It is not worth the cache.
		t = newTail()
	}
	before := t.bytes
	t.moveTo(pos)
	err := ts.extend(ctx, p, t, pos, end)
	if errors.Is(err, errOtherTopic) {
		t.restart(pos)
	}
	if ts.isKept(p, t) {
		ts.account(t, t.bytes-before)
	}
	if err != nil {
		return nil, err
	}
	return t.find(key, pos.next), nil
}

func newTail() *tail { return &tail{turn: make(chan struct{}, 1), byKey: map[string][]*kgo.Record{}} }

func (ts *tails) of(p place) *tail {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.byPlace[p]
	if t == nil {
		t = newTail()
		ts.byPlace[p] = t
	}
	t.used.Store(time.Now().UnixMilli())
	return t
}

func (ts *tails) isKept(p place, t *tail) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.byPlace[p] == t
}

// extend fetches until the tail reaches end.
func (ts *tails) extend(ctx context.Context, p place, t *tail, pos position, end int64) error {
	if t.next >= end {
		ts.metrics.tailHits.Inc()
		return nil
	}
	select {
	case ts.fetching <- struct{}{}:
		defer func() { <-ts.fetching }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for t.next < end {
		if t.bytes > ts.bytesMax {
			if t.trim(pos.next); t.bytes > ts.bytesMax {
				return errTailTooLong
			}
		}
		if err := ts.fetchOnce(ctx, p, t); err != nil {
			return err
		}
	}
	return nil
}

func (ts *tails) fetchOnce(ctx context.Context, p place, t *tail) error {
	f, err := ts.log.fetch(ctx, p, t.next, fetchBytesMax)
	if err != nil {
		return err
	}
	if t.topicID == [16]byte{} {
		t.topicID = f.topicID
	}
	if f.topicID != t.topicID && f.topicID != [16]byte{} {
		return errOtherTopic
	}
	ts.metrics.tailRecords.Add(float64(len(f.records)))
	for _, rec := range f.records {
		switch t.lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) {
		case event.VerdictEvent:
			t.add(rec)
		case event.VerdictVoid:
			ts.metrics.void.Inc()
		}
	}
	if f.next > t.next {
		t.next = f.next
		return nil
	}
	return sleep(ctx, retryPauseMin) // a follower that does not know the high watermark yet
}

// moveTo makes the tail begin at or below a position that is not below its own beginning.
func (t *tail) moveTo(pos position) {
	if pos.next >= t.next || (pos.topicID != "" && t.topicID != [16]byte{} && pos.topicID != event.FormatTopicID(t.topicID)) {
		t.restart(pos)
		return
	}
	if now := time.Now(); now.Sub(t.trimSet) > trimAfter {
		t.trim(t.trimTo)
		t.trimTo, t.trimSet = pos.next, now
	}
}

func (t *tail) restart(pos position) {
	t.topicID, _ = event.ParseTopicID(pos.topicID) // an index that has nothing takes the first it sees
	t.from, t.next, t.lineage = pos.next, pos.next, pos.lineage
	t.records, t.byKey, t.bytes = nil, map[string][]*kgo.Record{}, 0
	t.trimTo, t.trimSet = pos.next, time.Now()
}

func (t *tail) add(rec *kgo.Record) {
	t.records = append(t.records, rec)
	key := string(rec.Key)
	t.byKey[key] = append(t.byKey[key], rec)
	t.bytes += recordBytes(rec)
}

// trim forgets the records below an offset.
func (t *tail) trim(to int64) {
	n := 0
	for ; n < len(t.records) && t.records[n].Offset < to; n++ {
		rec := t.records[n]
		t.bytes -= recordBytes(rec)
		if rest := t.byKey[string(rec.Key)][1:]; len(rest) > 0 {
			t.byKey[string(rec.Key)] = rest
		} else {
			delete(t.byKey, string(rec.Key))
		}
	}
	if n > 0 {
		t.records = slices.Clone(t.records[n:]) // lets go of the array, too
	}
	t.from = max(t.from, min(to, t.next))
}

// find returns the records of a key from an offset on. The slice is the caller's.
func (t *tail) find(key string, from int64) []*kgo.Record {
	all := t.byKey[key]
	i := 0
	for i < len(all) && all[i].Offset < from {
		i++
	}
	return slices.Clone(all[i:])
}

func recordBytes(rec *kgo.Record) int64 {
	n := recordBytesFixed + len(rec.Key) + len(rec.Value)
	for _, h := range rec.Headers {
		n += headerBytesFixed + len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// account notes what a kept tail grew by, and drops the tails that were not used for longest while
// all are beyond the limit. One that is in use is not dropped: what was just read may still go.
func (ts *tails) account(t *tail, grown int64) {
	for ts.bytes.Add(grown) > ts.cacheBytesMax {
		if grown = -ts.dropOldest(t); grown == 0 {
			break
		}
	}
	ts.metrics.tailBytes.Set(float64(ts.bytes.Load()))
}

// dropOldest empties the tail that was not used for longest and returns its bytes; t is the last
// to go, and 0 says that there is none.
func (ts *tails) dropOldest(t *tail) int64 {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	var oldest *tail
	var at place
	for p, other := range ts.byPlace {
		if other == t || (oldest != nil && other.used.Load() >= oldest.used.Load()) {
			continue
		}
		select {
		case other.turn <- struct{}{}:
			if oldest != nil {
				<-oldest.turn
			}
			oldest, at = other, p
		default:
		}
	}
	if oldest == nil {
		return 0
	}
	delete(ts.byPlace, at)
	bytes := oldest.bytes
	oldest.restart(position{})
	<-oldest.turn
	return bytes
}

// firstStamp is the stamp of the first record at or behind an offset, for saying how far behind an
// index is; the zero time when it cannot be had.
func (ts *tails) firstStamp(ctx context.Context, p place, from int64) time.Time {
	const enoughBytes = 64 << 10
	f, err := ts.log.fetch(ctx, p, from, enoughBytes)
	if err != nil || len(f.records) == 0 {
		return time.Time{}
	}
	return f.records[0].Timestamp
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isDeleted says that the log begins behind the offset asked for.
func isDeleted(err error) bool { return errors.Is(err, kerr.OffsetOutOfRange) }

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }
