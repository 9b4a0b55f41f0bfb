package projector

import (
	"context"
	"fmt"
	"slices"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// In bulk, a stream that begins in the batch is not looked up and is written by COPY: the log says
// that it is new, since its first event there has version 1. Where that is wrong, for the event
// stands in the log twice, the primary key refuses the batch, and it is tried with look-ups.

// lookUp says whether a batch that Postgres refused is to be tried again with look-ups: before an
// event is blamed, what is new must be certain.
func (w *worker) lookUp(err error) bool {
	if _, refused := deadletter.DataRefused(err); !refused || !w.store.bulk || w.looksUp {
		return false
	}
	w.looksUp = true
	w.cache.clear()
	return true
}

// begins says whether the log tells that a stream has nothing stored before these steps.
func (w *worker) begins(s *streamWork) bool {
	return w.store.bulk && !w.looksUp && s.steps[0].envelope == nil && s.steps[0].recorded.Version == 1
}

// copied says whether a stream's row goes by COPY.
func (s *store) copied(w *streamWork) bool { return s.bulk && w.before.version == 0 }

// copyRows writes rows that are not there.
func (s *store) copyRows(ctx context.Context, tx pgx.Tx, columns []projection.Column, rows []projection.Row) error {
	if len(rows) == 0 {
		return nil
	}
	source := pgx.CopyFromSlice(len(rows), func(i int) ([]any, error) { return copyValues(rows[i]), nil })
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{SchemaName(s.namespace, s.view), "rows"}, namesOf(columns), source); err != nil {
		return fmt.Errorf("copy %d rows: %w", len(rows), err)
	}
	return nil
}

// copyValues makes values plain, in place of a slice of its own only where it must.
func copyValues(row projection.Row) []any {
	cloned := false
	for i, v := range row {
		if text, is := v.(projection.JSON); is {
			if !cloned {
				row, cloned = slices.Clone(row), true
			}
			row[i] = string(text)
		}
	}
	return row
}

func namesOf(columns []projection.Column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

// copyVersions writes the last versions of new streams, and returns the others.
func (s *store) copyVersions(ctx context.Context, tx pgx.Tx, category string, streams []*streamWork) (others []*streamWork, err error) {
	var fresh []*streamWork
	for _, w := range streams {
		if w.applied > 0 && s.copied(w) {
			fresh = append(fresh, w)
		} else {
			others = append(others, w)
		}
	}
	if len(fresh) == 0 {
		return others, nil
	}
	source := pgx.CopyFromSlice(len(fresh), func(i int) ([]any, error) {
		return []any{category, fresh[i].id.ID, int64(fresh[i].after.version)}, nil
	})
	_, err = tx.CopyFrom(ctx, pgx.Identifier{SchemaName(s.namespace, s.view), "stream_versions"}, []string{"category", "stream", "version"}, source)
	if err != nil {
		return nil, fmt.Errorf("copy the versions of %d streams: %w", len(fresh), err)
	}
	return others, nil
}

// versionsOf lists streams and the versions that a batch took them to.
func versionsOf(streams []*streamWork) (ids []string, versions []int64) {
	for _, w := range streams {
		if w.applied > 0 {
			ids, versions = append(ids, w.id.ID), append(versions, int64(w.after.version))
		}
	}
	return ids, versions
}

// storedRow is a stream's row in an entity view's table.
func (s *store) storedRow(id event.StreamID, after stored) projection.Row {
	row := make(projection.Row, 0, len(s.rowColumns))
	row = append(row, id.ID)
	if after.exists {
		row = append(row, after.row...)
	} else {
		row = append(row, s.empty...)
	}
	return append(row, int64(after.version), after.exists)
}
