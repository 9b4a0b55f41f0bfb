package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// FeedQuery asks for the events of a category as they are appended.
type FeedQuery struct {
	Category string
	// Types lets only events of these types pass; "*" stands for any text, as in "order.*". Empty:
	// all. At most FeedTypesMax.
	Types []string
	// Where it begins: behind a Position, at the log's start, or at the first record of a time or
	// later. None of them: at the end, with what is appended after Open has returned. The first
	// that is set counts.
	Position *Position
	Start    bool
	Time     time.Time
}

// FeedTypesMax bounds FeedQuery.Types.
const FeedTypesMax = 64

// ErrTooManyFeeds: as many feeds are open as may be.
var ErrTooManyFeeds = errors.New("as many feeds are open as may be")

// What a feed holds at most: one fetch of each broker.
const (
	feedFetchBytesMax     = 1 << 20
	feedPartitionBytesMax = 256 << 10
	feedPollRecordsMax    = 500
)

// Feed is an open reading of one events topic. It has a Kafka client of its own, which fetches only
// while Next is called. It belongs to one goroutine.
type Feed struct {
	store    *Store
	client   *kgo.Client
	category string
	topic    string
	types    []string
	at       Position
	close    sync.Once
}

// Open opens a feed; Close it. It fails with ErrNoCategory, ErrTooManyFeeds, ErrPosition where the
// position is of another log or of records that are gone, or ErrUnavailable.
func (s *Store) Open(ctx context.Context, q FeedQuery) (*Feed, error) {
	if !slices.Contains(s.cfg.Categories, q.Category) {
		return nil, fmt.Errorf("%w: %q", ErrNoCategory, q.Category)
	}
	if len(q.Types) > FeedTypesMax {
		return nil, fmt.Errorf("%d types are asked for, %d at most", len(q.Types), FeedTypesMax)
	}
	select {
	case s.feeds <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d", ErrTooManyFeeds, s.cfg.FeedsMax)
	}
	f := &Feed{store: s, category: q.Category, topic: topics.Events(s.cfg.Namespace, q.Category), types: q.Types}
	if err := f.open(ctx, q); err != nil {
		<-s.feeds
		return nil, err
	}
	s.metrics.feeds.Inc()
	return f, nil
}

func (f *Feed) open(ctx context.Context, q FeedQuery) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var err error
	if f.at, err = f.begin(ctx, q); err != nil {
		return err
	}
	offsets := make(map[int32]kgo.Offset, len(f.at.Partitions))
	for i, p := range f.at.Partitions {
		offsets[int32(i)] = kgo.NewOffset().At(p.Next)
	}
	f.client, err = kgo.NewClient(append(slices.Clone(f.store.cfg.Kafka),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{f.topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // records that retention deletes meanwhile must not be passed over
		kgo.FetchMaxBytes(feedFetchBytesMax), kgo.FetchMaxPartitionBytes(feedPartitionBytesMax),
	)...)
	if err != nil {
		return fmt.Errorf("open a feed: %w", err)
	}
	return nil
}

// begin finds the offsets that a query begins at.
func (f *Feed) begin(ctx context.Context, q FeedQuery) (Position, error) {
	notBefore := time.Time{}
	if q.Position != nil {
		notBefore = time.Now() // the topic may have been made anew a moment ago
	}
	meta, err := f.store.metaOf(ctx, f.topic, notBefore)
	if err != nil {
		return Position{}, err
	}
	if q.Position != nil {
		return f.resume(ctx, q.Position.clone(), meta)
	}
	stamp := offsetEnd
	switch {
	case q.Start:
		stamp = offsetStart
	case !q.Time.IsZero():
		stamp = max(q.Time.Add(time.Millisecond-time.Nanosecond).UnixMilli(), 0) // stamps are whole milliseconds
	}
	offsets, err := f.store.offsets(ctx, f.topic, len(meta.leaders), stamp)
	if err != nil {
		return Position{}, err
	}
	at := Position{TopicID: meta.id, Partitions: make([]PartitionPosition, len(offsets))}
	for i, next := range offsets {
		at.Partitions[i].Next = next
	}
	return at, nil
}

// resume checks that a position is one of this log.
func (f *Feed) resume(ctx context.Context, at Position, meta topicMeta) (Position, error) {
	if at.TopicID != meta.id || len(at.Partitions) != len(meta.leaders) {
		return at, fmt.Errorf("%w: it is of another log: of another category, or of a topic that was deleted and made anew", ErrPosition)
	}
	starts, err := f.store.offsets(ctx, f.topic, len(meta.leaders), offsetStart)
	if err != nil {
		return at, err
	}
	ends, err := f.store.offsets(ctx, f.topic, len(meta.leaders), offsetEnd)
	if err != nil {
		return at, err
	}
	for i, p := range at.Partitions {
		switch {
		case p.Next > ends[i]:
			return at, fmt.Errorf("%w: it is behind the end of partition %d, which was truncated or restored from an older copy", ErrPosition, i)
		case p.Next < starts[i]:
			return at, fmt.Errorf("%w: retention has deleted what follows it in partition %d; begin anew at the start, or at a time", ErrPosition, i)
		}
	}
	return at, nil
}

