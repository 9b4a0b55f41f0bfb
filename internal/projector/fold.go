package projector

import (
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// streamWork is what a batch does to one stream. Streams do not depend on each other, so that
// one with a record at fault leaves its neighbours alone.
type streamWork struct {
	id     event.StreamID
	steps  []*step // in order
	parked int64   // the offset since which the stream is parked, or -1

	before stored // as Postgres has it
	effect
	failedAt int // index of the step that became a letter, or -1
	failure  error
}

// effect is what folding some steps of a stream comes to.
type effect struct {
	after   stored
	rows    []projection.Row // deltas of a metric view; rows to append
	applied int
	skipped int
}

// streamsOf groups a batch's steps by stream, in the order of their ids, and returns apart those
// that belong to none: void records and records without a valid aggregate id.
func streamsOf(b *batch, parked map[string]int64) (streams []*streamWork, apart []*step) {
	byID := map[string]*streamWork{}
	for _, s := range b.steps {
		id := s.recorded.Stream
		if s.void || (s.envelope != nil && event.ValidateID(id.ID) != nil) {
			apart = append(apart, s)
			continue
		}
		work := byID[id.ID]
		if work == nil {
			work = &streamWork{id: id, parked: -1, failedAt: -1}
			if first, is := parked[id.ID]; is {
				work.parked = first
			}
			byID[id.ID] = work
			streams = append(streams, work)
		}
		work.steps = append(work.steps, s)
	}
	slices.SortFunc(streams, func(a, b *streamWork) int { return strings.Compare(a.id.ID, b.id.ID) })
	return streams, apart
}

// fold folds all steps of a stream. A step at fault ends it there: what comes before counts. The
// error is one that stops the partition or may pass.
func (w *streamWork) fold(view projection.View) error {
	var err error
	if w.effect, err = foldSteps(view, w.id, w.before, w.steps); err == nil {
		return nil
	}
	// Which step is at fault, and what the row was before it, is only sure one by one: a value is
	// checked when the row is complete, and a failing function may have left the row half changed.
	w.effect = effect{after: w.before}
	for i, s := range w.steps {
		one, err := foldSteps(view, w.id, w.after, []*step{s})
		switch {
		case err == nil:
			w.add(one)
		case deadletter.FateOf(err).Verdict == deadletter.Park:
			w.failedAt, w.failure = i, err
			return nil
		default:
			return err
		}
	}
	return nil
}

func (e *effect) add(next effect) {
	e.after = next.after
	e.rows = append(e.rows, next.rows...)
	e.applied += next.applied
	e.skipped += next.skipped
}

// foldSteps folds steps in order on top of what is stored, and fails as a whole.
func foldSteps(view projection.View, id event.StreamID, from stored, steps []*step) (effect, error) {
	e := effect{after: from}
	var folding projection.Folding
	for _, s := range steps {
		skip, err := sequence(view, id, e.after.version, s)
		if err != nil {
			return effect{}, err
		}
		if skip {
			e.skipped++
			continue
		}
		e.after.version = s.recorded.Version
		e.applied++
		if view.Kind != projection.KindEntity {
			rows, err := stepRows(view, s)
			if err != nil {
				return effect{}, handlerFault(err)
			}
			e.rows = append(e.rows, rows...)
			continue
		}
		if !s.folded {
			continue
		}
		if folding == nil {
			if folding, err = view.Begin(from.row, from.exists); err != nil {
				return effect{}, handlerFault(err)
			}
		}
		if err := folding.Apply(s.event); err != nil {
			return effect{}, handlerFault(err)
		}
	}
	if folding == nil {
		return e, nil
	}
	var err error
	if e.after.row, e.after.exists, err = folding.Row(); err != nil {
		return effect{}, handlerFault(err)
	}
	return e, nil
}

// stepRows are the deltas or the rows that one step comes to.
func stepRows(view projection.View, s *step) ([]projection.Row, error) {
	switch {
	case view.Kind == kindEvents:
		return []projection.Row{eventRow(s.recorded)}, nil
	case !s.folded:
		return nil, nil
	case view.Kind == projection.KindAppend:
		return view.Rows(s.event)
	}
	return view.Deltas(s.event)
}

// sequence checks a step against the stream's last version (DESIGN §6): lower or equal is skipped,
// a gap stops the partition. A record at fault is a letter.
func sequence(view projection.View, id event.StreamID, last event.Version, s *step) (skip bool, err error) {
	if s.envelope != nil {
		return false, deadletter.Parked(deadletter.StageDecode, "envelope", s.envelope)
	}
	have, want := s.recorded.Version, last+1
	switch {
	case have < want:
		return true, nil
	case have > want:
		return false, stopAt(s.rec.Offset, "sequence",
			"view %s, stream %s: have version %d, want %d: the log has a gap, or this view missed events; compare the topic with the view's offset row, then rebuild the view",
			view.Name, id, have, want)
	}
	return false, s.fault
}

// blocked says whether the step at i is a letter for no fault of its own.
func (w *streamWork) blocked(i int) bool { return w.parked >= 0 || (w.failedAt >= 0 && i > w.failedAt) }

// emptyRow is what an entity view stores for a stream whose row is not there: only its version.
func emptyRow(view projection.View) (projection.Row, error) {
	folding, err := view.Begin(nil, false)
	if err != nil {
		return nil, err
	}
	row, _, err := folding.Row()
	return row, err
}
