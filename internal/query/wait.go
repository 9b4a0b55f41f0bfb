package query

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
)

// target is what a request waits for: a version of a stream, or an offset of a partition.
type target struct {
	category  string
	stream    string // "": an offset
	partition int32
	wanted    int64
}

func (t target) isStream() bool { return t.stream != "" }

// await waits for what wait= names, and returns what is wrong with the parameters.
func (a *API) await(c *call, p *params, v *view) error {
	d := time.Duration(p.integer(paramWaitMs, waitDefault.Milliseconds(), 0, waitMax.Milliseconds())) * time.Millisecond
	if !p.values.Has(paramWait) {
		return p.err()
	}
	t, err := parseTarget(p.values.Get(paramWait), v)
	if err != nil {
		p.fault(paramWait, "%s", err)
	}
	if err := p.err(); err != nil {
		return err
	}
	return a.waits.wait(c.ctx(), v, t, d)
}

// parseTarget reads category/id@version, partition@offset or category:partition@offset.
func parseTarget(text string, v *view) (target, error) {
	const wants = "want category/id@version, or partition@offset, or category:partition@offset"
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return target{}, fmt.Errorf("%q has no @: %s", clip(text), wants)
	}
	wanted, err := strconv.ParseInt(text[at+1:], 10, 64)
	if err != nil || wanted < 0 || text[at+1] == '+' {
		return target{}, fmt.Errorf("%q: what follows the last @ is no whole number: %s", clip(text), wants)
	}
	if v.versions == "" {
		return target{}, fmt.Errorf("view %s does not tell how far it is", v.name)
	}
	category, id, isStream := strings.Cut(text[:at], "/")
	if isStream {
		t := target{category: category, stream: id, wanted: wanted}
		if wanted == 0 {
			return t, fmt.Errorf("%q: versions count from 1", clip(text))
		}
		if err := v.isFedBy(category); err != nil {
			return t, err
		}
		if event.ValidateID(id) != nil {
			return t, fmt.Errorf("%q is no aggregate id: want 1 to %d bytes of UTF-8 without control characters", clip(id), event.StreamIDBytesMax)
		}
		return t, nil
	}
	return parseOffset(text[:at], wanted, v)
}

func parseOffset(place string, wanted int64, v *view) (target, error) {
	category, digits, named := strings.Cut(place, ":")
	if !named {
		digits = place
		if len(v.categories) != 1 {
			return target{}, fmt.Errorf("view %s is made of many categories: say which, as in category:partition@offset", v.name)
		}
		category = v.categories[0]
	}
	partition, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return target{}, fmt.Errorf("%q is no partition", clip(digits))
	}
	return target{category: category, partition: int32(partition), wanted: wanted}, v.isFedBy(category)
}

// isFedBy is nil for a category that the view is made of.
func (v *view) isFedBy(category string) error {
	if slices.Contains(v.categories, category) || (len(v.categories) == 0 && category != "") {
		return nil
	}
	return fmt.Errorf("view %s is not made of events of %q but of those of %s", v.name, clip(category), strings.Join(v.categories, ", "))
}

// Pauses between two looks on behalf of one who waits: they grow from the first to the last.
const (
	pauseFirst = 4 * time.Millisecond
	pauseLast  = 200 * time.Millisecond
)

// waits are all who wait, by view.
type waits struct {
	api     *API
	mu      sync.Mutex
	pollers map[string]*poller // by view.id
	waiting int
	ctx     context.Context // ends with close
	stop    context.CancelFunc
	running sync.WaitGroup
}

func (w *waits) init(a *API) {
	w.api, w.pollers = a, map[string]*poller{}
	w.ctx, w.stop = context.WithCancel(context.Background())
}

// close ends the pollers and waits for them.
func (w *waits) close() {
	w.mu.Lock()
	w.stop()
	w.mu.Unlock()
	w.running.Wait()
}

// poller looks at one version of a view for all who wait for it. It lives while somebody waits.
type poller struct {
	waits   *waits
	view    *view
	waiters map[*waiter]struct{} // under waits.mu
	wake    chan struct{}
}

type waiter struct {
	target target
	looks  int        // how often it was looked for
	done   chan error // nil: it came
}

// wait returns nil when the view has the target.
func (w *waits) wait(ctx context.Context, v *view, t target, d time.Duration) error {
	began := w.api.cfg.Clock()
	one := &waiter{target: t, done: make(chan error, 1)}
	p, err := w.join(v, one)
	if err != nil {
		return err
	}
	defer w.leave(p, one)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err = <-one.done:
	case <-timer.C:
		err = w.late(ctx, v, t)
	case <-w.api.draining:
		err = unavailable(errClosed.Error() + ": ask another")
	case <-ctx.Done():
		err = ctx.Err()
	}
	w.api.metrics.waits.WithLabelValues(resultOf(err)).Inc()
	w.api.metrics.waited.Observe(w.api.cfg.Clock().Sub(began).Seconds())
	return err
}

