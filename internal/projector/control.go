package projector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// control is a consumer's row of controls: what operators ask of it. The zero value asks nothing.
type control struct {
	paused     bool
	tripped    bool   // paused by the breaker
	heldBy     string // empty when nobody holds the consumer, or its time is up
	generation int64
	revision   int64 // of the corrections
	dropped    bool  // the view version

	letters map[string]int64 // of each parked stream of a partition: how many it has
}

var (
	// errHeld: a tool has the view's partitions for itself.
	errHeld = errors.New("the view is held by a tool")
	// errPaused: an operator has paused the view.
	errPaused = errors.New("the view is paused")
)

// selectControl reads $1 consumer, $2 view and $3 version as one row.
func (s *store) selectControl() string {
	return `select coalesce(c.paused, false), coalesce(c.paused and c.actor = '` + actorBreaker + `', false), coalesce(case when c.held_until < clock_timestamp() then '' else c.held_by end, ''),
		coalesce(c.generation, 0), coalesce(c.revision, 0), coalesce((select dropped from ` + s.table("views") + ` where name = $2 and version = $3), false)
		from (select 1) as one left join ` + s.table("controls") + ` c on c.consumer = $1`
}

func (c *control) fields() []any {
	return []any{&c.paused, &c.tripped, &c.heldBy, &c.generation, &c.revision, &c.dropped}
}

// control reads what is asked of the view.
func (s *store) control(ctx context.Context) (control, error) {
	var c control
	err := s.db.QueryRow(ctx, s.selectControl(), s.consumer, s.view.Name, s.view.Version).Scan(c.fields()...)
	if err != nil {
		return c, fmt.Errorf("read what is asked of the view: %w", err)
	}
	return c, nil
}

// admit says whether this store's side may work: the tool that holds the view, else its projector.
func (s *store) admit(c control) error {
	switch {
	case s.holder != "" && c.heldBy != s.holder:
		return fmt.Errorf("%w: another than this one, or this one's time is up (held by %q)", errHeld, c.heldBy)
	case s.holder != "":
		return nil
	case c.dropped:
		return fmt.Errorf("%w: this version was dropped", errHeld)
	case c.heldBy != "":
		return fmt.Errorf("%w: %s", errHeld, c.heldBy)
	}
	return nil
}

// lockControl reads the row so that it does not change before tx ends, and makes it where there is none.
func (s *store) lockControl(ctx context.Context, tx pgx.Tx) (control, error) {
	var c control
	b := &pgx.Batch{}
	b.Queue(`insert into `+s.table("controls")+` (consumer) values ($1) on conflict do nothing`, s.consumer)
	b.Queue(`select from `+s.table("controls")+` where consumer = $1 for share`, s.consumer)
	b.Queue(s.selectControl(), s.consumer, s.view.Name, s.view.Version).QueryRow(func(row pgx.Row) error { return row.Scan(c.fields()...) })
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return c, fmt.Errorf("read what is asked of the view: %w", err)
	}
	return c, nil
}

// gate keeps workers from their next transaction while the view is paused. It may be used from
// any goroutine.
type gate struct {
	mu   sync.Mutex
	shut chan struct{} // closed when the gate opens; nil while it is open
}

func (g *gate) set(paused bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case paused && g.shut == nil:
		g.shut = make(chan struct{})
	case !paused && g.shut != nil:
		close(g.shut)
		g.shut = nil
	}
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut != nil
}

// wait returns once the gate is open; false: ctx ended first.
func (g *gate) wait(ctx context.Context) bool {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut == nil {
		return ctx.Err() == nil
	}
	select {
	case <-shut:
		return true
	case <-ctx.Done():
		return false
	}
}

// controlInterval is how often a consumer looks at what is asked of it. A transaction looks, too.
const controlInterval = 250 * time.Millisecond

// obey follows the controls during a session: it shuts and opens the gate, and ends the session
// when a tool holds the view or has held it.
func (s *session) obey(ctx context.Context, generation int64) {
	tick := time.NewTicker(controlInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c, err := s.store.control(ctx)
		if err != nil {
			continue // each transaction meets the same fault, and tells
		}
		s.showPaused(c)
		if err := s.store.admit(c); err != nil {
			s.restart(err)
		} else if c.generation != generation {
			s.restart(fmt.Errorf("%w: it was, and is given back", errHeld))
		}
	}
}

func (c *consumer) showPaused(asked control) {
	if !asked.paused && c.gate.isShut() {
		c.breaker.reset()
	}
	c.gate.set(asked.paused)
	c.mu.Lock()
	c.tripped = asked.tripped
	c.mu.Unlock()
	c.metrics.paused.WithLabelValues(c.label).Set(number(asked.paused))
	c.metrics.tripped.WithLabelValues(c.label).Set(number(asked.tripped))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// await returns once the view may be kept by this consumer. It is ready meanwhile: nothing is
// wrong with a version that a tool works on, or that was dropped.
func (c *consumer) await(ctx context.Context, s *store) (control, error) {
	for told := false; ; told = true {
		asked, err := s.control(ctx)
		if err != nil {
			return asked, err
		}
		err = s.admit(asked)
		c.metrics.held.WithLabelValues(c.label).Set(number(err != nil))
		if err == nil {
			c.showPaused(asked)
			return asked, nil
		}
		if !told {
			c.setFault(nil)
			c.log.Info("the view is left alone", "reason", err)
		}
		if !pause(ctx, controlInterval) {
			return asked, ctx.Err()
		}
	}
}
