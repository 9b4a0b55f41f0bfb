package projector

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// indexPrefix marks the indexes that a view's definition asks for: others are an operator's own,
// and stay.
const indexPrefix = "fs_index_"

// indexName is derived from what the index is, so that another index has another name.
func indexName(i projection.Index) string {
	name := strings.Join(i.Columns, "_")
	if i.Search {
		name += "_search"
	}
	const nameBytesMax = 40 // Postgres cuts names at 63
	if len(name) > nameBytesMax {
		h := fnv.New32a()
		h.Write([]byte(name))
		name = fmt.Sprintf("%s_%08x", name[:nameBytesMax-9], h.Sum32())
	}
	return indexPrefix + name
}

// indexStatement makes an index of a version's rows.
func indexStatement(namespace string, v projection.View, i projection.Index, concurrently bool) string {
	how := "create index if not exists "
	if concurrently {
		how = "create index concurrently if not exists "
	}
	columns := make([]string, len(i.Columns))
	for n, c := range i.Columns {
		columns[n] = quote(c)
	}
	using := "(" + strings.Join(columns, ", ") + ")"
	if i.Search {
		using = "using gin (" + columns[0] + " gin_trgm_ops)"
	}
	return how + quote(indexName(i)) + " on " + quote(SchemaName(namespace, v), "rows") + " " + using
}

// makeIndexes brings the indexes of a version's rows in line with its definition: readers and
// writers go on meanwhile. A rebuild makes them at its end.
func makeIndexes(ctx context.Context, conn querier, namespace string, v projection.View) error {
	wanted, err := usableIndexes(ctx, conn, v)
	if err != nil {
		return err
	}
	have, err := indexNames(ctx, conn, namespace, v)
	if err != nil {
		return err
	}
	for name, valid := range have {
		i := slices.IndexFunc(wanted, func(i projection.Index) bool { return indexName(i) == name })
		if i >= 0 && valid {
			continue
		}
		if _, err := conn.Exec(ctx, "drop index concurrently if exists "+quote(SchemaName(namespace, v), name)); err != nil {
			return fmt.Errorf("drop index %s: %w", name, err)
		}
		delete(have, name)
	}
	for _, i := range wanted {
		if _, there := have[indexName(i)]; there {
			continue
		}
		if _, err := conn.Exec(ctx, indexStatement(namespace, v, i, true)); err != nil {
			return fmt.Errorf("make the index on %s: %w", strings.Join(i.Columns, ", "), err)
		}
	}
	return nil
}

// usableIndexes leaves out what the server cannot do: without pg_trgm, a search reads every row.
func usableIndexes(ctx context.Context, conn querier, v projection.View) ([]projection.Index, error) {
	if !slices.ContainsFunc(v.Indexes, func(i projection.Index) bool { return i.Search }) {
		return v.Indexes, nil
	}
	var available bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_available_extensions where name = 'pg_trgm')").Scan(&available); err != nil {
		return nil, err
	}
	if !available {
		return slices.DeleteFunc(slices.Clone(v.Indexes), func(i projection.Index) bool { return i.Search }), nil
	}
	if _, err := conn.Exec(ctx, "create extension if not exists pg_trgm"); err != nil {
		return nil, fmt.Errorf("create the extension pg_trgm, for searching: %w", err)
	}
	return v.Indexes, nil
}

// indexNames lists those of the definition that are there, and whether each is complete.
func indexNames(ctx context.Context, conn querier, namespace string, v projection.View) (map[string]bool, error) {
	rows, err := conn.Query(ctx, `select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
		where i.indrelid = to_regclass($1) and starts_with(c.relname, $2)`, quote(SchemaName(namespace, v), "rows"), indexPrefix)
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	var name string
	var valid bool
	_, err = pgx.ForEachRow(rows, []any{&name, &valid}, func() error { out[name] = valid; return nil })
	return out, err
}
