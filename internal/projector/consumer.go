package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// consumer keeps one version of one view: a member of the group <ns>.view.<name>.v<N>, with a
// worker for each partition that it is assigned.
type consumer struct {
	cfg        *Config
	view       projection.View
	label      string // <name>.v<N>
	metrics    *metrics
	log        *slog.Logger
	categories map[string]string // by topic

	mu      sync.Mutex
	workers map[place]*worker
	fault   error // why the consumer is not ready

	tripped bool // the breaker has paused the view

	gate    gate
	breaker breaker
}

// session is one membership: from joining the group to leaving it.
type session struct {
	*consumer
	store   *store
	decoder *decoder
	sink    *deadletter.Sink
	// client joins while it is being made: an assignment may come before NewClient has returned.
	// What an assignment calls waits for made.
	client *kgo.Client
	made   chan struct{}
	// base is the context that workers come from. It outlives the poll loop's: a batch under way
	// ends by itself.
	base     context.Context
	baseStop context.CancelFunc
	running  sync.WaitGroup // workers, also those of partitions that are gone
	failed   chan error     // has room for one: restart the consumer
	mirrored map[place]int64
}

var errNotStarted = errors.New("has not joined its consumer group yet")

func newConsumer(cfg *Config, view projection.View, m *metrics) *consumer {
	label := view.Name + ".v" + strconv.Itoa(view.Version)
	c := &consumer{
		cfg: cfg, view: view, label: label, metrics: m, log: cfg.Logger.With("view", label),
		categories: map[string]string{}, workers: map[place]*worker{}, fault: errNotStarted,
		breaker: breaker{share: cfg.BreakerShare, lettersMin: cfg.BreakerLettersMin, window: cfg.BreakerWindow, clock: cfg.Clock},
	}
	topicOf := topics.Events
	if view.Kind == kindSnapshots {
		topicOf = topics.Snapshots
	}
	for _, category := range view.Categories {
		c.categories[topicOf(cfg.Namespace, category)] = category
	}
	m.introduce(label)
	return c
}

// run keeps the view until ctx ends, one session after another. It returns an error only for what
// no restart mends.
func (c *consumer) run(ctx context.Context) error {
	wait := c.cfg.RetryMin
	for ctx.Err() == nil {
		began := c.cfg.Clock()
		err := c.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, codec.ErrBinding) {
			return err
		}
		if errors.Is(err, errHeld) {
			continue // the next session waits until the view is given back
		}
		c.setFault(err)
		if c.cfg.Clock().Sub(began) > time.Minute {
			wait = c.cfg.RetryMin
		}
		c.metrics.restarted.WithLabelValues(c.label).Inc()
		c.log.Warn("consumer starts anew", "in", wait, "error", err)
		pause(ctx, wait)
		wait = min(2*wait, c.cfg.RetryMax)
	}
	c.setFault(errNotStarted)
	return nil //nolint:nilerr // told to stop; what ended last does not matter any more
}

// once is one session.
func (c *consumer) once(ctx context.Context) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	asked, err := c.await(ctx, s.store)
	if err != nil {
		return err
	}
	c.setFault(errNotStarted)
	if err := s.store.loadCorrections(ctx, c.cfg.Kafka); err != nil {
		return err
	}
	if err := s.join(); err != nil {
		return err
	}
	var background sync.WaitGroup
	loopCtx, stop := context.WithCancel(ctx)
	background.Go(func() { s.watch(loopCtx) })
	background.Go(func() { s.mirror(loopCtx) })
	background.Go(func() { s.tend(loopCtx) })
	background.Go(func() { s.audits(loopCtx) })
	background.Go(func() { s.obey(loopCtx, asked.generation) })
	err = s.poll(loopCtx)
	stop()
	background.Wait()
	s.drain()
	return err
}

func (c *consumer) open(ctx context.Context) (*session, error) {
	name := topics.ConsumerView(c.view.Name, c.view.Version)
	d, err := newDecoder(ctx, c.cfg.Codec, c.view)
	if err != nil {
		return nil, err
	}
	st, err := newStore(c.cfg.Pool, c.cfg.Namespace, name, c.view)
	if err != nil {
		d.close()
		return nil, err
	}
	if c.cfg.database != nil {
		st.db = c.cfg.database
	}
	sink, err := deadletter.NewSink(topics.DeadLetters(c.cfg.Namespace, name), c.cfg.Kafka...)
	if err != nil {
		d.close()
		return nil, err
	}
	s := &session{consumer: c, store: st, decoder: d, sink: sink, failed: make(chan error, 1), mirrored: map[place]int64{}, made: make(chan struct{})}
	s.base, s.baseStop = context.WithCancel(context.WithoutCancel(ctx))
	return s, nil
}

