package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// RunConfig says what to run.
type RunConfig struct {
	Cell     Cell
	Seed     int64
	Duration time.Duration // of the load
	Planted  string        // the bug that the services are built with; "" for none
}

const (
	partitions = 3
	// openTimeout bounds the start of a stack, observeTimeout the reading of what it left.
	openTimeout    = 90 * time.Second
	observeTimeout = 60 * time.Second
	rebuildTimeout = 45 * time.Second
	// plantedCaughtMax is how long a run with a planted bug waits for what may never come.
	plantedCaughtMax = 8 * time.Second
)

// RunCell runs a cell once and returns the evidence. An error means that the run itself failed:
// it proves nothing.
func RunCell(ctx context.Context, h *Host, cfg RunConfig) (*Run, error) {
	st, err := openStack(ctx, h, cfg)
	if st != nil {
		defer func() {
			if err := st.close(); err != nil {
				h.Log.Warn("a stack did not end well", "cell", cfg.Cell.Name, "cause", err)
			}
			if !h.Keep {
				_ = os.RemoveAll(st.dir)
			}
		}()
	}
	if err != nil {
		return nil, fmt.Errorf("cell %s, seed %d: start: %w", cfg.Cell.Name, cfg.Seed, err)
	}
	l, err := newLoad(ctx, cfg.Cell.Load, st)
	if l != nil {
		defer l.close()
	}
	if err != nil {
		return nil, fmt.Errorf("cell %s, seed %d: start the load: %w", cfg.Cell.Name, cfg.Seed, err)
	}
	r := &runner{cfg: cfg, st: st, load: l, gate: newGate()}
	if err := r.play(ctx); err != nil {
		return nil, fmt.Errorf("cell %s, seed %d: %w%s", cfg.Cell.Name, cfg.Seed, err, st.tails())
	}
	return st.run, nil
}

// openStack starts broker, database and services.
func openStack(ctx context.Context, h *Host, cfg RunConfig) (*stack, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	cell := cfg.Cell
	run := &Run{
		Cell: cell.Name, Seed: cfg.Seed, Planted: cfg.Planted, Broker: cell.Broker, Duration: cfg.Duration, Started: time.Now(),
		Namespace: fmt.Sprintf("f%x", random(cfg.Seed, purposeNamespace).Uint32()), Partitions: partitions, Stops: cell.Stops, Views: cell.Projectors > 0,
		Progress: -1, Caught: -1,
	}
	dir, err := os.MkdirTemp(h.Dir, cell.Name+"-")
	if err != nil {
		return nil, err
	}
	st := &stack{host: h, run: run, began: run.Started, dir: dir, log: h.Log}
	if st.binary, err = h.Binary(ctx, cfg.Planted != ""); err != nil {
		return nil, err
	}
	if cell.Broker == brokerFake {
		st.broker, err = startFake(cell.Properties, fakeNodes)
	} else {
		st.broker, err = startJVM(ctx, filepath.Join(dir, "broker"), cell.Properties, cell.Proxied)
	}
	if err != nil {
		return nil, err
	}
	if run.Views {
		if st.dsn, err = h.database(ctx, databaseName(dir)); err != nil {
			return st, err
		}
	}
	return st, st.open(ctx)
}

// databaseName is unique within a host, as the folder is.
func databaseName(dir string) string {
	return "f_" + strings.NewReplacer("-", "_").Replace(strings.ToLower(filepath.Base(dir)))
}

// tails are the last lines of the services, for an error.
func (st *stack) tails() string {
	var b strings.Builder
	for _, s := range st.named("") {
		if p, _ := s.process(); p != nil {
			fmt.Fprintf(&b, "\n--- %s wrote at last:\n%s", s.name, p.Output())
		}
	}
	return b.String()
}

// runner plays one run.
type runner struct {
	cfg   RunConfig
	st    *stack
	load  *load
	stage *stage
	gate  *gate
}

func (r *runner) play(ctx context.Context) error {
	if err := r.startServices(ctx); err != nil {
		return err
	}
	st, run := r.st, r.st.run
	background, stopBackground := context.WithCancel(ctx)
	defer stopBackground()
	var behind sync.WaitGroup
	defer behind.Wait()
	defer stopBackground()
	behind.Go(func() { r.load.readReplies(background) })
	s := &sampler{st: st}
	if run.Views {
		behind.Go(func() { s.run(background) })
	}
	if err := r.faultsAndLoad(ctx); err != nil {
		return err
	}
	if err := r.observe(ctx); err != nil {
		return err
	}
	stopBackground()
	behind.Wait()
	run.Offsets = s.all
	run.Notes = append(run.Notes, st.notes...)
	run.Notes = append(run.Notes, r.load.strays...)
	return nil
}

func (r *runner) startServices(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	cell := r.cfg.Cell
	if cell.Apart {
		if err := r.st.apart(); err != nil {
			return err
		}
	}
	for n := range cell.Ingests {
		args := []string{"ingest"}
		if n < len(cell.Skews) {
			args = []string{"own-ingest", "-skew", cell.Skews[n]}
		}
		if err := r.st.add(fmt.Sprintf("ingest%d", n), args...).start(); err != nil {
			return err
		}
	}
	for n := range cell.Projectors {
		if err := r.st.add(fmt.Sprintf("projector%d", n), "projector").start(); err != nil {
			return err
		}
	}
	return r.st.untilServed(ctx)
}

