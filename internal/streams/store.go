package streams

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Store reads streams. Safe for concurrent use.
type Store struct {
	cfg     Config
	logger  *slog.Logger
	metrics *metrics
	log     *logClient
	tails   *tails
	index   *index // nil without Postgres
	folds   map[string]*fold
	feeds   chan struct{} // a place for each open feed
	closing sync.Once
	cool    func() // ends the warming up
}

// New checks cfg and returns a Store; Close it. It does not wait for Kafka or Postgres, but begins
// to connect.
func New(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("streams: register metrics: %w", err)
	}
	log, err := newLogClient(cfg.Kafka, cfg.LeaderAgeMax)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, logger: cfg.Logger, metrics: m, log: log, tails: newTails(log, cfg, m),
		folds: map[string]*fold{}, feeds: make(chan struct{}, cfg.FeedsMax),
	}
	if cfg.Pool != nil {
		s.index = newIndex(cfg.Pool, cfg.Namespace, cfg.PageBytesMax)
	}
	for category, d := range cfg.Deciders {
		if d != nil {
			s.folds[category] = &fold{definition: d, codec: cfg.Codec, turn: make(chan struct{}, 1)}
		}
	}
	s.startWarming()
	return s, nil
}

func (s *Store) startWarming() {
	ctx, cancel := context.WithCancel(context.Background())
	warm := make(chan struct{})
	go func() {
		defer close(warm)
		s.warm(ctx)
	}()
	s.cool = func() { cancel(); <-warm }
}

// Close releases the connections to Kafka. Reads under way fail; feeds go on until they are closed.
// Closing twice is harmless.
func (s *Store) Close() {
	s.closing.Do(func() {
		s.cool()
		s.log.close()
		for _, f := range s.folds {
			f.close()
		}
	})
}

func (s *Store) load(ctx context.Context, q Query, taker Taker) (Page, error) {
	if q.Limit <= 0 || q.Limit > LimitMax {
		q.Limit = LimitMax
	}
	p, err := s.placeOf(ctx, q.Stream)
	if err != nil {
		return Page{}, err
	}
	return s.loadWaiting(ctx, p, q, taker)
}

// loadWaiting loads until the stream has the version wanted, or the wait is over. Real time counts.
func (s *Store) loadWaiting(ctx context.Context, p place, q Query, taker Taker) (Page, error) {
	deadline, pause := time.Now().Add(q.Wait), waitPauseMin
	for {
		page, end, err := s.loadOnce(ctx, p, q, taker)
		var stale *StaleError
		behind := errors.As(err, &stale) && q.Wait > 0
		early := page.Version < q.MinVersion && (err == nil || errors.Is(err, ErrNoStream))
		if early {
			err = &StaleError{Stream: q.Stream, Have: page.Version, Want: q.MinVersion, Reason: fmt.Sprintf("it did not come within %s", q.Wait)}
		}
		if (!early && !behind) || !time.Now().Before(deadline) {
			return page, err
		}
		if err := s.waitForMore(ctx, p, end, deadline, &pause); err != nil {
			return Page{}, err
		}
	}
}

// Between two looks of a read that waits.
const (
	waitPauseMin = 2 * time.Millisecond
	waitPauseMax = 100 * time.Millisecond
)

// waitForMore waits, by growing pauses, until the end of a partition is not the one seen before, or
// until the deadline. It looks at the log, so that a waiting read costs Postgres nothing.
func (s *Store) waitForMore(ctx context.Context, p place, seen int64, deadline time.Time, pause *time.Duration) error {
	for time.Now().Before(deadline) {
		if err := sleep(ctx, min(*pause, time.Until(deadline)+time.Millisecond)); err != nil {
			return err
		}
		*pause = min(2**pause, waitPauseMax)
		if end, err := s.endOf(ctx, p); err != nil || end != seen {
			return err
		}
	}
	return nil
}

func (s *Store) endOf(ctx context.Context, p place) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	end, err := s.log.offset(ctx, p, offsetEnd)
	if err != nil {
		return 0, unavailable(err)
	}
	return end, nil
}

// placeOf checks a stream's name and finds its partition.
func (s *Store) placeOf(ctx context.Context, id event.StreamID) (place, error) {
	if !slices.Contains(s.cfg.Categories, id.Category) {
		return place{}, fmt.Errorf("%w: %q", ErrNoCategory, id.Category)
	}
	if err := event.ValidateID(id.ID); err != nil {
		return place{}, fmt.Errorf("%w: %w", ErrNoStream, err)
	}
	p := place{topic: topics.Events(s.cfg.Namespace, id.Category)}
	meta, err := s.metaOf(ctx, p.topic, time.Time{})
	if err != nil {
		return place{}, err
	}
	p.partition = topics.Partition([]byte(id.ID), int32(len(meta.leaders)))
	return p, nil
}

