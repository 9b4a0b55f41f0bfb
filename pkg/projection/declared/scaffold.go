package declared

import (
	"fmt"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/projection"
)

// Scaffold is the text of a new entity view over event types of one category: a column for each
// field that a column can hold, set by each type that has it. It compiles as it is, and is meant
// to be edited. Faults of the name or the types come back as one error.
func Scaffold(view string, version int, types *Types, names ...string) (string, error) {
	if !nameRule.MatchString(view) {
		return "", fmt.Errorf("view %q: %s", view, nameRuleText)
	}
	if len(names) == 0 {
		return "", fmt.Errorf("name at least one event type; %s", didYouMean("", types.events()))
	}
	s := scaffold{used: map[string]string{}}
	for _, name := range names {
		found, known := types.find(name, 0)
		if !known {
			return "", fmt.Errorf("event type %q has no schema; %s", name, didYouMean(name, types.events()))
		}
		shape, err := types.shapeOf(found)
		if err != nil {
			return "", err
		}
		s.add(name, shape.record)
	}
	category, _, _ := strings.Cut(names[0], ".")
	text := s.text(view, version, category)
	if _, err := Compile(view+fileSuffix, []byte(text), types); err != nil {
		return "", err
	}
	return text, nil
}

// scaffold gathers columns and what sets them.
type scaffold struct {
	columns []string          // lines
	used    map[string]string // type of each column
	on      []string          // lines
}

func (s *scaffold) add(name string, r *recordShape) {
	sets := []string{"updated_at: meta.time"}
	for _, f := range r.fields {
		column := snake(f.name)
		typ := columnFor(f.shape)
		if typ == "" || !nameRule.MatchString(column) || strings.HasPrefix(column, "fs_") || reservedHere(column) {
			continue
		}
		if have, taken := s.used[column]; taken && have != typ {
			continue
		}
		if _, taken := s.used[column]; !taken {
			s.used[column] = typ
			s.columns = append(s.columns, fmt.Sprintf("  %s: %s", column, typ))
		}
		sets = append(sets, fmt.Sprintf("%s: event.%s", column, f.name))
	}
	slices.Sort(sets[1:])
	s.on = append(s.on, fmt.Sprintf("  %s:\n    set: {%s}", name, strings.Join(sets, ", ")))
}

func reservedHere(column string) bool {
	return column == entityKeyDefault || column == projection.VersionColumn || column == "updated_at"
}

func (s *scaffold) text(view string, version int, category string) string {
	return fmt.Sprintf(`# One row per stream of %s. Rules: docs/views.md.
view: %s
version: %d
source: %s
key: stream.id

columns:
%s
  updated_at: {type: timestamptz, index: true}

on:
%s
`, category, view, version, category, strings.Join(s.columns, "\n"), strings.Join(s.on, "\n"))
}

// columnFor is the column type that holds a field; "" for none.
func columnFor(s *shape) string {
	typ := map[form]string{
		formText: "text", formInt: "bigint", formDouble: "double precision", formBool: "boolean", formTime: "timestamptz",
		formMap: "jsonb", formRecord: "jsonb", formDyn: "jsonb",
	}[s.form]
	if s.form == formList {
		if typ = "jsonb"; s.item.form == formText && !s.item.nullable {
			typ = "text[]"
		}
	}
	if typ != "" && s.nullable {
		return fmt.Sprintf("{type: %s, nullable: true}", typ)
	}
	return typ
}

// snake writes workflowId as workflow_id.
func snake(name string) string {
	var b strings.Builder
	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			if i > 0 && name[i-1] != '_' && (name[i-1] < 'A' || name[i-1] > 'Z') {
				b.WriteByte('_')
			}
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}
