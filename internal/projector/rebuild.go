package projector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// RebuildRequest asks for a version to be built beside the live one.
type RebuildRequest struct {
	Name    string
	Version int // 0: the highest that this program has
	// Rate bounds the records read per second; 0: none.
	Rate int
	// FromStart clears what the version has, letters and parked keys too, and begins at the start
	// of the log. Else it is gone on from where the version is: the start, for a new one, or where
	// an unfinished rebuild ended.
	FromStart bool
}

// RebuildReport is what a rebuild came to.
type RebuildReport struct {
	Name    string        `json:"name"`
	Version int           `json:"version"`
	Live    int           `json:"live"`    // the version that readers see
	Resumed bool          `json:"resumed"` // went on with one that was not finished
	Records int64         `json:"records"` // read by this call
	Took    time.Duration `json:"took_ns"`
	Parked  int64         `json:"parked"`  // keys
	Letters int64         `json:"letters"` // records
}

// Phase is a part of long work.
type Phase string

// The phases.
const (
	PhaseRead    Phase = "read"     // the log is read up to its end
	PhaseIndex   Phase = "index"    // indexes are made again
	PhaseCatchUp Phase = "catch up" // what came meanwhile is read
	PhaseWait    Phase = "wait"     // for the live version to come up
	PhaseCompare Phase = "compare"
)

// Progress of long work.
type Progress struct {
	View  string        `json:"view"` // <name>.v<N>
	Phase Phase         `json:"phase"`
	Done  int64         `json:"done"` // records
	Total int64         `json:"total"`
	Rate  float64       `json:"rate"`    // records/s since the phase began
	Left  time.Duration `json:"left_ns"` // at that rate; 0 when nothing can be said
}

// Rebuild builds a version beside the live one, from the log up to its end, and gives it back to
// the projectors, which keep it up to date from there. Rows that are new go by COPY into tables
// without secondary indexes, which are made again at the end, in one transaction per batch with
// the offsets, as ever. Nobody reads the version meanwhile, and no projector folds it.
//
// When ctx ends, or the process dies, what was committed stays; the next call goes on from there.
// Until then the version is held: finish the rebuild, or drop the version.
func (o *Operator) Rebuild(ctx context.Context, r RebuildRequest) (RebuildReport, error) {
	began := o.cfg.Clock()
	v, live, err := o.rebuildable(ctx, r)
	if err != nil {
		return RebuildReport{}, err
	}
	report := RebuildReport{Name: v.Name, Version: v.Version, Live: live.number}
	st, err := o.store(v)
	if err != nil {
		return report, err
	}
	if err := o.trail.write(ctx, "view.rebuild", st.consumer, map[string]any{"from_start": r.FromStart}); err != nil {
		return report, err
	}
	h, err := o.holding(ctx, st.consumer, "rebuild", false)
	if err != nil {
		return report, err
	}
	report.Resumed, err = o.beginRebuild(ctx, st, r.FromStart)
	if err == nil {
		report.Records, err = o.build(ctx, h, v, r.Rate)
	}
	if err == nil {
		err = o.endRebuild(ctx, st)
	}
	if err != nil {
		h.keep(ctx)
		return report, fmt.Errorf("rebuild %s.v%d (it is kept as it is; the same call goes on with it): %w", v.Name, v.Version, err)
	}
	if err := h.giveBack(ctx); err != nil {
		return report, err
	}
	report.Took = o.cfg.Clock().Sub(began)
	err = o.cfg.Pool.QueryRow(ctx, `select (select count(*) from `+o.table("parked")+` where consumer = $1), (select count(*) from `+o.table("letters")+` where consumer = $1)`,
		st.consumer).Scan(&report.Parked, &report.Letters)
	return report, err
}

