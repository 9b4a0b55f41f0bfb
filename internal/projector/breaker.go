package projector

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// actorBreaker is who has paused a view when its breaker did.
const actorBreaker = "breaker"

// breaker watches the share of a view's events that become letters: where much fails, a person
// should look before a thousand streams are parked. It pauses the view for all processes, and
// does not resume it: what failed goes on to fail until somebody has mended it. After that it
// begins with an empty window, and needs as many letters again.
type breaker struct {
	share      float64
	lettersMin int
	window     time.Duration
	clock      func() time.Time

	mu       sync.Mutex
	recent   []breakerSample // of the window, the oldest first
	failed   int
	applied  int
	tripping bool
}

// breakerSamples is how finely the window is cut.
const breakerSamples = 20

type breakerSample struct {
	until           time.Time
	failed, applied int
}

// note counts what a batch came to, and says whether the view is to be paused: once, until reset.
func (b *breaker) note(failed, applied int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock()
	for len(b.recent) > 0 && now.Sub(b.recent[0].until) > b.window {
		b.failed -= b.recent[0].failed
		b.applied -= b.recent[0].applied
		b.recent = b.recent[1:]
	}
	if n := len(b.recent); n == 0 || now.After(b.recent[n-1].until) {
		b.recent = append(b.recent, breakerSample{until: now.Add(b.window / breakerSamples)})
	}
	last := &b.recent[len(b.recent)-1]
	last.failed, last.applied = last.failed+failed, last.applied+applied
	b.failed, b.applied = b.failed+failed, b.applied+applied
	if b.tripping || b.failed < b.lettersMin || float64(b.failed) <= b.share*float64(b.failed+b.applied) {
		return false
	}
	b.tripping = true
	return true
}

// reset empties the window.
func (b *breaker) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recent, b.failed, b.applied, b.tripping = nil, 0, 0, false
}

// again lets the next batch try to trip: the view could not be paused.
func (b *breaker) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tripping = false
}

// breaks pauses the view when its breaker says so.
func (w *worker) breaks(failed, applied int) {
	if w.breaker == nil || !w.breaker.note(failed, applied) {
		return
	}
	w.gate.set(true)
	if err := w.store.trip(w.hard, failed); err != nil {
		w.breaker.again()
		w.gate.set(false)
		w.log.Error("the breaker cannot pause the view, and will try again", "error", err)
		return
	}
	w.log.Error("the breaker has paused the view, since too many events became letters: look at them, then resume the view", "letters", failed)
}

// trip pauses the view for all processes.
func (s *store) trip(ctx context.Context, failed int) error {
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if err := setPaused(ctx, tx, s.namespace, s.consumer, true, fmt.Sprintf("%d events of one batch became letters, and too large a share of the last ones", failed), actorBreaker); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// setPaused pauses or resumes a consumer.
func setPaused(ctx context.Context, tx pgx.Tx, namespace, consumer string, paused bool, reason, actor string) error {
	_, err := tx.Exec(ctx, `insert into `+quote(namespace, "controls")+` (consumer, paused, reason, actor) values ($1, $2, $3, $4)
		on conflict (consumer) do update set paused = excluded.paused, reason = excluded.reason, actor = excluded.actor, changed_at = now()`,
		consumer, paused, reason, actor)
	if err != nil {
		return fmt.Errorf("set what is asked of %s: %w", consumer, err)
	}
	return nil
}
