package declared

import (
	"encoding/json"
	"strings"
)

// canonical is the definition without what changes no row: comments, layout, the order of names,
// indexes. Expressions stand as they are written.
func (d *definition) canonical() string {
	type column struct {
		Name, Type string
		Nullable   bool `json:",omitempty"`
	}
	type rule struct {
		When string            `json:",omitempty"`
		Each string            `json:",omitempty"`
		Row  string            `json:",omitempty"`
		Key  map[string]string `json:",omitempty"`
		Ops  map[string]any    `json:",omitempty"`
	}
	type key struct{ Name, Value, Type string }
	out := struct {
		Kind    string
		Keys    []key
		Columns []column
		On      map[string][]rule
	}{Kind: string(d.kind), On: map[string][]rule{}}
	for _, k := range d.key {
		out.Keys = append(out.Keys, key{k.name.value, strings.TrimSpace(k.expr.value), k.typ.value})
	}
	for _, c := range d.columns {
		out.Columns = append(out.Columns, column{c.name.value, c.typ.value, c.nullable})
	}
	for _, t := range d.on {
		rules := []rule{}
		for _, r := range t.rules {
			rules = append(rules, rule{
				When: strings.TrimSpace(r.when.value), Each: strings.TrimSpace(r.each.value), Row: string(r.row),
				Key: sources(r.key), Ops: canonicalOps(r.ops),
			})
		}
		name := t.name.value
		if t.version > 0 {
			version, _ := json.Marshal(t.version)
			name += "@" + string(version)
		}
		out.On[name] = rules
	}
	text, err := json.Marshal(out)
	if err != nil {
		return ""
	}
	return string(text)
}

func sources(all []assignment) map[string]string {
	out := map[string]string{}
	for _, a := range all {
		out[a.name.value] = strings.TrimSpace(a.expr.value)
	}
	return out
}

func canonicalOps(ops []opDef) map[string]any {
	out := map[string]any{}
	for _, o := range ops {
		if o.row {
			out[o.op] = true
			continue
		}
		columns := map[string]any{}
		for _, a := range o.columns {
			columns[a.name.value] = strings.TrimSpace(a.expr.value)
			if a.by != nil {
				by := []string{}
				for _, name := range a.by {
					by = append(by, name.value)
				}
				columns[a.name.value] = []any{strings.TrimSpace(a.expr.value), by}
			}
		}
		out[o.op] = columns
	}
	return out
}
