package projector

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// comparison compares the rows of two versions by the columns that both have. Postgres digests the
// rows in buckets by key; only the buckets that differ are read row by row.
type comparison struct {
	namespace        string
	from, to         version
	key, columns     []projection.Column // of both, by the order of from
	onlyFrom, onlyTo []string
	parkedCategories []string // streams that are left out, side by side
	parkedStreams    []string
	leavesOut        string // condition on a row: its stream is not parked
}

// bucketsMask makes 1024 buckets.
const bucketsMask = 1023

func newComparison(namespace string, from, to version, parked []ParkedStream) (*comparison, error) {
	if from.shape.Kind != to.shape.Kind {
		return nil, fmt.Errorf("one is of kind %s, the other of kind %s", from.shape.Kind, to.shape.Kind)
	}
	c := &comparison{namespace: namespace, from: from, to: to, key: from.shape.Key}
	sameName := func(a, b projection.Column) bool { return a.Name == b.Name }
	if !slices.EqualFunc(from.shape.Key, to.shape.Key, sameName) {
		return nil, fmt.Errorf("the keys are not the same columns: %s and %s", strings.Join(namesOf(from.shape.Key), ", "), strings.Join(namesOf(to.shape.Key), ", "))
	}
	left, right := from.view().Layout()[len(c.key):], to.view().Layout()[len(c.key):]
	for _, column := range left {
		if slices.ContainsFunc(right, func(other projection.Column) bool { return other.Name == column.Name }) {
			c.columns = append(c.columns, column)
		} else {
			c.onlyFrom = append(c.onlyFrom, column.Name)
		}
	}
	for _, column := range right {
		if !slices.ContainsFunc(left, func(other projection.Column) bool { return other.Name == column.Name }) {
			c.onlyTo = append(c.onlyTo, column.Name)
		}
	}
	c.leaveOut(parked)
	return c, nil
}

// leaveOut keeps the rows of parked streams from being compared.
func (c *comparison) leaveOut(parked []ParkedStream) {
	for _, p := range parked {
		stream := streamOf(c.namespace, c.from.shape.Categories, p)
		c.parkedCategories = append(c.parkedCategories, stream.Category)
		c.parkedStreams = append(c.parkedStreams, stream.ID)
	}
	switch c.from.shape.Kind {
	case projection.KindEntity:
		c.leavesOut = " and " + presentColumn + " and cardinality($1::text[]) >= 0 and " + quote(c.key[0].Name) + " <> all($2::text[])"
	case projection.KindAppend:
		c.leavesOut = " and not exists (select from unnest($1::text[], $2::text[]) as u (category, stream) where u.category = r.category and u.stream = r.stream)"
	default:
		c.leavesOut = " and cardinality($1::text[]) >= 0 and cardinality($2::text[]) >= 0"
	}
}

func (c *comparison) names() []string { return namesOf(append(slices.Clone(c.key), c.columns...)) }

// rowText is an expression for columns as one text, the same for the same values.
func rowText(columns []projection.Column) string {
	return "row(" + strings.Join(quotedNames(columns), ", ") + ")::text"
}

func (c *comparison) table(v version) string {
	return quote(SchemaName(c.namespace, v.view()), "rows") + " as r"
}

// bucket is an expression for a row's bucket.
func (c *comparison) bucket() string {
	return fmt.Sprintf("(hashtextextended(%s, 2) & %d)::int", rowText(c.key), bucketsMask)
}

// digest is of the rows of one bucket: 128 bits, which do not depend on their order.
type digest struct {
	rows   int64
	h0, h1 string
}

func (c *comparison) digests(ctx context.Context, in querier, v version) (map[int]digest, error) {
	text := rowText(append(slices.Clone(c.key), c.columns...))
	rows, err := in.Query(ctx, fmt.Sprintf(`select bucket, count(*), sum(hashtextextended(t, 0))::text, sum(hashtextextended(t, 1))::text
		from (select %s as bucket, %s as t from %s where true%s) as x group by bucket`, c.bucket(), text, c.table(v), c.leavesOut),
		notNil(c.parkedCategories), notNil(c.parkedStreams))
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", v.label(), err)
	}
	out := map[int]digest{}
	var bucket int
	var d digest
	_, err = pgx.ForEachRow(rows, []any{&bucket, &d.rows, &d.h0, &d.h1}, func() error { out[bucket] = d; return nil })
	if err != nil {
		return nil, fmt.Errorf("digest %s: %w", v.label(), err)
	}
	return out, nil
}