func (s *Store) metaOf(ctx context.Context, topic string, notBefore time.Time) (topicMeta, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	meta, err := s.log.meta(ctx, topic, notBefore)
	if err == nil && len(meta.leaders) == 0 {
		err = fmt.Errorf("topic %s has no partitions", topic)
	}
	if err != nil {
		return topicMeta{}, unavailable(err)
	}
	return meta, nil
}

// view is a stream as index and log have it together.
type view struct {
	place   place
	end     int64 // of the partition
	indexed indexed
	tail    []event.Recorded // behind the index's last event, without a gap
}

func (v *view) version() event.Version { return v.indexed.version + event.Version(len(v.tail)) }

// look reads what the index knows of a stream and what the log has behind it, up to its end at
// least.
func (s *Store) look(ctx context.Context, p place, id event.StreamID, more ...query) (view, error) {
	v := view{place: p}
	if err := s.lookAtBoth(ctx, &v, id, more); err != nil {
		return v, err
	}
	if v.indexed.parked >= 0 {
		return v, &LogError{Topic: p.topic, Partition: p.partition, Offset: v.indexed.parked, Stream: id,
			Reason: "the index does not go on behind this record, which is a letter: resolve it with dlq-admin"}
	}
	if err := s.checkTopic(ctx, p, id, &v.indexed.position, v.end); err != nil {
		return v, err
	}
	if v.indexed.position.next >= v.end {
		return v, nil
	}
	return v, s.readTail(ctx, &v, id, v.end)
}

// lookAtBoth asks Kafka for the end and Postgres for the rest at the same time: whichever answers
// first, what was acknowledged before lies below the end, and behind the index's next offset it is
// read from the log.
func (s *Store) lookAtBoth(ctx context.Context, v *view, id event.StreamID, more []query) error {
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	var failed error
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		v.end, failed = s.endOf(asking, v.place)
	}()
	indexed, err := s.index.look(ctx, v.place, id, more...)
	if err != nil {
		cancel()
	}
	<-asked
	v.indexed = indexed
	if err != nil {
		return unavailable(err)
	}
	return failed
}

// checkTopic compares the index's place with the log's (PROTOCOL W9), and puts the start of the log
// for an index that has nothing.
func (s *Store) checkTopic(ctx context.Context, p place, id event.StreamID, pos *position, end int64) error {
	if pos.next < 0 {
		start, err := s.startOf(ctx, p)
		pos.next = start
		return err
	}
	fits := func(meta topicMeta) bool {
		return pos.topicID == "" || meta.id == [16]byte{} || pos.topicID == event.FormatTopicID(meta.id)
	}
	meta, err := s.metaOf(ctx, p.topic, time.Time{})
	if err == nil && (!fits(meta) || pos.next > end) {
		meta, err = s.metaOf(ctx, p.topic, time.Now()) // what we know may be old
	}
	if err != nil {
		return err
	}
	fault := &LogError{Topic: p.topic, Partition: p.partition, Offset: -1, Stream: id}
	switch {
	case !fits(meta):
		return madeAnew(p, id, *pos)
	case pos.next > end:
		if end, err = s.endOf(ctx, p); err != nil || pos.next <= end {
			return err // it was an old leader's end
		}
		fault.Reason = fmt.Sprintf("the index has the events below offset %d, the log ends at %d: it was truncated or restored from an older copy; find out which, then rebuild the view %s", pos.next, end, eventsView)
	default:
		return nil
	}
	return fault
}

func madeAnew(p place, id event.StreamID, pos position) error {
	return &LogError{Topic: p.topic, Partition: p.partition, Offset: -1, Stream: id,
		Reason: fmt.Sprintf("the index is of a topic with the id %s, which was deleted and made anew: rebuild the view %s", pos.topicID, eventsView)}
}

func (s *Store) startOf(ctx context.Context, p place) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	start, err := s.log.offset(ctx, p, offsetStart)
	if err != nil {
		return 0, unavailable(err)
	}
	return start, nil
}

func (s *Store) readTail(ctx context.Context, v *view, id event.StreamID, end int64) error {
	within, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	pos := v.indexed.position
	records, err := s.tails.read(within, v.place, pos, end, id.ID)
	switch {
	case errors.Is(err, errTailTooLong):
		return s.stale(ctx, v, id, end)
	case errors.Is(err, errOtherTopic) && pos.topicID != "":
		return madeAnew(v.place, id, pos)
	case isDeleted(err):
		return &LogError{Topic: v.place.topic, Partition: v.place.partition, Offset: pos.next, Stream: id,
			Reason: "retention deleted events that the index does not have yet: restore them, or rebuild the view from what is left, knowing that streams begin in the middle"}
	case err != nil:
		return unavailable(err)
	}
	return v.follow(id, records)
}

