package projector

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrDefinitionChanged: a view's definition differs from the one that its version was made with.
var ErrDefinitionChanged = errors.New("definition changed under the same version: raise the view's version")

// Migrate brings a namespace's system tables up to date (schema <namespace>, by goose), creates
// the schema and tables of each view version that is not there yet, and the stable view
// <namespace>.<view> over the live version: the lowest of those that came first, unless it was
// switched (Operator.Switch). A version that was dropped is not made again. Indexes are made and
// removed as the definitions have them.
// It holds an advisory lock, so any number of processes may call it at once. A view whose
// definition changed under the same version fails with ErrDefinitionChanged, and nothing of that
// view is touched.
func Migrate(ctx context.Context, pool *pgxpool.Pool, namespace string, views []projection.View) error {
	if err := validateViews(views); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return migrate(ctx, pool, namespace, views)
}

// MigrateSystemViews does the same for the views that the projector keeps beside the user's:
// <namespace>.events, the index by which a single stream can be read, and <namespace>.snapshots,
// the history slots of states. It makes the events' partitions of this month and the next.
func MigrateSystemViews(ctx context.Context, pool *pgxpool.Pool, namespace string) error {
	if err := migrate(ctx, pool, namespace, systemViews(nil)); err != nil {
		return err
	}
	return newMonths(namespace).prepare(ctx, pool, time.Now())
}

func migrate(ctx context.Context, pool *pgxpool.Pool, namespace string, views []projection.View) error {
	if !namespaceRule.MatchString(namespace) {
		return fmt.Errorf("migrate: namespace %q: want [a-z][a-z0-9]{0,14}", namespace)
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("migrate: connect to Postgres: %w", err)
	}
	defer conn.Release()
	unlock, err := lockNamespace(ctx, conn, namespace)
	if err != nil {
		return fmt.Errorf("migrate: wait for the lock of namespace %s: %w", namespace, err)
	}
	defer unlock()
	if err := migrateSystem(ctx, conn, namespace); err != nil {
		return fmt.Errorf("migrate: system tables of namespace %s: %w", namespace, err)
	}
	var faults []error
	ordered := slices.SortedStableFunc(slices.Values(views), func(a, b projection.View) int { return cmp.Compare(a.Version, b.Version) })
	for _, v := range ordered {
		err := migrateView(ctx, conn, namespace, v)
		if err == nil {
			err = migrateIndexes(ctx, conn, namespace, v)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("migrate: view %s version %d: %w", v.Name, v.Version, err))
		}
	}
	return errors.Join(faults...)
}

func lockNamespace(ctx context.Context, conn *pgxpool.Conn, namespace string) (unlock func(), err error) {
	h := fnv.New64a()
	h.Write([]byte("foldstream.migrate\x00" + namespace))
	key := int64(h.Sum64())
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", key); err != nil {
		return nil, err
	}
	return func() {
		// A cancelled context would leave the lock on a pooled connection.
		if _, err := conn.Exec(context.WithoutCancel(ctx), "select pg_advisory_unlock($1)", key); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // the session's end frees it
		}
	}, nil
}

// migrateSystem runs goose with the namespace's schema as the search path, so that the migrations
// name no schema and each namespace has a version table of its own.
// It takes nothing more from the pool, whose other connections may all be waiting for the lock.
func migrateSystem(ctx context.Context, conn *pgxpool.Conn, namespace string) error {
	if _, err := conn.Exec(ctx, "create schema if not exists "+quote(namespace)); err != nil {
		return err
	}
	db := openDB(conn, namespace)
	defer db.Close()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithTableName(namespace+".goose_db_version"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

func openDB(conn *pgxpool.Conn, namespace string) *sql.DB {
	cfg := conn.Conn().Config()
	return stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "set search_path to "+quote(namespace))
		return err
	}))
}

// migrateView creates one view version in one transaction, or checks that it is the same.
func migrateView(ctx context.Context, conn *pgxpool.Conn, namespace string, v projection.View) error {
	definition, err := definitionText(v)
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		views := quote(namespace, "views")
		var stored string
		var dropped bool
		err := tx.QueryRow(ctx, "select definition, dropped from "+views+" where name = $1 and version = $2", v.Name, v.Version).Scan(&stored, &dropped)
		switch {
		case err == nil && dropped:
			return nil
		case err == nil && stored != definition:
			return fmt.Errorf("%w (have %s, stored %s)", ErrDefinitionChanged, definition, stored)
		case err == nil:
			return nil
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		for _, statement := range viewTables(namespace, v) {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		indexes, err := usableIndexes(ctx, tx, v)
		if err != nil {
			return err
		}
		for _, i := range indexes {
			if _, err := tx.Exec(ctx, indexStatement(namespace, v, i, false)); err != nil {
				return fmt.Errorf("make the index on %s: %w", strings.Join(i.Columns, ", "), err)
			}
		}
		// The first version of a view is the live one; a later one is switched to on purpose.
		var live bool
		err = tx.QueryRow(ctx, "insert into "+views+" (name, version, definition, live, live_since) select $1, $2, $3, first, case when first then now() end from (select not exists (select from "+views+" where name = $1 and live) as first) as f returning live",
			v.Name, v.Version, definition).Scan(&live)
		if err != nil || !live {
			return err
		}
		_, err = tx.Exec(ctx, stableView(namespace, v))
		return err
	})
}