// join makes the client, which joins the group.
func (s *session) join() error {
	var err error
	s.client, err = kgo.NewClient(append(slices.Clone(s.cfg.Kafka), s.options(s.store.consumer)...)...)
	if err != nil {
		return fmt.Errorf("view %s: Kafka client: %w", s.label, err)
	}
	close(s.made)
	return nil
}

func (s *session) options(name string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(topics.Group(s.cfg.Namespace, name)),
		kgo.ConsumeTopics(slices.Sorted(maps.Keys(s.categories))...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		// The offset rows say where to go on. Where the log does not have that place, silence
		// would be a lie: no reset, the partition stops.
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.AdjustFetchOffsetsFn(s.take),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { s.setFault(nil) }),
		kgo.OnPartitionsRevoked(s.onGone),
		kgo.OnPartitionsLost(s.onGone),
		// No partition may change hands between a poll and the hand-over to its worker.
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(s.cfg.SessionTimeout / 6),
		kgo.FetchMaxWait(500 * time.Millisecond),
	}
}

func (c *consumer) setFault(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = err
}

// take is D9: the epochs of newly assigned partitions are bumped, which fences their predecessors
// and yields their positions. An error would end the group session, so it is tried until ctx ends.
func (s *session) take(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var places []place
	for topic, partitions := range offsets {
		for partition := range partitions {
			places = append(places, place{topic, partition})
		}
	}
	if len(places) == 0 {
		return offsets, nil
	}
	select {
	case <-s.made:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for wait := s.cfg.RetryMin; ; wait = min(2*wait, s.cfg.RetryMax) {
		out, err := s.takeOnce(ctx, places)
		if err == nil {
			return out, nil
		}
		if errors.Is(err, errHeld) {
			s.restart(err)
			return nil, err
		}
		s.metrics.retries.WithLabelValues(s.label, "take").Inc()
		s.log.Warn("cannot take partitions over, trying again", "partitions", len(places), "in", wait, "error", err)
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

func (s *session) takeOnce(ctx context.Context, places []place) (map[string]map[int32]kgo.Offset, error) {
	adm := kadm.NewClient(s.client)
	names := slices.Sorted(maps.Keys(s.categories))
	infos, err := topics.IDs(ctx, adm, names...)
	if err != nil {
		return nil, fmt.Errorf("read topic ids: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("read log starts: %w", err)
	}
	taken, err := s.store.take(ctx, places)
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]kgo.Offset{}
	for _, p := range places {
		w := s.start(p, taken[p])
		if id := event.FormatTopicID(infos[p.topic].ID); w.at.topicID != "" && w.at.topicID != id {
			w.halt(topicChanged(p.topic, w.at.topicID, id))
			continue // not fetched at all
		}
		from := w.at.next
		// One record more, to see that it is the one that the row remembers (PROTOCOL W9).
		if start, ok := starts.Lookup(p.topic, p.partition); ok && w.at.lastEventID != "" && start.Err == nil && start.Offset < from {
			w.verify = true
			from--
		}
		if out[p.topic] == nil {
			out[p.topic] = map[int32]kgo.Offset{}
		}
		out[p.topic][p.partition] = kgo.NoResetOffset().At(from).WithEpoch(-1)
		s.running.Go(w.run)
	}
	return out, nil
}

// start makes the worker of a partition; one that is there already is of an epoch of old.
func (s *session) start(p place, o owned) *worker {
	w := &worker{
		cfg: s.cfg, place: p, category: s.categories[p.topic], store: s.store, decoder: s.decoder, sink: s.sink,
		metrics: s.metrics, view: s.label, log: s.log.With("topic", p.topic, "partition", p.partition),
		queue: newQueue(s.cfg.QueueBytesMax), gate: &s.gate, breaker: &s.breaker, resume: s.resume, onFenced: s.onFenced,
		epoch: o.epoch, at: o.position, cache: newRowCache(s.cfg.RowCacheRowsMax), done: make(chan struct{}),
	}
	w.status.next = o.next
	w.hard, w.hardStop = context.WithCancel(s.base)
	w.ctx, w.cancel = context.WithCancel(w.hard)
	w.gauge(w.metrics.stopped, 0)
	w.gauge(w.metrics.stalled, 0)
	s.mu.Lock()
	old := s.workers[p]
	s.workers[p] = w
	count := len(s.workers)
	s.mu.Unlock()
	if old != nil {
		old.hardStop()
	}
	s.metrics.assigned.WithLabelValues(s.label).Set(float64(count))
	return w
}

func (s *session) resume(p place) {
	s.client.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
}

// onFenced: usually the partition has moved and the group is about to say so. If it does not, a
// late bump of a worker that lost the partition has hit the rightful one: only a new session,
// which bumps again, gets it going.
func (s *session) onFenced(p place, err error) {
	s.mu.Lock()
	w := s.workers[p]
	s.mu.Unlock()
	if w == nil {
		return
	}
	go func() {
		if asked, askErr := s.store.control(w.ctx); askErr == nil && s.store.admit(asked) != nil {
			s.restart(s.store.admit(asked))
			return
		}
		if pause(w.ctx, s.cfg.SessionTimeout) {
			s.restart(fmt.Errorf("%s[%d] is still assigned here: %w", p.topic, p.partition, err))
		}
	}()
}

func (s *session) restart(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// onGone ends the workers of partitions that were revoked or lost. It waits for their batches
// under way, a bounded time: what commits later is fenced by the next owner's epoch.
func (s *session) onGone(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	var ended []*worker
	s.mu.Lock()
	for topic, partitions := range gone {
		for _, partition := range partitions {
			p := place{topic, partition}
			if w := s.workers[p]; w != nil {
				ended = append(ended, w)
				delete(s.workers, p)
				delete(s.mirrored, p)
			}
		}
	}
	count := len(s.workers)
	s.mu.Unlock()
	s.metrics.assigned.WithLabelValues(s.label).Set(float64(count))
	finish(ended, s.cfg.RevokeTimeout)
	for _, w := range ended {
		s.metrics.forget(s.label, w.place.topic, strconv.Itoa(int(w.place.partition)))
	}
}

// finish asks workers to end after the batch under way, and ends them hard at the time-out.
func finish(workers []*worker, timeout time.Duration) {
	for _, w := range workers {
		w.cancel()
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for _, w := range workers {
		if w.status.stop() != nil {
			continue
		}
		select {
		case <-w.done:
		case <-deadline.C:
			for _, late := range workers {
				late.hardStop()
			}
			deadline.Reset(0)
		}
	}
	for _, w := range workers {
		w.hardStop()
	}
}

// poll hands what is fetched to the workers until ctx ends or the session must be made anew.
func (s *session) poll(ctx context.Context) error {
	const pollRecordsMax = 20_000
	pollCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case err := <-s.failed:
			stop(err)
		case <-pollCtx.Done():
		}
	}()
	for {
		fetches := s.client.PollRecords(pollCtx, pollRecordsMax)
		if fetches.IsClientClosed() {
			return errors.New("Kafka client is closed")
		}
		if pollCtx.Err() != nil {
			s.client.AllowRebalance()
			if ctx.Err() != nil {
				return nil
			}
			return context.Cause(pollCtx)
		}
		s.dispatch(fetches)
		s.client.AllowRebalance()
	}
}

func (s *session) dispatch(fetches kgo.Fetches) {
	fetches.EachTopic(func(t kgo.FetchTopic) {
		for _, fp := range t.Partitions {
			p := place{t.Topic, fp.Partition}
			s.mu.Lock()
			w := s.workers[p]
			s.mu.Unlock()
			switch {
			case w == nil:
				if fp.Err != nil {
					s.log.Warn("fetch failed", "topic", p.topic, "partition", p.partition, "error", fp.Err)
				}
			case fp.Err != nil:
				s.fetchFailed(w, fp.Err)
			case w.offer(t.TopicID, fp.HighWatermark, fp.Records):
				s.client.PauseFetchPartitions(map[string][]int32{p.topic: {p.partition}})
			}
		}
	})
}

// fetchFailed stops a partition whose place in the log is gone; other errors pass.
func (s *session) fetchFailed(w *worker, err error) {
	if stopped := lostPosition(w.place, err); stopped != nil {
		w.halt(stopped)
		return
	}
	s.log.Warn("fetch failed", "topic", w.place.topic, "partition", w.place.partition, "error", err)
}

// each lists the workers in a fixed order.
func (c *consumer) each() []*worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Collect(maps.Values(c.workers))
	slices.SortFunc(out, func(a, b *worker) int { return comparePlaces(a.place, b.place) })
	return out
}

// watch is the watchdog: kgo keeps a partition assigned however long its worker hangs.
func (s *session) watch(ctx context.Context) {
	tick := time.NewTicker(max(s.cfg.Watchdog/4, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, w := range s.each() {
				w.watch(s.cfg.Clock(), s.cfg.Watchdog)
			}
		}
	}
}

// watch judges whether records wait without progress for too long.
func (w *worker) watch(now time.Time, limit time.Duration) {
	w.status.mu.Lock()
	since := w.status.waitingSince
	stalled := !since.IsZero() && now.Sub(since) >= limit && !w.gate.isShut()
	changed := stalled != w.status.stalled
	w.status.stalled = stalled
	next := w.status.next
	w.status.mu.Unlock()
	w.showLag()
	if !changed {
		return
	}
	if stalled {
		w.gauge(w.metrics.stalled, 1)
		w.log.Error("partition makes no progress although records wait", "since", since, "next_offset", next)
		return
	}
	w.gauge(w.metrics.stalled, 0)
	w.log.Info("partition makes progress again", "next_offset", next)
}

// mirror commits progress to Kafka for lag tools. Nothing of ours reads it.
func (s *session) mirror(ctx context.Context) {
	tick := time.NewTicker(s.cfg.MirrorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if offsets := s.unmirrored(); len(offsets) > 0 {
				s.client.CommitOffsets(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
					if err != nil && ctx.Err() == nil {
						s.log.Info("progress was not mirrored to Kafka, the view itself is fine", "error", err)
					}
				})
			}
		}
	}
}