func notNil(s []string) []string { return append([]string{}, s...) }

// total adds the buckets up, modulo 2^128.
func total(buckets map[int]digest) (rows int64, text string) {
	var sums [2]big.Int
	for _, d := range buckets {
		rows += d.rows
		for i, h := range []string{d.h0, d.h1} {
			var n big.Int
			n.SetString(h, 10) // Postgres writes nothing else
			sums[i].Add(&sums[i], &n)
		}
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), 64)
	for i := range sums {
		text += fmt.Sprintf("%016x", sums[i].Mod(&sums[i], modulus))
	}
	return rows, text
}

// differing lists the buckets that are not the same, in order.
func differing(a, b map[int]digest) []int {
	var out []int
	for bucket := range bucketsMask + 1 {
		if a[bucket] != b[bucket] {
			out = append(out, bucket)
		}
	}
	return out
}

// rows walks the buckets of both sides in the order of their keys.
func (c *comparison) rows(ctx context.Context, left, right querier, buckets []int, found func(Difference)) error {
	a, err := c.open(ctx, left, c.from, buckets)
	if err != nil {
		return err
	}
	defer a.rows.Close()
	b, err := c.open(ctx, right, c.to, buckets)
	if err != nil {
		return err
	}
	defer b.rows.Close()
	a.next()
	b.next()
	for a.there || b.there {
		switch {
		case !b.there || (a.there && a.key < b.key):
			found(Difference{Key: a.key, Kind: DifferenceMissing})
			a.next()
		case !a.there || b.key < a.key:
			found(Difference{Key: b.key, Kind: DifferenceExtra})
			b.next()
		default:
			if columns := c.columnsOf(a.values, b.values); len(columns) > 0 {
				found(Difference{Key: a.key, Kind: DifferenceChanged, Columns: columns})
			}
			a.next()
			b.next()
		}
	}
	for _, w := range []*walk{a, b} {
		if err := w.fault(); err != nil {
			return fmt.Errorf("compare row by row: %w", err)
		}
	}
	return nil
}

func (c *comparison) columnsOf(a, b []*string) (out []ColumnDifference) {
	for i, column := range c.columns {
		if (a[i] == nil) != (b[i] == nil) || (a[i] != nil && *a[i] != *b[i]) {
			out = append(out, ColumnDifference{Name: column.Name, From: a[i], To: b[i]})
		}
	}
	return out
}

// walk is one side's rows, one at a time.
type walk struct {
	rows   pgx.Rows
	there  bool
	key    string
	values []*string
	err    error
}

func (c *comparison) open(ctx context.Context, in querier, v version, buckets []int) (*walk, error) {
	exprs := make([]string, len(c.columns))
	for i, column := range c.columns {
		exprs[i] = ", " + quote(column.Name) + "::text"
	}
	rows, err := in.Query(ctx, fmt.Sprintf(`select %s as k%s from %s where %s = any($3)%s order by %s collate "C"`,
		rowText(c.key), strings.Join(exprs, ""), c.table(v), c.bucket(), c.leavesOut, rowText(c.key)),
		notNil(c.parkedCategories), notNil(c.parkedStreams), buckets)
	if err != nil {
		return nil, fmt.Errorf("read the rows of %s: %w", v.label(), err)
	}
	return &walk{rows: rows, values: make([]*string, len(c.columns))}, nil
}

func (w *walk) next() {
	if w.there = w.err == nil && w.rows.Next(); !w.there {
		return
	}
	into := []any{&w.key}
	for i := range w.values {
		into = append(into, &w.values[i])
	}
	w.err = w.rows.Scan(into...)
	w.there = w.err == nil
}

func (w *walk) fault() error {
	if w.err != nil {
		return w.err
	}
	return w.rows.Err()
}