// faultsAndLoad is the run proper: clients ask, faults strike, then all heals.
func (r *runner) faultsAndLoad(ctx context.Context) error {
	st, run := r.st, r.st.run
	r.stage = &stage{st: st, load: r.load, pause: r.gate.hold}
	loading, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	loaded := make(chan struct{})
	go func() { defer close(loaded); r.load.run(loading, r.gate) }()
	began := time.Now()
	err := r.strikeAll(ctx, began)
	if err == nil {
		err = sleep(ctx, r.cfg.Duration-time.Since(began))
	}
	if err != nil {
		stopLoad()
		<-loaded
		return err
	}
	run.Healed = st.now()
	if run.Stops {
		run.Silent = r.stage.stopped(ctx)
	} else {
		r.awaitProgress(ctx)
	}
	stopLoad()
	<-loaded
	run.Ended = st.now()
	settled, cancel := context.WithTimeout(ctx, caughtMax)
	defer cancel()
	if err := r.load.settle(settled); err != nil {
		return err
	}
	if !run.Stops {
		r.awaitCaught(ctx)
	}
	return nil
}

// strikeAll plays all tracks at the same time.
func (r *runner) strikeAll(ctx context.Context, began time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, track := range r.cfg.Cell.Plan(r.cfg.Seed, r.cfg.Duration) {
		wg.Go(func() {
			for _, step := range track {
				if time.Since(began) > r.cfg.Duration || sleep(ctx, step.At-time.Since(began)) != nil {
					return // steps took longer than planned, or another track failed
				}
				record := FaultRecord{Step: step, Began: r.st.now()}
				hit, note, err := r.stage.strike(ctx, step)
				record.Ended, record.Hit, record.Note = r.st.now(), hit, note
				mu.Lock()
				r.st.run.Faults = append(r.st.run.Faults, record)
				mu.Unlock()
				if err != nil {
					cancel(fmt.Errorf("fault %s: %w", step, err))
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// awaitProgress measures how long it takes until as many answers have come as there are clients.
func (r *runner) awaitProgress(ctx context.Context) {
	limit := progressMax + time.Second
	if r.cfg.Planted != "" {
		limit = plantedCaughtMax
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began, before := time.Now(), r.load.answers.Load()
	if r.load.untilAnswered(ctx, before+1) == nil {
		r.st.run.Progress = time.Since(began)
	}
	_ = r.load.untilAnswered(ctx, before+int64(2*r.load.cfg.Clients))
}

// awaitCaught measures how long it takes until nothing is owed: no answer, no row.
func (r *runner) awaitCaught(ctx context.Context) {
	run := r.st.run
	limit := max(caughtMax, 2*run.Ended)
	if r.cfg.Planted != "" {
		limit = plantedCaughtMax
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("the time for it is over"))
	defer cancel()
	began := time.Now()
	owed := ""
	err := poll(ctx, 20*time.Millisecond, "all that is owed", func() (bool, error) {
		if n := r.load.owed(); n > 0 {
			owed = fmt.Sprintf("%d answers", n)
			return false, nil
		}
		if !run.Views {
			return true, nil
		}
		n, err := r.st.viewsBehind(ctx, r.st.pool)
		owed = fmt.Sprintf("%d records in views (%v)", n, err)
		return err == nil && n == 0, nil
	})
	if err != nil {
		run.Owed = owed + r.st.tails()
		return
	}
	run.Caught = time.Since(began)
}

// observe stops the services in order and reads all that they left.
func (r *runner) observe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	defer cancel()
	st, run := r.st, r.st.run
	for _, s := range st.named("") {
		if err := s.stop(); err != nil {
			st.note("%v", err)
		}
		// It is started again when it ends by itself; what no service may do is to crash.
		if n := s.logged("panic: ") + s.logged("fatal error: "); n > 0 {
			st.note("%s crashed %d times, see its logs", s.name, n)
		}
	}
	if err := st.readAll(ctx, run); err != nil {
		return err
	}
	r.stage.behindGone(run)
	run.Sendings = r.load.all()
	if !run.Views {
		return nil
	}
	var err error
	if run.Rows, err = readRows(ctx, st.pool, run.Namespace); err != nil {
		return err
	}
	if run.Owed != "" {
		return nil // what the live views cannot fold stops a rebuild as well
	}
	if err := r.rebuild(ctx); err != nil {
		st.note("rebuild: %v", err)
	}
	return nil
}

// rebuild folds the log from zero into an empty database.
func (r *runner) rebuild(ctx context.Context) error {
	st := r.st
	ctx, cancel := context.WithTimeout(ctx, rebuildTimeout)
	defer cancel()
	dsn, err := st.host.database(ctx, databaseName(st.dir)+"_zero")
	if err != nil {
		return err
	}
	pool, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	again := st.add("rebuild", "projector")
	again.env = []string{"FOLDSTREAM_POSTGRES_DSN=" + dsn}
	if err := again.start(); err != nil {
		return err
	}
	if err := poll(ctx, 20*time.Millisecond, "the views built from zero", func() (bool, error) {
		n, err := st.viewsBehind(ctx, pool)
		return err == nil && n == 0, nil
	}); err != nil {
		return err
	}
	if err := again.stop(); err != nil {
		st.note("%v", err)
	}
	st.run.Rebuilt, err = readRows(ctx, pool, st.run.Namespace)
	return err
}

// all hands the sendings over, in the order of their calls.
func (l *load) all() []*Sending {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sendings)
}

// gate holds clients back.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed while clients may go on
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
	close(g.open)
	return g
}

func (g *gate) hold(hold bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if hold {
		g.open = make(chan struct{})
	} else {
		close(g.open)
	}
}

// wait returns when clients may go on, or ctx ends.
func (g *gate) wait(ctx context.Context) {
	g.mu.Lock()
	open := g.open
	g.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
	}
}