// offsets asks for one offset of each partition of a topic.
func (s *Store) offsets(ctx context.Context, topic string, partitions int, stamp int64) ([]int64, error) {
	const atOnceMax = 16
	out := make([]int64, partitions)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnceMax)
	for i := range out {
		g.Go(func() (err error) {
			out[i], err = s.log.offset(ctx, place{topic, int32(i)}, stamp)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, unavailable(err)
	}
	return out, nil
}

// Close ends the feed. Closing twice is harmless.
func (f *Feed) Close() {
	f.close.Do(func() {
		f.client.Close()
		<-f.store.feeds
		f.store.metrics.feeds.Dec()
	})
}

// Position returns where the feed is: behind the last event that Next gave, and behind what was
// left out after it. The Partitions are the feed's own; they are good until the next call of Next.
func (f *Feed) Position() Position { return f.at }

// Next waits for records, for some seconds and at most until ctx ends, and gives each event that
// passes the filter; nil when nothing came. The events of a stream come in the order of their
// versions. While take runs, Position is right behind the event. An error of take ends Next and is
// returned as it is.
//
// An event that breaks the log's rules is a *LogError. Other errors are ErrUnavailable; the feed is
// over, and one that is opened at its Position goes on where it was.
func (f *Feed) Next(ctx context.Context, take func(event.Recorded) error) error {
	if err := f.checkTopic(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, f.store.cfg.LeaderAgeMax)
	defer cancel()
	fetches := f.client.PollRecords(ctx, feedPollRecordsMax)
	if err := f.fault(ctx, fetches); err != nil {
		return err
	}
	for it := fetches.RecordIter(); !it.Done(); {
		if err := f.visit(it.Next(), take); err != nil {
			return err
		}
	}
	return nil
}

func (f *Feed) visit(rec *kgo.Record, take func(event.Recorded) error) error {
	part := &f.at.Partitions[rec.Partition]
	part.Next = rec.Offset + 1
	switch part.Lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) {
	case event.VerdictControl:
		return nil
	case event.VerdictVoid:
		f.store.metrics.void.Inc()
		return nil
	}
	if typ, _ := event.HeaderValue(rec.Headers, event.HeaderType); !passes(string(typ), f.types) {
		return nil
	}
	e, err := event.ParseRecorded(f.category, rec)
	if err != nil {
		return &LogError{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Stream: e.Stream, Reason: err.Error() + "; find out who wrote it, only ingest may write to events topics"}
	}
	trimToIndex(&e)
	return take(e)
}

// fault returns what ends the feed. What the client mends by itself is left to it.
func (f *Feed) fault(ctx context.Context, fetches kgo.Fetches) error {
	if fetches.IsClientClosed() {
		return ErrClosed
	}
	for _, fe := range fetches.Errors() {
		switch {
		case ctx.Err() != nil && errors.Is(fe.Err, ctx.Err()):
		case isTopicGone(fe.Err), mayPass(fe.Err): // Next looks at the topic again, the client tries again
		default:
			return unavailable(fmt.Errorf("read %s[%d]: %w", f.topic, fe.Partition, fe.Err))
		}
	}
	return nil
}

func isTopicGone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.InconsistentTopicID)
}

// checkTopic ends the feed of a topic that was deleted or made anew, which the client alone would
// take many seconds to notice. All feeds of a topic share what is known of it. A cluster that does
// not answer ends no feed.
func (f *Feed) checkTopic(ctx context.Context) error {
	meta, err := f.store.metaOf(ctx, f.topic, time.Time{})
	var gone *topicError
	switch {
	case errors.As(err, &gone) && isTopicGone(err):
		return err
	case err == nil && meta.id != f.at.TopicID:
		return unavailable(fmt.Errorf("topic %s: %w", f.topic, errOtherTopic))
	}
	return nil
}

// passes says whether a type is among the patterns; none means that all pass.
func passes(typ string, patterns []string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return matches(p, typ) })
}

// matches compares a text with a pattern in which "*" stands for any text.
func matches(pattern, text string) bool {
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == text
	}
	if !strings.HasPrefix(text, head) {
		return false
	}
	text = text[len(head):]
	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part) // the last part must be at the end
		}
		at := strings.Index(text, part) // the first place leaves most for what follows
		if at < 0 {
			return false
		}
		text, rest = text[at+len(part):], next
	}
}
