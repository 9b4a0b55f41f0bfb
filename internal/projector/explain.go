package projector

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Two versions of a metric view may have parked a stream at different records, so that some of its
// records count in one and not in the other, in rows that they share with other streams. Such rows
// are compared as if the records were parked in both (PROTOCOL P5): what they add is folded from
// the letters of the version that parked earlier, by the code of the other, and what one row and
// this add up to must be the other row.

// side is one of two versions under comparison.
type side struct {
	version
	in     *moment
	ids    map[string]string // topic ids
	parked map[streamPlace]int64
	extra  map[string]projection.Row // what only this side counts, by key
}

type streamPlace struct {
	place
	stream string
}

func newSide(v version, in *moment, parked []ParkedStream) *side {
	s := &side{version: v, in: in, parked: map[streamPlace]int64{}, extra: map[string]projection.Row{}}
	for _, p := range parked {
		s.parked[streamPlace{place{p.Topic, p.Partition}, p.Stream}] = p.Offset
	}
	return s
}

// since is where a side has parked a stream; beyond every offset when it has not.
func (s *side) since(p streamPlace) int64 {
	if at, is := s.parked[p]; is {
		return at
	}
	return math.MaxInt64
}

// explain returns the keys, as in Difference, of rows that differ by nothing but parked records.
func (o *Operator) explain(ctx context.Context, c *comparison, a, b *side) (map[string]bool, error) {
	streams := map[streamPlace]bool{}
	for _, s := range []*side{a, b} {
		for p := range s.parked {
			streams[p] = true
		}
	}
	for p := range streams {
		early, late := a, b
		if a.since(p) > b.since(p) {
			early, late = b, a
		}
		if early.since(p) == late.since(p) {
			continue
		}
		if err := o.addExtra(ctx, p, early, late); err != nil {
			return nil, err
		}
	}
	explained := map[string]bool{}
	for _, pair := range [][2]*side{{a, b}, {b, a}} {
		for _, extra := range pair[0].extra {
			key, equal, err := c.explains(ctx, pair[0], pair[1], extra)
			if err != nil {
				return nil, err
			}
			if equal {
				explained[key] = true
			}
		}
	}
	return explained, nil
}

// addExtra folds what the late side counts of a stream that the early side has parked.
func (o *Operator) addExtra(ctx context.Context, p streamPlace, early, late *side) error {
	view, err := o.view(late.name, late.number)
	if err != nil {
		return err
	}
	records, err := o.letters(ctx, early.in, early.consumer(), p.place, early.ids[p.topic],
		fmt.Sprintf(` and l.key = $5 and l."offset" >= %d and l."offset" < %d`, early.since(p), late.since(p)), []byte(p.stream))
	if err != nil {
		return err
	}
	d, err := newDecoder(ctx, o.cfg.Codec, view)
	if err != nil {
		return err
	}
	defer d.close()
	st, err := o.store(view)
	if err != nil {
		return err
	}
	category := streamOf(o.cfg.Namespace, view.Categories, ParkedStream{Topic: p.topic}).Category
	w := &worker{place: p.place, category: category, store: st}
	if err := w.learnCorrections(ctx, late.in, 0); err != nil {
		return err
	}
	b := newBatch(category, view, position{next: positionStart}, records)
	if err := d.decode(ctx, b); err != nil {
		return err
	}
	w.corrections.apply(b, late.ids[p.topic])
	for _, s := range b.steps {
		if !s.folded || s.fault != nil {
			continue
		}
		deltas, err := view.Deltas(s.event)
		if err != nil {
			return fmt.Errorf("fold %s again at offset %d: %w", event.StreamID{Category: category, ID: p.stream}, s.rec.Offset, err)
		}
		for _, delta := range deltas {
			if err := st.mergeDelta(late.extra, delta); err != nil {
				return err
			}
		}
	}
	return nil
}

// explains says whether one row of the late side is that of the other and the extra.
func (c *comparison) explains(ctx context.Context, late, other *side, extra projection.Row) (key string, equal bool, err error) {
	keys := len(c.key)
	key, want, there, err := c.rowOf(ctx, late, extra[:keys])
	if err != nil || !there {
		return key, false, err
	}
	_, row, there, err := c.rowOf(ctx, other, extra[:keys])
	if err != nil {
		return key, false, err
	}
	layout, otherLayout := late.view().Layout(), other.view().Layout()
	sum := append(projection.Row{}, extra...)
	if there {
		for i, column := range otherLayout {
			for j := keys; j < len(layout); j++ {
				if layout[j].Name == column.Name && i >= keys {
					sum[j] = row[i]
				}
			}
		}
		if err := late.view().MergeInto(sum, extra); err != nil {
			return key, false, err
		}
	}
	return key, len(columnsThatDiffer(append(append([]projection.Column{}, c.key...), c.columns...), layout, c.shared(layout, want), sum)) == 0, nil
}

// shared picks the columns that are compared.
func (c *comparison) shared(layout []projection.Column, row projection.Row) projection.Row {
	var out projection.Row
	for _, column := range append(append([]projection.Column{}, c.key...), c.columns...) {
		for i, own := range layout {
			if own.Name == column.Name {
				out = append(out, row[i])
			}
		}
	}
	return out
}

// rowOf reads one row by its key.
func (c *comparison) rowOf(ctx context.Context, s *side, key projection.Row) (text string, row projection.Row, there bool, err error) {
	conditions := make([]string, len(key))
	for i, column := range c.key {
		conditions[i] = fmt.Sprintf("%s = $%d", quote(column.Name), i+1)
	}
	layout := s.view().Layout()
	rows, err := s.in.Query(ctx, fmt.Sprintf("select %s, %s from %s where %s", joined(readExprs(layout)), rowText(c.key), c.table(s.version), strings.Join(conditions, " and ")), key...)
	if err != nil {
		return "", nil, false, fmt.Errorf("read a row of %s: %w", s.label(), err)
	}
	defer rows.Close()
	if rows.Next() {
		there = true
		row, err = readRow(rows, append(layout, projection.Column{Name: "key", Type: "text", Wire: "text"}))
		if err != nil {
			return "", nil, false, fmt.Errorf("read a row of %s: %w", s.label(), err)
		}
		text, row = row[len(layout)].(string), row[:len(layout)]
	}
	return text, row, there, rows.Err()
}