// rebuildable finds the version and makes its tables, where they are not there.
func (o *Operator) rebuildable(ctx context.Context, r RebuildRequest) (v projection.View, live version, err error) {
	all, err := o.versions(ctx, o.cfg.Pool, r.Name)
	if err != nil {
		return v, live, err
	}
	if live, err = find(all, 0); err != nil {
		return v, live, err
	}
	number := r.Version
	if number == 0 {
		for _, own := range o.cfg.views() {
			if own.Name == r.Name {
				number = max(number, own.Version)
			}
		}
	}
	if v, err = o.view(r.Name, number); err != nil {
		return v, live, err
	}
	if number == live.number {
		return v, live, fmt.Errorf("%s: %w: give the new definition the version %d and build it beside", live.label(), ErrLive, number+1)
	}
	if known, findErr := find(all, number); findErr == nil && known.dropped {
		if _, err := o.cfg.Pool.Exec(ctx, `delete from `+o.table("views")+` where name = $1 and version = $2 and dropped`, v.Name, v.Version); err != nil {
			return v, live, fmt.Errorf("make %s.v%d again: %w", v.Name, v.Version, err)
		}
	}
	return v, live, migrate(ctx, o.cfg.Pool, o.cfg.Namespace, []projection.View{v})
}

// beginRebuild notes the secondary indexes, which an operator may have added to, and removes them.
func (o *Operator) beginRebuild(ctx context.Context, st *store, fromStart bool) (resumed bool, err error) {
	err = pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `select exists (select from `+o.table("rebuilds")+` where consumer = $1)`, st.consumer).Scan(&resumed); err != nil {
			return err
		}
		if fromStart {
			if err := o.reset(ctx, tx, st); err != nil {
				return err
			}
		}
		names, definitions, err := o.secondary(ctx, tx, st.view)
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, err := tx.Exec(ctx, "drop index "+quote(SchemaName(o.cfg.Namespace, st.view), name)); err != nil {
				return fmt.Errorf("drop index %s: %w", name, err)
			}
		}
		_, err = tx.Exec(ctx, `insert into `+o.table("rebuilds")+` as r (consumer, indexes, actor) values ($1, $2, $3)
			on conflict (consumer) do update set indexes = r.indexes || excluded.indexes`, st.consumer, definitions, o.cfg.Actor)
		return err
	})
	if err != nil {
		return resumed, fmt.Errorf("begin the rebuild: %w", err)
	}
	return resumed, nil
}

// secondary lists the indexes of a version's rows that are no constraints.
func (o *Operator) secondary(ctx context.Context, tx pgx.Tx, v projection.View) (names, definitions []string, err error) {
	rows, err := tx.Query(ctx, `select c.relname, pg_get_indexdef(c.oid) from pg_index i join pg_class c on c.oid = i.indexrelid
		where i.indrelid = to_regclass($1) and not exists (select from pg_constraint where conindid = i.indexrelid) order by 1`,
		quote(SchemaName(o.cfg.Namespace, v), "rows"))
	if err != nil {
		return nil, nil, err
	}
	names, definitions = []string{}, []string{}
	var name, definition string
	_, err = pgx.ForEachRow(rows, []any{&name, &definition}, func() error {
		names, definitions = append(names, name), append(definitions, definition)
		return nil
	})
	return names, definitions, err
}

// reset clears a version: rows, versions, letters and parked keys, and takes its offsets back to
// the start (PROTOCOL P3).
func (o *Operator) reset(ctx context.Context, tx pgx.Tx, st *store) error {
	schema := SchemaName(o.cfg.Namespace, st.view)
	b := &pgx.Batch{}
	b.Queue("truncate " + quote(schema, "rows"))
	if keepsVersions(st.view) {
		b.Queue("truncate " + quote(schema, "stream_versions"))
	}
	b.Queue(`delete from `+o.table("parked")+` where consumer = $1`, st.consumer)
	b.Queue(`delete from `+o.table("letters")+` where consumer = $1`, st.consumer)
	b.Queue(`update `+o.table("offsets")+` set epoch = epoch + 1, next_offset = $2, topic_id = '', claim_producer_id = null, claim_epoch = null, last_event_id = '', updated_at = now()
		where consumer = $1`, st.consumer, int64(positionStart))
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("clear the version: %w", err)
	}
	return nil
}