// unmirrored lists the positions that moved since the last call.
func (s *session) unmirrored() map[string]map[int32]kgo.EpochOffset {
	out := map[string]map[int32]kgo.EpochOffset{}
	for _, w := range s.each() {
		w.status.mu.Lock()
		next := w.status.next
		w.status.mu.Unlock()
		s.mu.Lock()
		moved := next >= 0 && s.mirrored[w.place] != next
		s.mirrored[w.place] = next
		s.mu.Unlock()
		if !moved {
			continue
		}
		if out[w.place.topic] == nil {
			out[w.place.topic] = map[int32]kgo.EpochOffset{}
		}
		out[w.place.topic][w.place.partition] = kgo.EpochOffset{Epoch: -1, Offset: next}
	}
	return out
}

// monthsInterval is how often the events' partitions are made ahead of time.
const monthsInterval = 24 * time.Hour

// tend makes the events' partitions of this month and the next, at the start and daily. Where it
// fails, the first batch that needs one makes it.
func (s *session) tend(ctx context.Context) {
	if s.store.months == nil {
		return
	}
	wait := s.cfg.RetryMin
	for ctx.Err() == nil {
		err := s.store.months.prepare(ctx, s.store.db, s.cfg.Clock())
		if err == nil {
			wait = s.cfg.RetryMin
			pause(ctx, monthsInterval)
			continue
		}
		if ctx.Err() == nil {
			s.log.Warn("the partitions of the coming months were not made, trying again", "in", wait, "error", err)
		}
		pause(ctx, wait)
		wait = min(2*wait, s.cfg.RetryMax)
	}
}