// migrateIndexes leaves a version alone that is being rebuilt, or was dropped.
func migrateIndexes(ctx context.Context, conn *pgxpool.Conn, namespace string, v projection.View) error {
	if v.Kind == kindEvents || v.Kind == kindSnapshots {
		return nil
	}
	var busy bool
	err := conn.QueryRow(ctx, "select exists (select from "+quote(namespace, "rebuilds")+" where consumer = $1) or dropped from "+quote(namespace, "views")+" where name = $2 and version = $3",
		topics.ConsumerView(v.Name, v.Version), v.Name, v.Version).Scan(&busy)
	if err != nil || busy {
		return err
	}
	return makeIndexes(ctx, conn, namespace, v)
}

// definitionText is what must not change under one version: all that shapes the rows, as far as
// data tells. The functions cannot be compared; the expressions of a declared view can, and since
// they say what they need, it may read a newer version of a schema. A system view takes any
// categories.
func definitionText(v projection.View) (string, error) {
	types := make([]string, len(v.Types))
	for i, t := range v.Types {
		if types[i] = t.Name; v.Source == "" {
			types[i] = fmt.Sprintf("%s@%d", t.Name, t.Version)
		}
	}
	slices.Sort(types)
	text, err := json.Marshal(struct {
		Kind       projection.Kind
		Categories []string
		Key        []projection.Column
		Columns    []projection.Column
		Types      []string
		Source     string `json:",omitempty"`
	}{v.Kind, v.Categories, v.Key, v.Columns, types, v.Source})
	return string(text), err
}

// viewTables are the statements that make one version's schema and tables.
func viewTables(namespace string, v projection.View) []string {
	schema := SchemaName(namespace, v)
	columns := v.Layout()
	if v.Kind == projection.KindEntity {
		columns = storedColumns(v)
	}
	var lines []string
	for _, c := range columns {
		lines = append(lines, columnLine(c))
	}
	out := []string{
		"create schema if not exists " + quote(schema),
		fmt.Sprintf("create table if not exists %s (%s, primary key (%s))%s",
			quote(schema, "rows"), strings.Join(lines, ", "), strings.Join(quotedNames(v.Key), ", "), storageOf(v)),
	}
	if keepsVersions(v) {
		out = append(out, fmt.Sprintf(`create table if not exists %s (category text collate "C" not null, stream text collate "C" not null, version bigint not null, primary key (category, stream)) with (fillfactor = 80)`,
			quote(schema, "stream_versions")))
	}
	return out
}

// storageOf leaves room on the pages of rows that change. Events are split by month, so that old
// ones can be detached or moved as a whole.
func storageOf(v projection.View) string {
	switch v.Kind {
	case projection.KindAppend:
		return ""
	case kindEvents:
		return " partition by range (" + recordedAtColumn + ")"
	}
	return " with (fillfactor = 80)"
}

// columnLine declares a column. Text is ordered by its bytes, so that min, max and order are the
// same on every database and as in Go.
func columnLine(c projection.Column) string {
	line := quote(c.Name) + " " + c.Type
	if c.Type == "text" {
		line += ` collate "C"`
	}
	if !c.Nullable {
		line += " not null"
	}
	return line
}

// stableView is <ns>.<view>, what readers select from whatever version is live.
func stableView(namespace string, v projection.View) string {
	text := fmt.Sprintf("create or replace view %s as select %s from %s", quote(namespace, v.Name),
		strings.Join(quotedNames(v.Layout()), ", "), quote(SchemaName(namespace, v), "rows"))
	if v.Kind == projection.KindEntity {
		text += " where " + presentColumn
	}
	return text
}

// ReadTable reads all rows of one view version, in the form of projection.Fold, so that both can
// be compared with projection.Diff. It holds the whole table in memory.
func ReadTable(ctx context.Context, pool *pgxpool.Pool, namespace string, v projection.View) (*projection.Table, error) {
	table := projection.NewTable(v)
	rows, err := pool.Query(ctx, newStatements(namespace, v).selectAll)
	if err != nil {
		return nil, fmt.Errorf("read view %s: %w", v.Name, err)
	}
	defer rows.Close()
	for rows.Next() {
		row, err := readRow(rows, v.Layout())
		if err != nil {
			return nil, fmt.Errorf("read view %s: %w", v.Name, err)
		}
		table.Rows[projection.KeyOf(row[:len(v.Key)])] = row
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read view %s: %w", v.Name, err)
	}
	return table, nil
}