// follow takes the stream's records of the tail. Their versions must go on without a gap.
func (v *view) follow(id event.StreamID, records []*kgo.Record) error {
	fault := func(rec *kgo.Record, reason string) error {
		return &LogError{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, Stream: id, Reason: reason}
	}
	v.tail = make([]event.Recorded, 0, len(records))
	for _, rec := range records {
		e, err := event.ParseRecorded(id.Category, rec)
		if err != nil {
			return fault(rec, err.Error()+"; find out who wrote it, only ingest may write to events topics")
		}
		if want := v.version() + 1; e.Version != want {
			reason := fmt.Sprintf("its event has version %d, %d should follow: a gap, which readers must not pass over", e.Version, want)
			if v.version() == 0 {
				reason += "; where retention deleted the stream's first events, the index (a projector with the system views) must have been there before"
			}
			return fault(rec, reason)
		}
		trimToIndex(&e)
		v.tail = append(v.tail, e)
	}
	return nil
}

// trimToIndex leaves of an event what the index keeps, so that an answer does not depend on how far
// the index is.
func trimToIndex(e *event.Recorded) {
	e.Time, e.RecordedAt = e.Time.UTC().Truncate(time.Microsecond), e.RecordedAt.UTC()
	e.CommandHash, e.CommandOffset, e.DecidedOffset = "", -1, -1
	e.DedupeUntil, e.Origin, e.Traceparent = time.Time{}, nil, ""
}

func (s *Store) stale(ctx context.Context, v *view, id event.StreamID, end int64) error {
	fault := &StaleError{Stream: id, LagRecords: end - v.indexed.position.next}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if stamp := s.tails.firstStamp(ctx, v.place, v.indexed.position.next); !stamp.IsZero() {
		fault.Behind = max(s.cfg.Clock().Sub(stamp), 0)
	}
	fault.Reason = "that is more than a read may take from Kafka; the index catches up while a projector keeps the view " + eventsView
	if s.index == nil {
		fault.Reason = "Postgres is not configured, so that a read takes all from Kafka, which the log is too long for; configure postgres, and run a projector"
	}
	return fault
}

// Command finds the events of a command that was accepted. Where a forgotten id came again as
// another command, that one's are found.
func (s *Store) Command(ctx context.Context, id event.StreamID, commandID string) (Command, error) {
	began := s.cfg.Clock()
	c, err := s.command(ctx, id, commandID)
	s.observe("command", began, err)
	return c, err
}

func (s *Store) command(ctx context.Context, id event.StreamID, commandID string) (Command, error) {
	p, err := s.placeOf(ctx, id)
	if err != nil {
		return Command{}, err
	}
	var found []eventPlace
	var more []query
	if s.index != nil && storableText(commandID) {
		more = append(more, s.index.commandQuery(id, commandID, LimitMax, &found))
	}
	v, err := s.look(ctx, p, id, more...)
	if err != nil {
		return Command{}, err
	}
	var places []eventPlace // newest first
	for i := len(v.tail) - 1; i >= 0; i-- {
		if v.tail[i].CommandID == commandID {
			places = append(places, eventPlace{v.tail[i].Version, v.tail[i].Offset})
		}
	}
	places = append(places, found...)
	if len(places) == 0 || commandID == "" {
		return Command{}, fmt.Errorf("%w: %q on stream %s", ErrNoCommand, commandID, id)
	}
	c := Command{First: places[0].version, Last: places[0].version, Partition: p.partition, Offset: places[0].offset}
	for _, e := range places[1:] {
		if e.version != c.First-1 {
			break // an earlier command of the same id
		}
		c.First = e.version
	}
	return c, nil
}

// observe counts a read. The causes are few and fixed.
func (s *Store) observe(op string, began time.Time, err error) {
	s.metrics.reads.WithLabelValues(op).Inc()
	s.metrics.seconds.WithLabelValues(op).Observe(s.cfg.Clock().Sub(began).Seconds())
	var stale *StaleError
	var fault *LogError
	switch {
	case errors.As(err, &stale):
		s.metrics.failed.WithLabelValues(op, "stale").Inc()
	case errors.As(err, &fault):
		s.metrics.failed.WithLabelValues(op, "log").Inc()
		s.logger.Error("a stream cannot be read", "op", op, "topic", fault.Topic, "partition", fault.Partition, "offset", fault.Offset, "err", fault.Reason)
	case errors.Is(err, ErrUnavailable) && !errors.Is(err, context.Canceled):
		s.metrics.failed.WithLabelValues(op, "unavailable").Inc()
	}
}
