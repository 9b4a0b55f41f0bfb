// Package projector keeps views in Postgres: it reads the events topics, folds the events by the
// pure functions of pkg/projection, and writes rows and progress in the same transaction, so that
// each event counts exactly once (DESIGN §6; PROTOCOL P1–P4, W6, W9, D9).
//
// # The way of a record
//
//	poll ── dispatch ──► queue ──► worker: one batch, one transaction
//	                               1. judge (void? control?), read the envelope, decode
//	                               2. compare-and-set of the offset row   lost: fenced, end
//	                               3. parked keys; rows that are not remembered
//	                               4. fold, stream by stream
//	                               5. one bulk statement per table
//	                               6. letters: bytes to Kafka, then their rows
//	                               7. COMMIT                               unknown: ask the offset row
//
// # Who owns what
//
// A view version is a consumer group. Each process has one consumer per view, and that one
// goroutine per assigned partition, the worker. Only the worker touches its position, cache and
// parked keys. A worker is made at each assignment with a fresh epoch from the offset row (D9);
// from then on every batch of its predecessor loses the compare-and-set. So a revoked or stopped
// process can do no harm, whatever it still has under way:
//
//	A begins a batch, holds the offset row's lock ── B's bump waits ── A commits, B reads A's progress
//	A is stopped before its batch                  ── B bumps        ── A's compare-and-set finds no row
//	A is stopped inside its transaction            ── B's bump waits until Postgres ends A's idle session
//
// # What goes wrong with a record
//
// The fate of an error is told by deadletter.FateOf. Infrastructure: pause, try again. Data: the
// record becomes a letter and parks its stream. A gap in a stream, another topic under the same
// name, too many parked keys: the partition stops, Ready says so, and the others go on.
//
// # File map
//
// projector.go Run and Ready; consumer.go group, assignment, dispatch, watchdog; queue.go what
// waits for a worker; worker.go the transaction; batch.go from records to steps; fold.go from
// steps to effects; store.go and sql.go the statements; cache.go rows in memory; migrate.go
// schemas and tables; indexes.go; system.go, months.go and slots.go the system views; metrics.go;
// config.go. control.go what operators ask of a view, corrections.go events that are left out,
// breaker.go; reaudit.go folds rows again and compares.
//
// operator.go what operators do to versions: rebuild.go with stretch.go (a bounded stretch of the
// log, folded by the same worker) and bulk.go; verify.go with compare.go and explain.go; switch.go;
// operate.go (pause, step, skip, position); trail.go writes the audit topic.
package projector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// Projector keeps a set of views, and the system's beside them. Made by New.
type Projector struct {
	cfg       Config
	consumers []*consumer
	running   atomic.Bool
}

// New checks the configuration and registers the metrics. It connects to nothing.
func New(cfg Config) (*Projector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("projector metrics: %w", err)
	}
	p := &Projector{cfg: cfg}
	for _, view := range cfg.views() {
		p.consumers = append(p.consumers, newConsumer(&p.cfg, view, m))
	}
	return p, nil
}

// Run keeps the views until ctx ends, then finishes the transactions under way, leaves the groups
// and returns nil. The tables must be there: call Migrate, and MigrateSystemViews, before. It returns an error when a
// view's Go types do not fit the registered schemas. Run it once.
func (p *Projector) Run(ctx context.Context) error {
	if !p.running.CompareAndSwap(false, true) {
		return errors.New("projector: Run was called before")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	errs := make([]error, len(p.consumers))
	for i, c := range p.consumers {
		wg.Go(func() {
			if errs[i] = c.run(ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Ready returns nil while every view has joined its group and none of its partitions here is
// stopped or stalled; else one error for each fault. It may be called from any goroutine.
func (p *Projector) Ready() error {
	var faults []error
	for _, c := range p.consumers {
		faults = append(faults, c.ready())
	}
	return errors.Join(faults...)
}