func resultOf(err error) string {
	var p *Problem
	switch {
	case err == nil:
		return "came"
	case errors.As(err, &p) && (p.Code == codeStale || p.Code == codeParked):
		return p.Code
	}
	return "left"
}

func (w *waits) join(v *view, one *waiter) (*poller, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ctx.Err() != nil:
		return nil, unavailable(errClosed.Error() + ": ask another")
	case w.waiting >= w.api.cfg.Limits.WaitersMax:
		w.api.metrics.Refused.WithLabelValues(codeOverloaded).Inc()
		return nil, overloaded("as many requests wait for what was written as may: come again")
	}
	w.waiting++
	w.api.metrics.waiting.Inc()
	p := w.pollers[v.id()]
	if p == nil {
		p = &poller{waits: w, view: v, waiters: map[*waiter]struct{}{}, wake: make(chan struct{}, 1)}
		w.pollers[v.id()] = p
		w.running.Add(1)
		go p.run()
	}
	p.waiters[one] = struct{}{}
	p.nudge()
	return p, nil
}

func (w *waits) leave(p *poller, one *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting--
	w.api.metrics.waiting.Dec()
	delete(p.waiters, one)
	p.nudge() // the last one takes the poller with it
}

func (p *poller) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run looks, settles, pauses, until nobody waits.
func (p *poller) run() {
	defer p.waits.running.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		all := p.take()
		if all == nil {
			return
		}
		seen, err := p.waits.api.look(p.waits.ctx, p.view, targetsOf(all), false)
		p.settle(all, seen, err)
		// Whoever comes now is looked for at once, but no more often than by the first pause.
		if !p.rest(timer, pauseFirst, nil) || !p.rest(timer, p.pause()-pauseFirst, p.wake) {
			return
		}
	}
}

// rest waits for the pause or the wake; false: the service stops.
func (p *poller) rest(timer *time.Timer, d time.Duration, wake <-chan struct{}) bool {
	timer.Reset(max(d, 0))
	select {
	case <-timer.C:
	case <-wake:
	case <-p.waits.ctx.Done():
		return false
	}
	return true
}

// take is those who wait now, or nil, and then the poller is gone.
func (p *poller) take() []*waiter {
	p.waits.mu.Lock()
	defer p.waits.mu.Unlock()
	if len(p.waiters) == 0 {
		delete(p.waits.pollers, p.view.id())
		return nil
	}
	return slices.Collect(maps.Keys(p.waiters))
}

// settle tells those for whom it is decided.
func (p *poller) settle(all []*waiter, seen *sight, err error) {
	p.waits.mu.Lock()
	defer p.waits.mu.Unlock()
	for _, one := range all {
		one.looks++
		var verdict error
		switch {
		case err != nil && isMoved(err):
			verdict = err // the view was switched or dropped: whoever waits asks again
		case err != nil:
			continue // Postgres is away: it may come back in time
		default:
			var decided bool
			if decided, verdict = seen.judge(p.view, one.target); !decided {
				continue
			}
		}
		delete(p.waiters, one)
		select {
		case one.done <- verdict:
		default:
		}
	}
}

// pause is that of whoever came last.
func (p *poller) pause() time.Duration {
	p.waits.mu.Lock()
	defer p.waits.mu.Unlock()
	least := pauseLast
	for one := range p.waiters {
		const doublings = 6
		least = min(least, pauseFirst<<min(max(one.looks-1, 0), doublings))
	}
	return least
}

func targetsOf(all []*waiter) []target {
	targets := make([]target, len(all))
	for i, one := range all {
		targets[i] = one.target
	}
	return targets
}

// sight is what a look saw.
type sight struct {
	versions  map[event.StreamID]int64
	parked    map[event.StreamID]bool
	positions map[partition]position
	counts    map[string]int32 // partitions seen, by category
}

type partition struct {
	category string
	number   int32
}

type position struct {
	next    int64
	seconds float64 // since it moved
}

// judge says whether a wait is over, and how.
func (s *sight) judge(v *view, t target) (bool, error) {
	if !t.isStream() {
		return s.positions[partition{t.category, t.partition}].next > t.wanted, nil
	}
	id := event.StreamID{Category: t.category, ID: t.stream}
	have := s.versions[id]
	switch {
	case have >= t.wanted:
		return true, nil
	case !s.parked[id]:
		return false, nil
	}
	p := problem(http.StatusConflict, codeParked, fmt.Sprintf("stream %s is held up in view %s by a dead letter: it goes on when an operator has redriven or skipped that", id, v.name))
	p.Stale = s.staleness(v, t)
	return true, p
}