// catchUpRounds bounds how often the end of a log that goes on growing is looked up again.
const catchUpRounds = 5

// catchUpRecords is the distance at which the projectors may go on by themselves.
const catchUpRecords = 5_000

// build folds up to the end of the log, makes the indexes, and folds what came meanwhile.
func (o *Operator) build(ctx context.Context, h *hold, v projection.View, rate int) (records int64, err error) {
	f, err := o.newFolder(ctx, h, v, true, rate)
	if err != nil {
		return 0, err
	}
	defer f.close()
	if err := f.catchUp(ctx, PhaseRead); err != nil {
		return f.done.Load(), err
	}
	o.cfg.Progress(Progress{View: f.label(), Phase: PhaseIndex})
	if err := o.makeSecondary(ctx, f.store); err != nil {
		return f.done.Load(), err
	}
	err = f.catchUp(ctx, PhaseCatchUp)
	return f.done.Load(), err
}

func (f *folder) label() string {
	return fmt.Sprintf("%s.v%d", f.store.view.Name, f.store.view.Version)
}

func (f *folder) catchUp(ctx context.Context, phase Phase) error {
	for range catchUpRounds {
		at := f.positions()
		ends, err := f.o.ends(ctx, keys(at))
		if err != nil {
			return err
		}
		left := behind(at, ends)
		if left == 0 {
			return nil
		}
		if err := f.o.reporting(ctx, f, phase, left, func() error { return f.to(ctx, ends) }); err != nil {
			return err
		}
		if left <= catchUpRecords {
			return nil
		}
	}
	return nil
}

// makeSecondary makes the indexes again that the rebuild began with, and gathers the statistics.
func (o *Operator) makeSecondary(ctx context.Context, st *store) error {
	var definitions []string
	if err := o.cfg.Pool.QueryRow(ctx, `select indexes from `+o.table("rebuilds")+` where consumer = $1`, st.consumer).Scan(&definitions); err != nil {
		return fmt.Errorf("read the indexes to make: %w", err)
	}
	err := pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		for _, definition := range definitions {
			if _, err := tx.Exec(ctx, definition); err != nil {
				return fmt.Errorf("%s: %w", definition, err)
			}
		}
		_, err := tx.Exec(ctx, `update `+o.table("rebuilds")+` set indexes = '{}' where consumer = $1`, st.consumer)
		return err
	})
	if err != nil {
		return fmt.Errorf("make the indexes: %w", err)
	}
	if _, err := o.cfg.Pool.Exec(ctx, "analyze "+quote(SchemaName(o.cfg.Namespace, st.view), "rows")); err != nil {
		return fmt.Errorf("gather statistics: %w", err)
	}
	return nil
}

func (o *Operator) endRebuild(ctx context.Context, st *store) error {
	_, err := o.cfg.Pool.Exec(ctx, `delete from `+o.table("rebuilds")+` where consumer = $1`, st.consumer)
	if err != nil {
		return fmt.Errorf("end the rebuild: %w", err)
	}
	return nil
}

// progressInterval is how often long work tells how far it is.
const progressInterval = time.Second

// reporting tells how far work is while it runs.
func (o *Operator) reporting(ctx context.Context, f *folder, phase Phase, total int64, work func() error) error {
	began, before := o.cfg.Clock(), f.done.Load()
	tell := func() {
		p := Progress{View: f.label(), Phase: phase, Done: f.done.Load() - before, Total: total}
		if seconds := o.cfg.Clock().Sub(began).Seconds(); seconds > 0 {
			p.Rate = float64(p.Done) / seconds
		}
		if p.Rate > 0 {
			p.Left = time.Duration(float64(max(0, p.Total-p.Done)) / p.Rate * float64(time.Second))
		}
		o.cfg.Progress(p)
	}
	telling, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(telling, progressInterval) {
			tell()
		}
	})
	err := work()
	stop()
	wg.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		tell()
	}
	return err
}
