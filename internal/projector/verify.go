package projector

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
)

// VerifyRequest asks whether two versions of a view hold the same.
type VerifyRequest struct {
	Name string
	From int // 0: the live version
	To   int // 0: the highest that this program has
	// DifferencesMax bounds the differences that are listed; default 100. All are counted.
	DifferencesMax int
}

// Report is a comparison of two versions at one cut.
type Report struct {
	Name string `json:"name"`
	From int    `json:"from"`
	To   int    `json:"to"`
	// Equal: no difference in what could be compared.
	Equal bool `json:"equal"`
	// Cut is how far each partition of the version From was: all below it counts.
	Cut []CutOffset `json:"cut"`
	// Columns that both have, and those that only one has, which are not compared.
	Columns  []string `json:"columns"`
	OnlyFrom []string `json:"only_from"`
	OnlyTo   []string `json:"only_to"`
	// Rows compared of each side.
	RowsFrom int64 `json:"rows_from"`
	RowsTo   int64 `json:"rows_to"`
	// Digests of the compared columns of all rows, whatever their order. In a metric view, rows may
	// differ by records that one version has parked and the other has not: these are no differences.
	DigestFrom string `json:"digest_from"`
	DigestTo   string `json:"digest_to"`
	// Differing rows, all counted, the first listed by key.
	Differing   int64        `json:"differing"`
	Differences []Difference `json:"differences"`
	// Parked streams of either side: their rows are left out.
	Parked []ParkedStream `json:"parked"`
	// Incomparable says what kept rows from being compared; then Equal is false.
	Incomparable string        `json:"incomparable,omitempty"`
	Took         time.Duration `json:"took_ns"`
}

// CutOffset is one partition of a cut.
type CutOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"` // of the first record that does not count
}