// staleness says how far the view is.
func (s *sight) staleness(v *view, t target) *Staleness {
	out := &Staleness{View: v.name, ViewVersion: v.version, Category: t.category, Stream: t.stream, Wanted: t.wanted}
	number, known := t.partition, true
	if t.isStream() {
		have := s.versions[event.StreamID{Category: t.category, ID: t.stream}]
		out.Version, out.Lag = &have, max(t.wanted-have, 0)
		known = s.counts[t.category] > 0
		number = topics.Partition([]byte(t.stream), max(s.counts[t.category], 1))
	}
	at, there := s.positions[partition{t.category, number}]
	if known {
		out.Partition = &number
	}
	if known && there {
		next, seconds := max(at.next, 0), max(at.seconds, 0)
		out.NextOffset, out.Seconds = &next, &seconds
	}
	if !t.isStream() {
		out.Lag = t.wanted + 1 - min(max(at.next, 0), t.wanted+1)
	}
	return out
}

// late is the answer when the time is over: one more look, then how far the view is.
func (w *waits) late(ctx context.Context, v *view, t target) error {
	seen, err := w.api.look(ctx, v, []target{t}, true)
	if err != nil {
		return err
	}
	if decided, err := seen.judge(v, t); decided {
		return err
	}
	s := seen.staleness(v, t)
	p := problem(http.StatusServiceUnavailable, codeStale, fmt.Sprintf("view %s has not got that far: %d are missing. Wait again, or read without wait", v.name, s.Lag))
	p.Stale = s
	return p.retry()
}

// look reads how far a view is, in one round trip and, since such a pipeline is one transaction, in
// one snapshot. The positions of partitions are read where an
// offset is waited for, or all is to be known.
func (a *API) look(ctx context.Context, v *view, targets []target, all bool) (*sight, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Limits.StatementTimeout+a.cfg.Limits.QueueTimeout)
	defer cancel()
	a.metrics.polls.Inc()
	seen := &sight{versions: map[event.StreamID]int64{}, parked: map[event.StreamID]bool{}, positions: map[partition]position{}, counts: map[string]int32{}}
	b := &pgx.Batch{}
	var categories, ids []string
	var keys [][]byte
	for _, t := range targets {
		if t.isStream() {
			categories, ids, keys = append(categories, t.category), append(ids, t.stream), append(keys, []byte(t.stream))
			continue
		}
		all = true
	}
	if len(ids) > 0 {
		a.queueVersions(b, v, seen, categories, ids)
		a.queueParked(b, v, seen, keys)
	}
	if all {
		a.queuePositions(b, v, seen)
	}
	if err := a.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, fmt.Errorf("look how far view %s is: %w", v.name, err)
	}
	return seen, nil
}

func (a *API) queueVersions(b *pgx.Batch, v *view, seen *sight, categories, ids []string) {
	sql, args := "select s.category, s.stream, s.version from "+v.versions+" s join unnest($1::text[], $2::text[]) as u (category, stream) on s.category = u.category and s.stream = u.stream", []any{categories, ids}
	if v.present != "" { // an entity view has one category, and the version in its row
		key := v.columns[0].quoted
		sql, args = "select $2::text, "+key+", version from "+v.versions+" where "+key+" = any($1::text[])", []any{ids, v.categories[0]}
	}
	b.Queue(sql, args...).Query(func(rows pgx.Rows) error {
		var id event.StreamID
		var version int64
		_, err := pgx.ForEachRow(rows, []any{&id.Category, &id.ID, &version}, func() error {
			seen.versions[id] = version
			return nil
		})
		return err
	})
}

func (a *API) queueParked(b *pgx.Batch, v *view, seen *sight, keys [][]byte) {
	b.Queue("select topic, key from "+quote(a.cfg.Namespace, "parked")+" where consumer = $1 and key = any($2::bytea[])", v.consumer, keys).Query(func(rows pgx.Rows) error {
		var topic string
		var key []byte
		_, err := pgx.ForEachRow(rows, []any{&topic, &key}, func() error {
			seen.parked[event.StreamID{Category: a.categoryOf(topic), ID: string(key)}] = true
			return nil
		})
		return err
	})
}

func (a *API) queuePositions(b *pgx.Batch, v *view, seen *sight) {
	b.Queue("select topic, partition, next_offset, extract(epoch from clock_timestamp() - updated_at)::double precision from "+quote(a.cfg.Namespace, "offsets")+" where consumer = $1", v.consumer).Query(func(rows pgx.Rows) error {
		var topic string
		var number int32
		var at position
		_, err := pgx.ForEachRow(rows, []any{&topic, &number, &at.next, &at.seconds}, func() error {
			category := a.categoryOf(topic)
			seen.positions[partition{category, number}] = at
			seen.counts[category] = max(seen.counts[category], number+1)
			return nil
		})
		return err
	})
}

// categoryOf is the category of an events topic: <ns>.<category>.events.
func (a *API) categoryOf(topic string) string {
	return strings.TrimSuffix(strings.TrimPrefix(topic, a.cfg.Namespace+"."), ".events")
}
