package projector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
)

// auditor folds streams again, from the index of events, up to where a view version is, and holds
// the result against the version's rows: all in one snapshot, so that nobody waits. What differs
// has drifted: a function that is not pure, a hand in the table, a fault of ours.
type auditor struct {
	namespace string
	view      projection.View // the code that folds
	rows      version         // whose rows, offsets, parked keys and corrections count
	decoder   *decoder
}

// errIndexBehind: the index of events is not as far as the view; it will be.
var errIndexBehind = errors.New("the index of events is behind the view")

// ErrNoIndex: there is no index of events to fold from.
var ErrNoIndex = errors.New("the namespace has no index of events (projector.events_index), from which streams are folded again")

func newAuditor(ctx context.Context, namespace string, c *codec.Codec, view projection.View, rows version) (*auditor, error) {
	if isSystemView(view) {
		return nil, fmt.Errorf("view %s.v%d is what others are folded from: there is nothing to hold it against here", view.Name, view.Version)
	}
	d, err := newDecoder(ctx, c, view)
	if err != nil {
		return nil, err
	}
	return &auditor{namespace: namespace, view: view, rows: rows, decoder: d}, nil
}

func (a *auditor) close() { a.decoder.close() }

func (a *auditor) table(name string) string { return quote(a.namespace, name) }

func (a *auditor) rowsTable() string {
	return quote(SchemaName(a.namespace, a.rows.view()), "rows")
}

func (a *auditor) index(table string) string {
	return quote(SchemaName(a.namespace, eventsView(nil)), table)
}

// ready demands that the index is at or past the view everywhere.
func (a *auditor) ready(ctx context.Context, in querier) error {
	var there bool
	if err := in.QueryRow(ctx, `select to_regclass($1) is not null`, a.index("rows")).Scan(&there); err != nil {
		return fmt.Errorf("look for the index of events: %w", err)
	}
	if !there {
		return ErrNoIndex
	}
	var far int64
	err := in.QueryRow(ctx, `select count(*) from `+a.table("offsets")+` v left join `+a.table("offsets")+` i
		on i.consumer = $2 and i.topic = v.topic and i.partition = v.partition where v.consumer = $1 and v.next_offset > greatest(coalesce(i.next_offset, 0), 0)`,
		a.rows.consumer(), topics.ConsumerView(eventsName, systemVersion)).Scan(&far)
	if err != nil {
		return fmt.Errorf("compare the index of events with the view: %w", err)
	}
	if far > 0 {
		return errIndexBehind
	}
	return nil
}

// events selects those that the view has applied, $1 its consumer, $2 the categories, but for those
// at and after the place where a stream is parked, here or in the index.
func (a *auditor) events(condition string) string {
	return `select e.category, e.stream, e.version, e.id, e.type, e.time, e.correlation_id, e.causation_id, e.user_id, e.value,
			exists (select from ` + a.table("corrections") + ` c where c.consumer = $1 and c.action = '` + ActionSkip + `' and c.category = e.category and c.stream = e.stream and c.version = e.version)
		from ` + a.index("rows") + ` e join ` + a.table("offsets") + ` o on o.consumer = $1 and o.topic = '` + a.namespace + `.' || e.category || '.events' and o.partition = e.partition
		where e.category = any($2) and e."offset" < o.next_offset
			and not exists (select from ` + a.table("parked") + ` p where p.consumer = any(array[$1, 'view.` + eventsName + `.v1']) and p.topic = o.topic and p.partition = o.partition
				and p.key = convert_to(e.stream, 'UTF8') and p.first_offset <= e."offset")` + condition + ` order by e.category, e.stream, e.version`
}