// ParkedStream is a stream that a version waits with.
type ParkedStream struct {
	Version   int    `json:"version"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Stream    string `json:"stream"`
	Offset    int64  `json:"offset"` // of its first letter
}

// Difference is one row that is not the same.
type Difference struct {
	Key     string             `json:"key"`
	Kind    string             `json:"kind"` // missing or extra in the version To, or changed
	Columns []ColumnDifference `json:"columns,omitempty"`
}

// ColumnDifference holds both values as Postgres writes them; nil is null.
type ColumnDifference struct {
	Name string  `json:"name"`
	From *string `json:"from"`
	To   *string `json:"to"`
}

// Kinds of a Difference.
const (
	DifferenceMissing = "missing"
	DifferenceExtra   = "extra"
	DifferenceChanged = "changed"
)

const differencesMaxDefault = 100

// verifyBehindMax is how far behind a version may be for a comparison to fold it up to the cut.
const verifyBehindMax = 1_000_000

// Verify compares two versions at one cut (PROTOCOL P5): the offsets in a repeatable-read snapshot
// of From are the cut, and To, which its projectors leave alone for the while, is folded up to
// exactly there. From goes on all the time. It needs the code of To. To is usually not live: a
// live version falls behind while it is held.
func (o *Operator) Verify(ctx context.Context, r VerifyRequest) (Report, error) {
	setDefault(&r.DifferencesMax, differencesMaxDefault)
	began := o.cfg.Clock()
	from, to, err := o.pair(ctx, r)
	if err != nil {
		return Report{}, err
	}
	v, err := o.view(to.name, to.number)
	if err != nil {
		return Report{}, err
	}
	if begun, err := o.rebuilding(ctx, to.consumer()); err != nil || begun {
		return Report{}, errors.Join(err, wrapIf(begun, to.label(), ErrRebuilding))
	}
	h, err := o.holding(ctx, to.consumer(), "verify", true)
	if err != nil {
		return Report{}, err
	}
	report, err := o.verifyHeld(ctx, h, from, to, v, r.DifferencesMax)
	report.Took = o.cfg.Clock().Sub(began)
	return report, errors.Join(err, h.giveBack(ctx))
}

func wrapIf(holds bool, label string, err error) error {
	if !holds {
		return nil
	}
	return fmt.Errorf("%s: %w", label, err)
}

// pair finds the two versions of a request.
func (o *Operator) pair(ctx context.Context, r VerifyRequest) (from, to version, err error) {
	all, err := o.versions(ctx, o.cfg.Pool, r.Name)
	if err != nil {
		return from, to, err
	}
	if from, err = find(all, r.From); err != nil {
		return from, to, err
	}
	if r.To == 0 {
		for _, own := range o.cfg.views() {
			if own.Name == r.Name {
				r.To = max(r.To, own.Version)
			}
		}
	}
	if r.To == from.number {
		return from, to, fmt.Errorf("%s is compared with itself: name another version", from.label())
	}
	if to, err = find(all, max(r.To, 1)); err != nil {
		return from, to, err
	}
	for _, v := range []version{from, to} {
		if v.dropped {
			return from, to, fmt.Errorf("%s was dropped: rebuild it: %w", v.label(), ErrNoView)
		}
	}
	return from, to, nil
}

func (o *Operator) verifyHeld(ctx context.Context, h *hold, from, to version, v projection.View, differencesMax int) (Report, error) {
	report := Report{Name: from.name, From: from.number, To: to.number}
	f, err := o.newFolder(ctx, h, v, true, 0)
	if err != nil {
		return report, err
	}
	defer f.close()
	if err := o.awaitVersion(ctx, from, f.positions()); err != nil {
		return report, err
	}
	left, err := o.snapshot(ctx)
	if err != nil {
		return report, err
	}
	defer left.end()
	cut, err := o.cutAt(ctx, left, from, f)
	if err != nil {
		return report, err
	}
	at := f.positions()
	if far := behind(at, cut); far > verifyBehindMax {
		return report, fmt.Errorf("%s is %d records before the cut: rebuild it first: %w", to.label(), far, ErrBehind)
	}
	if err := o.reporting(ctx, f, PhaseCatchUp, behind(at, cut), func() error { return f.to(ctx, cut) }); err != nil {
		return report, fmt.Errorf("fold %s up to the cut: %w", to.label(), err)
	}
	if err := f.isAt(cut); err != nil {
		return report, err
	}
	report.Cut = listCut(cut)
	right, err := o.snapshot(ctx)
	if err != nil {
		return report, err
	}
	defer right.end()
	o.cfg.Progress(Progress{View: f.label(), Phase: PhaseCompare})
	return report, o.compare(ctx, left, right, from, to, differencesMax, &report)
}

// awaitVersion waits until a version is at or past a position everywhere.
func (o *Operator) awaitVersion(ctx context.Context, v version, at map[place]int64) error {
	bounded, cancel := context.WithTimeout(ctx, o.cfg.CatchUpTimeout)
	defer cancel()
	for {
		next, _, err := o.cutOf(ctx, o.cfg.Pool, v.consumer(), "")
		if err != nil {
			return err
		}
		far := behind(next, at)
		if far == 0 {
			return nil
		}
		o.cfg.Progress(Progress{View: v.label(), Phase: PhaseWait, Total: far})
		if !pause(bounded, controlInterval) {
			return fmt.Errorf("%s is %d records before the other version and does not come up to it within %s: is a projector with its code running, and not stopped or paused? %w", v.label(), far, o.cfg.CatchUpTimeout, ErrBehind)
		}
	}
}

// moment is a transaction that sees one moment.
type moment struct {
	pgx.Tx
	ctx context.Context //nolint:containedctx // for end alone, which is deferred
}

func (o *Operator) snapshot(ctx context.Context) (*moment, error) {
	tx, err := o.cfg.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	s := &moment{Tx: tx, ctx: context.WithoutCancel(ctx)}
	// Times are compared as text.
	if _, err := tx.Exec(ctx, "set local timezone to 'UTC'"); err != nil {
		s.end()
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	return s, nil
}

func (s *moment) end() { _ = s.Rollback(s.ctx) } // read only: nothing is lost

// cutAt reads the cut inside the snapshot, and holds it against the topics that f reads.
func (o *Operator) cutAt(ctx context.Context, in querier, from version, f *folder) (map[place]int64, error) {
	next, ids, err := o.cutOf(ctx, in, from.consumer(), "")
	if err != nil {
		return nil, err
	}
	for p, w := range f.workers {
		if id := ids[p.topic]; id != "" && w.at.topicID != "" && id != w.at.topicID {
			return nil, topicChanged(p.topic, w.at.topicID, id)
		}
		if w.at.next > max(0, next[p]) {
			return nil, fmt.Errorf("%s[%d]: %s went back from the position of the other version: was it reset?", p.topic, p.partition, from.label())
		}
	}
	cut := map[place]int64{}
	for p, at := range next {
		if _, both := f.workers[p]; both {
			cut[p] = at
			continue
		}
		if at > 0 {
			return nil, fmt.Errorf("%s reads %s, which the other version does not: they cannot be compared at one cut", from.label(), p.topic)
		}
	}
	for p, w := range f.workers {
		if _, both := next[p]; !both && w.at.next > 0 {
			return nil, fmt.Errorf("%s does not read %s, which the other version does: they cannot be compared at one cut", from.label(), p.topic)
		}
	}
	return cut, nil
}

// isAt demands the exact cut.
func (f *folder) isAt(cut map[place]int64) error {
	for p, want := range cut {
		if have := f.workers[p].at.next; max(0, have) != max(0, want) {
			return fmt.Errorf("%s[%d]: the version is at offset %d, and the cut at %d", p.topic, p.partition, have, want)
		}
	}
	return nil
}

func listCut(cut map[place]int64) []CutOffset {
	out := make([]CutOffset, 0, len(cut))
	for _, p := range slices.SortedFunc(maps.Keys(cut), comparePlaces) {
		out = append(out, CutOffset{Topic: p.topic, Partition: p.partition, Offset: max(0, cut[p])})
	}
	return out
}

// parkedOf lists a version's parked streams.
func (o *Operator) parkedOf(ctx context.Context, in querier, v version) ([]ParkedStream, error) {
	rows, err := in.Query(ctx, `select topic, partition, key, first_offset from `+o.table("parked")+` where consumer = $1 order by topic, key`, v.consumer())
	if err != nil {
		return nil, fmt.Errorf("read parked keys: %w", err)
	}
	var out []ParkedStream
	p := ParkedStream{Version: v.number}
	var key []byte
	_, err = pgx.ForEachRow(rows, []any{&p.Topic, &p.Partition, &key, &p.Offset}, func() error {
		p.Stream = string(key)
		out = append(out, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read parked keys: %w", err)
	}
	return out, nil
}

// compare fills the report from two snapshots of versions at one cut.
func (o *Operator) compare(ctx context.Context, left, right *moment, from, to version, differencesMax int, report *Report) error {
	parkedFrom, err := o.parkedOf(ctx, left, from)
	if err != nil {
		return err
	}
	parkedTo, err := o.parkedOf(ctx, right, to)
	if err != nil {
		return err
	}
	report.Parked = slices.Concat(parkedFrom, parkedTo)
	c, err := newComparison(o.cfg.Namespace, from, to, report.Parked)
	if err != nil {
		report.Incomparable = err.Error()
		return nil //nolint:nilerr // it is in the report
	}
	explained, err := o.explained(ctx, c, newSide(from, left, parkedFrom), newSide(to, right, parkedTo))
	if err != nil {
		report.Incomparable = "the two versions have parked other records, and what these add cannot be told: " + err.Error()
		return nil //nolint:nilerr // it is in the report
	}
	report.Columns, report.OnlyFrom, report.OnlyTo = c.names(), c.onlyFrom, c.onlyTo
	digestsFrom, err := c.digests(ctx, left, from)
	if err != nil {
		return err
	}
	digestsTo, err := c.digests(ctx, right, to)
	if err != nil {
		return err
	}
	report.RowsFrom, report.DigestFrom = total(digestsFrom)
	report.RowsTo, report.DigestTo = total(digestsTo)
	buckets := differing(digestsFrom, digestsTo)
	report.Equal = len(buckets) == 0
	if report.Equal {
		return nil
	}
	err = c.rows(ctx, left, right, buckets, func(d Difference) {
		if explained[d.Key] {
			return
		}
		report.Differing++
		if len(report.Differences) < differencesMax {
			report.Differences = append(report.Differences, d)
		}
	})
	report.Equal = err == nil && report.Differing == 0
	return err
}

// explained are the rows of a metric view that differ by nothing but parked records.
func (o *Operator) explained(ctx context.Context, c *comparison, a, b *side) (map[string]bool, error) {
	if a.shape.Kind != projection.KindMetric || maps.Equal(a.parked, b.parked) {
		return nil, nil //nolint:nilnil // no row
	}
	for _, s := range []*side{a, b} {
		var err error
		if _, s.ids, err = o.cutOf(ctx, s.in, s.consumer(), ""); err != nil {
			return nil, err
		}
	}
	return o.explain(ctx, c, a, b)
}

// streamOf is a parked stream's category and id.
func streamOf(namespace string, categories []string, p ParkedStream) event.StreamID {
	for _, category := range categories {
		if p.Topic == topics.Events(namespace, category) {
			return event.StreamID{Category: category, ID: p.Stream}
		}
	}
	return event.StreamID{ID: p.Stream}
}

// Summary is the report in one line.
func (r Report) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: v%d has %d rows, v%d has %d", r.Name, r.From, r.RowsFrom, r.To, r.RowsTo)
	switch {
	case r.Incomparable != "":
		fmt.Fprintf(&b, ", not compared: %s", r.Incomparable)
	case r.Equal:
		b.WriteString(", equal")
	default:
		fmt.Fprintf(&b, ", %d differ", r.Differing)
	}
	return b.String()
}
