package projector

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
)

// statements are the texts of one view version, made once.
type statements struct {
	selectRows     string // entity views: $1 keys
	writeRows      string // one array per column: an upsert, but an insert in append views
	deleteRows     string // snapshots: one array per key column
	selectVersions string // $1 categories, $2 streams
	upsertVersions string // $1 categories, $2 streams, $3 versions
	selectAll      string // for comparing: the view's layout
}

// presentColumn tells a row that is there from one that only remembers its stream's version:
// deleted, or not there yet (PROTOCOL P2).
const presentColumn = "fs_present"

// SchemaName is the Postgres schema of one version of a view: <ns>_<view>_v<N>.
func SchemaName(namespace string, v projection.View) string {
	return namespace + "_" + v.Name + "_v" + strconv.Itoa(v.Version)
}

func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }

// quotedNames lists column names.
func quotedNames(columns []projection.Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = quote(c.Name)
	}
	return out
}

func newStatements(namespace string, v projection.View) statements {
	schema := SchemaName(namespace, v)
	rows := quote(schema, "rows")
	s := statements{selectAll: "select " + strings.Join(readExprs(v.Layout()), ", ") + " from " + rows}
	switch v.Kind {
	case projection.KindEntity:
		stored := storedColumns(v)
		s.selectAll += " where " + presentColumn
		s.selectRows = fmt.Sprintf("select %s from %s where %s = any($1)", strings.Join(readExprs(stored), ", "), rows, quote(v.Key[0].Name))
		s.writeRows = upsert(rows, v.Key, stored[len(v.Key):])
	case projection.KindMetric:
		s.writeRows = upsert(rows, v.Key, v.Columns)
	case projection.KindAppend:
		s.writeRows = insertFrom(rows, v.Layout())
	case kindSnapshots:
		s.writeRows = upsert(rows, v.Key, v.Columns)
		s.deleteRows = "delete from " + rows + " r using unnest($1::text[], $2::text[], $3::integer[]) as u (category, stream, slot)" +
			" where r.category = u.category and r.stream = u.stream and r.slot = u.slot"
	}
	if !keepsVersions(v) {
		return s
	}
	versions := quote(schema, "stream_versions")
	s.selectVersions = "select v.category, v.stream, v.version from " + versions + " v join unnest($1::text[], $2::text[]) as u (category, stream) on v.category = u.category and v.stream = u.stream"
	s.upsertVersions = "insert into " + versions + " (category, stream, version) select * from unnest($1::text[], $2::text[], $3::bigint[])" +
		" on conflict (category, stream) do update set version = excluded.version"
	return s
}

// storedColumns are those of an entity view's table: the layout and whether the row is there.
func storedColumns(v projection.View) []projection.Column {
	return append(v.Layout(), projection.Column{Name: presentColumn, Type: "boolean", Wire: "boolean"})
}

// readExprs casts each column to the type that readRow knows.
func readExprs(columns []projection.Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = quote(c.Name)
		switch {
		case c.Wire == "jsonb":
			out[i] += "::text"
		case c.Wire != c.Type:
			out[i] += "::" + c.Wire
		}
	}
	return out
}

// insertFrom writes many rows at once. The arrays are unnested side by side; jsonb and arrays travel
// as text, since unnest flattens an array of arrays.
func insertFrom(table string, all []projection.Column) string {
	arrays := make([]string, len(all))
	values := make([]string, len(all))
	for i, c := range all {
		wire := c.Wire
		if c.Wire == "jsonb" || c.Wire == "text[]" {
			wire = "text"
		}
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, wire)
		values[i] = "u." + quote(c.Name)
		if wire != c.Type {
			values[i] += "::" + c.Type
		}
	}
	names := strings.Join(quotedNames(all), ", ")
	return fmt.Sprintf("insert into %s as t (%s) select %s from unnest(%s) as u (%s)", table, names, strings.Join(values, ", "), strings.Join(arrays, ", "), names)
}

// upsert is insertFrom over rows that may be there. No key may stand twice.
func upsert(table string, key, columns []projection.Column) string {
	sets := make([]string, len(columns))
	for i, c := range columns {
		name := quote(c.Name)
		switch c.Merge {
		case projection.MergeAdd:
			sets[i] = fmt.Sprintf("%s = t.%s + excluded.%s", name, name, name)
		case projection.MergeMin:
			sets[i] = fmt.Sprintf("%s = least(t.%s, excluded.%s)", name, name, name)
		case projection.MergeMax:
			sets[i] = fmt.Sprintf("%s = greatest(t.%s, excluded.%s)", name, name, name)
		default:
			sets[i] = fmt.Sprintf("%s = excluded.%s", name, name)
		}
	}
	return fmt.Sprintf("%s on conflict (%s) do update set %s",
		insertFrom(table, append(slices.Clone(key), columns...)), strings.Join(quotedNames(key), ", "), strings.Join(sets, ", "))
}

// columnArrays turns rows into the arguments of an upsert: one typed array per column.
func columnArrays(columns []projection.Column, rows []projection.Row) []any {
	out := make([]any, len(columns))
	for i, c := range columns {
		out[i] = columnArray(c, rows, i)
	}
	return out
}

func columnArray(c projection.Column, rows []projection.Row, i int) any {
	switch c.Wire {
	case "bigint":
		return arrayOf[int64](rows, i, c.Nullable)
	case "boolean":
		return arrayOf[bool](rows, i, c.Nullable)
	case "double precision":
		return arrayOf[float64](rows, i, c.Nullable)
	case "timestamptz":
		return arrayOf[time.Time](rows, i, c.Nullable)
	case "text":
		return arrayOf[string](rows, i, c.Nullable)
	default:
		return textArray(rows, i)
	}
}

func arrayOf[T any](rows []projection.Row, i int, nullable bool) any {
	if !nullable {
		out := make([]T, len(rows))
		for r, row := range rows {
			out[r] = row[i].(T)
		}
		return out
	}
	out := make([]*T, len(rows))
	for r, row := range rows {
		if v, ok := row[i].(T); ok {
			out[r] = &v
		}
	}
	return out
}

// textArray holds jsonb as its text and text[] as an array literal.
func textArray(rows []projection.Row, i int) []*string {
	out := make([]*string, len(rows))
	for r, row := range rows {
		var text string
		switch v := row[i].(type) {
		case projection.JSON:
			text = string(v)
		case []string:
			text = arrayLiteral(v)
		default:
			continue
		}
		out[r] = &text
	}
	return out
}

var literalEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// arrayLiteral is Postgres's text form of an array, every item quoted.
func arrayLiteral(items []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		_, _ = literalEscapes.WriteString(&b, item) // a strings.Builder never fails
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// readRow scans one result row that was selected by readExprs into canonical values.
func readRow(rows pgx.Rows, columns []projection.Column) (projection.Row, error) {
	values, err := rows.Values()
	if err != nil {
		return nil, err
	}
	for i, c := range columns {
		if values[i], err = canonical(c, values[i]); err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name, err)
		}
	}
	return values, nil
}

func canonical(c projection.Column, value any) (any, error) {
	switch v := value.(type) {
	case string:
		if c.Wire == "jsonb" {
			return projection.JSON(v), nil
		}
	case time.Time:
		return v.UTC(), nil
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("array item is %T, want text", item)
			}
			items[i] = text
		}
		return items, nil
	}
	return value, nil
}