// each decodes the events of a query and hands them on, those that were skipped without their type.
func (a *auditor) each(ctx context.Context, in querier, condition string, args []any, use func(projection.Event) error) error {
	rows, err := in.Query(ctx, a.events(condition), args...)
	if err != nil {
		return fmt.Errorf("read the index of events: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r event.Recorded
		var version int64
		var skipped bool
		if err := rows.Scan(&r.Stream.Category, &r.Stream.ID, &version, &r.ID, &r.Type, &r.Time, &r.CorrelationID, &r.CausationID, &r.UserID, &r.Value, &skipped); err != nil {
			return fmt.Errorf("read the index of events: %w", err)
		}
		r.Version, r.Time = event.Version(version), r.Time.UTC()
		e := projection.FromRecorded(r, nil)
		if _, folded := a.view.TypeDef(r.Type); folded && !skipped {
			if e.Data, err = a.decoder.value(ctx, r); err != nil {
				return fmt.Errorf("decode %s of %s at version %d: %w", r.Type, r.Stream, r.Version, err)
			}
		} else {
			e.Type = ""
		}
		if err := use(e); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the index of events: %w", err)
	}
	return nil
}

// streams folds streams of one category again and compares.
func (a *auditor) streams(ctx context.Context, in querier, category string, ids []string) ([]Difference, error) {
	if a.view.Kind == projection.KindMetric {
		return nil, fmt.Errorf("rows of the metric view %s belong to no stream: compare all", a.view.Name)
	}
	want := projection.NewTable(a.view)
	err := a.each(ctx, in, ` and e.stream = any($3)`, []any{a.rows.consumer(), []string{category}, ids}, want.Apply)
	if err != nil {
		return nil, err
	}
	condition, args := " where "+presentColumn+" and "+quote(a.view.Key[0].Name)+" = any($1)", []any{ids}
	if a.view.Kind == projection.KindAppend {
		condition, args = " where category = $1 and stream = any($2)", []any{category, ids}
	}
	got, err := a.read(ctx, in, condition, args...)
	if err != nil {
		return nil, err
	}
	var out []Difference
	for stream, fault := range want.Parked {
		out = append(out, Difference{Key: stream.ID, Kind: DifferenceFailed, Columns: []ColumnDifference{{Name: "error", To: ptr(fault.Error())}}})
	}
	return append(out, a.differences(want.Rows, got)...), nil
}

// DifferenceFailed is a stream that the version applied, and that cannot be folded again.
const DifferenceFailed = "failed"

// everything folds all events of a metric view again.
func (a *auditor) everything(ctx context.Context, in querier) (rows int, out []Difference, err error) {
	want := map[string]projection.Row{}
	types := make([]string, 0, len(a.view.Types))
	for _, t := range a.view.Types {
		types = append(types, t.Name)
	}
	merge := &store{view: a.view}
	err = a.each(ctx, in, ` and e.type = any($3)`, []any{a.rows.consumer(), a.view.Categories, types}, func(e projection.Event) error {
		if e.Type == "" {
			return nil
		}
		deltas, err := a.view.Deltas(e)
		if err != nil {
			return fmt.Errorf("fold %s of %s at version %d: %w", e.Type, e.Stream, e.Version, err)
		}
		for _, d := range deltas {
			if err := merge.mergeDelta(want, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, nil, err
	}
	got, err := a.read(ctx, in, "")
	if err != nil {
		return 0, nil, err
	}
	return max(len(want), len(got)), a.differences(want, got), nil
}

// read reads rows of the version by their key.
func (a *auditor) read(ctx context.Context, in querier, condition string, args ...any) (map[string]projection.Row, error) {
	v := a.rows.view()
	rows, err := in.Query(ctx, `select `+joined(readExprs(v.Layout()))+` from `+a.rowsTable()+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	defer rows.Close()
	out := map[string]projection.Row{}
	for rows.Next() {
		row, err := readRow(rows, v.Layout())
		if err != nil {
			return nil, fmt.Errorf("read rows: %w", err)
		}
		out[projection.KeyOf(row[:len(v.Key)])] = row
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return out, nil
}

// differences compares the columns that the code and the rows have in common.
func (a *auditor) differences(want, got map[string]projection.Row) []Difference {
	left, right := a.rows.view().Layout(), a.view.Layout()
	keysOf := maps.Clone(want)
	maps.Copy(keysOf, got)
	var out []Difference
	for _, key := range slices.Sorted(maps.Keys(keysOf)) {
		w, expected := want[key]
		g, there := got[key]
		d := Difference{Key: keyText(keysOf[key][:len(a.view.Key)])}
		switch {
		case !there:
			d.Kind = DifferenceMissing
		case !expected:
			d.Kind = DifferenceExtra
		default:
			d.Kind, d.Columns = DifferenceChanged, columnsThatDiffer(left, right, g, w)
			if len(d.Columns) == 0 {
				continue
			}
		}
		out = append(out, d)
	}
	return out
}

// columnsThatDiffer compares by name: From is what the row has, To what folding gives.
func columnsThatDiffer(left, right []projection.Column, got, want projection.Row) (out []ColumnDifference) {
	for i, c := range left {
		j := slices.IndexFunc(right, func(other projection.Column) bool { return other.Name == c.Name })
		if j < 0 {
			continue
		}
		g, w := valueText(got[i]), valueText(want[j])
		if (g == nil) != (w == nil) || (g != nil && *g != *w) {
			out = append(out, ColumnDifference{Name: c.Name, From: g, To: w})
		}
	}
	return out
}

func keyText(key projection.Row) string {
	parts := make([]string, len(key))
	for i, v := range key {
		if t := valueText(v); t != nil {
			parts[i] = *t
		}
	}
	return "(" + joined(parts) + ")"
}

// valueText is the same for equal values.
func valueText(v any) *string {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return &v
	case time.Time:
		return ptr(v.UTC().Format(time.RFC3339Nano))
	case projection.JSON:
		return ptr(string(v.Canonical()))
	case []string:
		text, err := json.Marshal(v)
		if err == nil {
			return ptr(string(text))
		}
	}
	return ptr(fmt.Sprint(v))
}

func ptr(s string) *string { return &s }

func joined(parts []string) string {
	out := ""
	for i, p := range parts {
		if i > 0 {
			out += ", "
		}
		out += p
	}
	return out
}

// sampleSmall is up to how many streams a sample sorts them all.
const sampleSmall = 20_000

// sample picks streams by chance, of those that the index has.
func (a *auditor) sample(ctx context.Context, in querier, n int) (map[string][]string, error) {
	var count float64
	if err := in.QueryRow(ctx, `select greatest(reltuples, 0) from pg_class where oid = to_regclass($1)`, a.index("stream_versions")).Scan(&count); err != nil {
		return nil, fmt.Errorf("sample streams: %w", err)
	}
	from := a.index("stream_versions")
	if count > sampleSmall {
		from += fmt.Sprintf(" tablesample system (%g)", min(100, max(0.01, 100*50*float64(n)/count)))
	}
	rows, err := in.Query(ctx, `select category, stream from (select category, stream from `+from+` where category = any($1)) as s order by random() limit $2`, a.view.Categories, n)
	if err != nil {
		return nil, fmt.Errorf("sample streams: %w", err)
	}
	out := map[string][]string{}
	var category, stream string
	_, err = pgx.ForEachRow(rows, []any{&category, &stream}, func() error {
		out[category] = append(out[category], stream)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sample streams: %w", err)
	}
	return out, nil
}

// snapshotOf runs work in one read-only snapshot.
func snapshotOf(ctx context.Context, db beginner, work func(in querier) error) error {
	return pgx.BeginTxFunc(ctx, db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return work(tx)
	})
}

type beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

// AuditRequest asks for rows to be folded again and compared.
type AuditRequest struct {
	Name    string
	Version int // whose rows; 0: the live one
	// By is the version whose code folds; 0: the same. Another one is a spot check of a version
	// that is not built yet: its rows for these streams, held against those that readers see.
	By int
	// Streams to fold again, of the view's one category; else All of them; else a sample.
	Streams []string
	All     bool
	Sample  int // streams; default 100
	// DifferencesMax bounds the differences that are listed; default 100.
	DifferencesMax int
}

// AuditReport is what folding again came to.
type AuditReport struct {
	Name        string        `json:"name"`
	Version     int           `json:"version"`
	By          int           `json:"by"`
	Checked     int64         `json:"checked"` // streams; rows of a metric view
	Differing   int64         `json:"differing"`
	Differences []Difference  `json:"differences"` // from: what the row has; to: what folding gives
	Took        time.Duration `json:"took_ns"`
}

// Audit folds streams again from the index of events and compares them with the rows of a version,
// at the version's own offsets. Streams that are parked are compared up to where they are parked.
func (o *Operator) Audit(ctx context.Context, r AuditRequest) (AuditReport, error) {
	setDefault(&r.Sample, 100)
	setDefault(&r.DifferencesMax, differencesMaxDefault)
	began := o.cfg.Clock()
	all, err := o.versions(ctx, o.cfg.Pool, r.Name)
	if err != nil {
		return AuditReport{}, err
	}
	rows, err := find(all, r.Version)
	if err != nil {
		return AuditReport{}, err
	}
	if rows.dropped {
		return AuditReport{}, fmt.Errorf("%s was dropped: %w", rows.label(), ErrNoView)
	}
	if r.By == 0 {
		r.By = rows.number
	}
	view, err := o.view(r.Name, r.By)
	if err != nil {
		return AuditReport{}, err
	}
	report := AuditReport{Name: r.Name, Version: rows.number, By: r.By, Differences: []Difference{}}
	if view.Kind != rows.shape.Kind || !slices.Equal(namesOf(view.Key), namesOf(rows.shape.Key)) {
		return report, fmt.Errorf("%s and version %d have not the same kind and key: their rows cannot be compared", rows.label(), r.By)
	}
	a, err := newAuditor(ctx, o.cfg.Namespace, o.cfg.Codec, view, rows)
	if err != nil {
		return report, err
	}
	defer a.close()
	note := func(checked int, differences []Difference) {
		report.Checked += int64(checked)
		report.Differing += int64(len(differences))
		room := max(0, r.DifferencesMax-len(report.Differences))
		report.Differences = append(report.Differences, differences[:min(room, len(differences))]...)
		o.cfg.Progress(Progress{View: rows.label(), Phase: PhaseCompare, Done: report.Checked})
	}
	err = o.audit(ctx, a, r, note)
	report.Took = o.cfg.Clock().Sub(began)
	return report, err
}

func (o *Operator) audit(ctx context.Context, a *auditor, r AuditRequest, note func(int, []Difference)) error {
	switch {
	case a.view.Kind == projection.KindMetric && len(r.Streams) > 0:
		_, err := a.streams(ctx, o.cfg.Pool, "", nil)
		return err
	case a.view.Kind == projection.KindMetric:
		return o.whenReady(ctx, a, func(in querier) error {
			n, differences, err := a.everything(ctx, in)
			if err == nil {
				note(n, differences)
			}
			return err
		})
	case len(r.Streams) > 0:
		return o.auditStreams(ctx, a, a.view.Categories[0], r.Streams, note)
	case r.All:
		return o.auditAll(ctx, a, note)
	}
	picked, err := a.sample(ctx, o.cfg.Pool, r.Sample)
	for category, ids := range picked {
		if err == nil {
			err = o.auditStreams(ctx, a, category, ids, note)
		}
	}
	return err
}

// whenReady works in a snapshot in which the index is not behind the view.
func (o *Operator) whenReady(ctx context.Context, a *auditor, work func(in querier) error) error {
	bounded, cancel := context.WithTimeout(ctx, o.cfg.CatchUpTimeout)
	defer cancel()
	for {
		err := snapshotOf(ctx, o.cfg.Pool, func(in querier) error {
			if err := a.ready(ctx, in); err != nil {
				return err
			}
			return work(in)
		})
		if !errors.Is(err, errIndexBehind) || !pause(bounded, controlInterval/5) {
			return err
		}
	}
}

func (o *Operator) auditStreams(ctx context.Context, a *auditor, category string, ids []string, note func(int, []Difference)) error {
	for chunk := range slices.Chunk(ids, auditChunk) {
		err := o.whenReady(ctx, a, func(in querier) error {
			differences, err := a.streams(ctx, in, category, chunk)
			if err == nil {
				note(len(chunk), differences)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// auditChunk is how many streams are folded again in one snapshot.
const auditChunk = 500

// auditAll goes through every stream that the index has, then looks for rows of none.
func (o *Operator) auditAll(ctx context.Context, a *auditor, note func(int, []Difference)) error {
	for _, category := range a.view.Categories {
		for after := ""; ; {
			ids, err := streamsAfter(ctx, o.cfg.Pool, a, category, after)
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				break
			}
			if err := o.auditStreams(ctx, a, category, ids, note); err != nil {
				return err
			}
			after = ids[len(ids)-1]
		}
	}
	return o.whenReady(ctx, a, func(in querier) error {
		strays, err := a.strays(ctx, in)
		note(0, strays)
		return err
	})
}

func streamsAfter(ctx context.Context, in querier, a *auditor, category, after string) ([]string, error) {
	rows, err := in.Query(ctx, `select stream from `+a.index("stream_versions")+` where category = $1 and stream > $2 order by stream limit $3`, category, after, auditChunk)
	if err != nil {
		return nil, fmt.Errorf("list streams: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// strays are rows of streams that the index does not know.
func (a *auditor) strays(ctx context.Context, in querier) ([]Difference, error) {
	id, condition := quote(a.view.Key[0].Name), presentColumn+" and v.category = $1"
	if a.view.Kind == projection.KindAppend {
		id, condition = "stream", "v.category = r.category and $1 <> ''"
	}
	rows, err := in.Query(ctx, `select distinct r.`+id+` from `+a.rowsTable()+` r left join `+a.index("stream_versions")+` v on v.stream = r.`+id+
		` and `+condition+` where v.stream is null`+presentIn(a.view)+` limit $2`, a.view.Categories[0], auditChunk)
	if err != nil {
		return nil, fmt.Errorf("look for rows of no stream: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	out := make([]Difference, 0, len(ids))
	for _, id := range ids {
		out = append(out, Difference{Key: keyText(projection.Row{id}), Kind: DifferenceExtra})
	}
	return out, err
}

func presentIn(v projection.View) string {
	if v.Kind == projection.KindEntity {
		return " and r." + presentColumn
	}
	return ""
}

// audits samples the view's streams now and then while a session lasts, and tells of drift.
func (s *session) audits(ctx context.Context) {
	db, can := s.store.db.(beginner)
	if s.cfg.AuditInterval < 0 || !can || isSystemView(s.view) || s.view.Kind == projection.KindMetric || !covers(s.cfg.EventCategories, s.view.Categories) {
		return
	}
	rows := version{name: s.view.Name, number: s.view.Version, shape: shape{Kind: s.view.Kind, Categories: s.view.Categories, Key: s.view.Key, Columns: s.view.Columns}}
	a, err := newAuditor(ctx, s.cfg.Namespace, s.cfg.Codec, s.view, rows)
	if err != nil {
		s.log.Warn("the view is not audited", "error", err)
		return
	}
	defer a.close()
	for pause(ctx, s.cfg.AuditInterval) {
		if err := s.audit(ctx, db, a); err != nil && !errors.Is(err, errIndexBehind) && ctx.Err() == nil {
			s.log.Warn("the audit of a sample failed, the next one is made as ever", "error", err)
		}
	}
}

func covers(all, some []string) bool {
	for _, one := range some {
		if !slices.Contains(all, one) {
			return false
		}
	}
	return true
}

// audit compares one sample.
func (s *session) audit(ctx context.Context, db beginner, a *auditor) error {
	return snapshotOf(ctx, db, func(in querier) error {
		if err := a.ready(ctx, in); err != nil {
			return err
		}
		picked, err := a.sample(ctx, in, s.cfg.AuditStreams)
		if err != nil {
			return err
		}
		for category, ids := range picked {
			differences, err := a.streams(ctx, in, category, ids)
			if err != nil {
				return err
			}
			s.metrics.audited.WithLabelValues(s.label).Add(float64(len(ids)))
			s.metrics.drift.WithLabelValues(s.label).Add(float64(len(differences)))
			for _, d := range differences {
				columns := make([]string, len(d.Columns))
				for i, c := range d.Columns {
					columns[i] = c.Name
				}
				s.log.Error("a row has drifted: it is not what its events fold to; compare all by `view audit --all`, then rebuild the view",
					"category", category, "key", d.Key, "kind", d.Kind, "columns", columns)
			}
		}
		return nil
	})
}