// leaveTimeout bounds the last commit and the leaving of the group.
const leaveTimeout = 2 * time.Second

// drain ends the workers after their batches under way, mirrors their progress and leaves the
// group, so that others need not wait for the session to end.
func (s *session) drain() {
	finish(s.each(), s.cfg.DrainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if offsets := s.unmirrored(); len(offsets) > 0 {
		s.client.CommitOffsetsSync(ctx, offsets, nil)
	}
	s.client.AllowRebalance()
	_ = s.client.LeaveGroupContext(ctx) // the session's end does it otherwise
}

func (s *session) close() {
	if s.client != nil {
		s.client.CloseAllowingRebalance()
	}
	s.sink.Close()
	s.baseStop()
	s.mu.Lock()
	left := s.workers
	s.workers = map[place]*worker{}
	s.mu.Unlock()
	for p, w := range left {
		w.hardStop()
		s.metrics.forget(s.label, p.topic, strconv.Itoa(int(p.partition)))
	}
	go func() { // a worker whose handler hangs may be late
		s.running.Wait()
		s.decoder.close()
	}()
	s.metrics.assigned.WithLabelValues(s.label).Set(0)
}

// ready says what keeps the view from being up to date, or nil.
func (c *consumer) ready() error {
	c.mu.Lock()
	fault, tripped := c.fault, c.tripped
	c.mu.Unlock()
	if fault != nil {
		return fmt.Errorf("view %s: %w", c.label, fault)
	}
	var faults []error
	if tripped {
		faults = append(faults, fmt.Errorf("view %s is paused by its breaker, since too many of its events became letters: look at table letters, consumer %s, then resume the view", c.label, topics.ConsumerView(c.view.Name, c.view.Version)))
	}
	for _, w := range c.each() {
		w.status.mu.Lock()
		switch {
		case w.status.stopped != nil:
			faults = append(faults, w.status.stopped)
		case w.status.stalled:
			faults = append(faults, fmt.Errorf("view %s, %s[%d] makes no progress since %s", c.label, w.place.topic, w.place.partition, w.status.waitingSince.UTC().Format(time.RFC3339)))
		}
		w.status.mu.Unlock()
	}
	return errors.Join(faults...)
}
