package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

func parsed(t interface {
	Helper()
	Fatal(args ...any)
}, text string,
) *codec.Schema {
	t.Helper()
	s, err := codec.Parse(text)
	if err != nil {
		t.Fatal(text, err)
	}
	return s
}

// told are changes as "path: change".
func told(changes []Change) []string {
	lines := []string{}
	for _, c := range changes {
		lines = append(lines, c.Path+": "+c.String())
	}
	return lines
}

func TestDiffTellsWhatChanged(t *testing.T) {
	t.Parallel()
	const (
		line   = `{"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [{"name": "price", "type": "%s"}]}}}`
		status = `{"name": "status", "type": {"type": "enum", "name": "Status", "symbols": [%s], "default": "%s"}}`
		amount = `{"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": %d, "scale": 2}}`
	)
	for name, c := range map[string]struct {
		from, to []string
		want     []string
	}{
		"nothing":                  {[]string{fieldID}, []string{fieldID}, []string{}},
		"another way of writing":   {[]string{`{"name": "a", "type": "int"}`}, []string{`{"type": {"type": "int"}, "name": "a", "order": "ascending"}`}, []string{}},
		"a field with a default":   {[]string{fieldID}, []string{fieldID, fieldAmount}, []string{"order.Placed.amount: added: long, default 0"}},
		"a field without":          {nil, []string{fieldID}, []string{"order.Placed.id: added: string, without a default"}},
		"a field less":             {[]string{fieldID, fieldAmount}, []string{fieldID}, []string{"order.Placed.amount: removed: long"}},
		"a promotion":              {[]string{`{"name": "a", "type": "int"}`}, []string{`{"name": "a", "type": "long"}`}, []string{"order.Placed.a: promoted: long, was int"}},
		"another type":             {[]string{`{"name": "a", "type": "long"}`}, []string{`{"name": "a", "type": "int"}`}, []string{"order.Placed.a: type: int, was long"}},
		"a nullable field":         {[]string{`{"name": "a", "type": "int"}`}, []string{`{"name": "a", "type": ["null", "int"]}`}, []string{"order.Placed.a: widened: [null | int], was int"}},
		"a required field":         {[]string{`{"name": "a", "type": ["null", "int"]}`}, []string{`{"name": "a", "type": "int"}`}, []string{"order.Placed.a: narrowed: int, was [null | int]"}},
		"another branch":           {[]string{`{"name": "a", "type": ["null", "int"]}`}, []string{`{"name": "a", "type": ["null", "string"]}`}, []string{"order.Placed.a: type: [null | string], was [null | int]"}},
		"branches in other order":  {[]string{`{"name": "a", "type": ["null", "int"]}`}, []string{`{"name": "a", "type": ["int", "null"]}`}, []string{"order.Placed.a: order: [int | null], was [null | int]"}},
		"a default":                {[]string{`{"name": "a", "type": "int", "default": 1}`}, []string{`{"name": "a", "type": "int", "default": 2}`}, []string{"order.Placed.a: default: 2, was 1"}},
		"a default of null":        {[]string{`{"name": "a", "type": ["null", "int"]}`}, []string{`{"name": "a", "type": ["null", "int"], "default": null}`}, []string{"order.Placed.a: default: null, was none"}},
		"a doc":                    {[]string{`{"name": "a", "type": "int"}`}, []string{`{"name": "a", "type": "int", "doc": "An a."}`}, []string{"order.Placed.a: doc changed"}},
		"a renamed field":          {[]string{`{"name": "a", "type": "int"}`}, []string{`{"name": "b", "type": "int", "aliases": ["a"]}`}, []string{"order.Placed.b: renamed: b, was a", "order.Placed.b: aliases: a, was none"}},
		"fields in other order":    {[]string{fieldID, fieldAmount}, []string{fieldAmount, fieldID}, []string{"order.Placed: order: amount, id, was id, amount"}},
		"within an array's record": {[]string{fmt.Sprintf(line, "float")}, []string{fmt.Sprintf(line, "double")}, []string{"order.Placed.lines[].price: promoted: double, was float"}},
		"a symbol more":            {[]string{fmt.Sprintf(status, `"A"`, "A")}, []string{fmt.Sprintf(status, `"A", "B"`, "A")}, []string{"order.Placed.status: symbols: A, B, was A"}},
		"an enum's default":        {[]string{fmt.Sprintf(status, `"A", "B"`, "A")}, []string{fmt.Sprintf(status, `"A", "B"`, "B")}, []string{"order.Placed.status: default: B, was A"}},
		"a decimal's precision":    {[]string{fmt.Sprintf(amount, 10)}, []string{fmt.Sprintf(amount, 12)}, []string{"order.Placed.amount: type: bytes decimal(12,2), was bytes decimal(10,2)"}},
		"a property":               {[]string{`{"name": "a", "type": "int", "unit": "s"}`}, []string{`{"name": "a", "type": "int", "unit": "ms"}`}, []string{`order.Placed.a: property: unit "ms", was unit "s"`}},
		"a fixed's size":           {[]string{`{"name": "a", "type": {"type": "fixed", "name": "F", "size": 4}}`}, []string{`{"name": "a", "type": {"type": "fixed", "name": "F", "size": 8}}`}, []string{"order.Placed.a: type: fixed(8) order.F, was fixed(4) order.F"}},
		"a record in itself":       {[]string{`{"name": "next", "type": ["null", "Placed"]}`}, []string{`{"name": "next", "type": ["null", "order.Placed"]}`, fieldAmount}, []string{"order.Placed.amount: added: long, default 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changes, err := Diff(parsed(t, text("order", "Placed", c.from...)), parsed(t, text("order", "Placed", c.to...)))
			if err != nil {
				t.Fatal(err)
			}
			if got := told(changes); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// anyType draws a schema of a field; the names of types do not repeat.
func anyType(t *rapid.T, path string, depth int) string {
	kinds := []string{"int", "long", "float", "double", "string", "bytes", "boolean", "nullable", "enum", "array", "map", "record", "date"}
	if depth > 2 {
		kinds = kinds[:8]
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind of "+path); kind {
	case "nullable":
		return `["null", ` + fmt.Sprintf("%q", rapid.SampledFrom(kinds[:7]).Draw(t, "branch of "+path)) + `]`
	case "enum":
		n := rapid.IntRange(1, 3).Draw(t, "symbols of "+path)
		return fmt.Sprintf(`{"type": "enum", "name": "E%s", "symbols": [%s], "default": "A"}`, path, []string{`"A"`, `"A", "B"`, `"A", "B", "C"`}[n-1])
	case "array":
		return `{"type": "array", "items": ` + anyType(t, path+"i", depth+1) + `}`
	case "map":
		return `{"type": "map", "values": ` + anyType(t, path+"v", depth+1) + `}`
	case "record":
		return anyRecord(t, "R"+path, path, depth+1)
	case "date":
		return `{"type": "int", "logicalType": "date"}`
	default:
		return fmt.Sprintf("%q", kind)
	}
}

func anyRecord(t *rapid.T, name, path string, depth int) string {
	var fields []string
	for i := range rapid.IntRange(1, 4).Draw(t, "fields of "+path) {
		fields = append(fields, fmt.Sprintf(`{"name": "f%d", "type": %s}`, i, anyType(t, fmt.Sprintf("%s_%d", path, i), depth)))
	}
	if rapid.Bool().Draw(t, "turn "+path) {
		slices.Reverse(fields)
	}
	return fmt.Sprintf(`{"type": "record", "name": %q, "fields": [%s]}`, name, strings.Join(fields, ", "))
}

func TestDiffIsEmptyOnlyBetweenEqualsAndNamesEveryIncompatiblePlace(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := parsed(t, anyRecord(t, "order.T", "a", 0)), parsed(t, anyRecord(t, "order.T", "a", 0))
		if same, err := Diff(a, a); err != nil || len(same) > 0 {
			t.Fatalf("of itself: got %v and error %v, want none", same, err)
		}
		changes, err := Diff(a, b)
		if err != nil {
			t.Fatal(err)
		}
		if (len(changes) == 0) != SameSchema(a, b) {
			t.Fatalf("got %v between\n%s\n%s", told(changes), a.Text(), b.Text())
		}
		for _, f := range codec.CheckCompatible(b, a) {
			if !slices.ContainsFunc(changes, func(c Change) bool { return c.Path == f.Path }) {
				t.Fatalf("fault %s is at no change of %q, between\n%s\n%s", f, told(changes), a.Text(), b.Text())
			}
		}
	})
}

func FuzzDiffTakesEverySchema(f *testing.F) {
	f.Add(text("order", "Placed", fieldID), text("order", "Placed", fieldID, fieldAmount))
	f.Add(`{"type": {"type": "record", "name": "a.B", "fields": []}}`, `["null", {"type": "map", "values": "int"}]`)
	f.Add(`{"type": "error", "name": "E", "namespace": "", "fields": [{"name": "e", "type": ["null", "E"]}]}`, `"string"`)
	f.Fuzz(func(t *testing.T, a, b string) {
		from, errA := codec.Parse(a)
		to, errB := codec.Parse(b)
		if errA != nil || errB != nil {
			return
		}
		if _, err := Diff(from, to); err != nil {
			t.Errorf("%v between\n%s\n%s", err, a, b)
		}
	})
}

func compared(t *testing.T, here []Submission, registered []*codec.Registered, policy Compatibility) []string {
	t.Helper()
	differences, err := Compare(here, registered, policy)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, d := range differences {
		line := fmt.Sprintf("%s v%d %s", d.Type, d.Version, d.State)
		if d.Against > 0 {
			line += fmt.Sprintf(" against %d", d.Against)
		}
		for _, c := range d.Changes {
			line += "; " + c.Path + " " + string(c.Kind)
		}
		for _, f := range d.Backward {
			line += fmt.Sprintf("; reads not %d at %s", f.Version, f.Path)
		}
		for _, f := range d.Forward {
			line += fmt.Sprintf("; not read by %d at %s", f.Version, f.Path)
		}
		if d.Conflict != "" {
			line += "; CONFLICT " + d.Conflict
		}
		lines = append(lines, line)
	}
	return lines
}

func TestCompareTellsWhatIsNotTheSame(t *testing.T) {
	t.Parallel()
	at := func(version int, fields ...string) Submission {
		return submission("order", "Placed", version, fields...)
	}
	registered := func(submissions ...Submission) []*codec.Registered {
		var regs []*codec.Registered
		for i, s := range submissions {
			regs = append(regs, &codec.Registered{ID: int32(i + 1), Type: s.Type, Version: s.Version, Kind: s.Kind, Schema: parsed(t, s.Text)})
		}
		return regs
	}
	bare := func(s Submission) Submission {
		s.Text = strings.Replace(s.Text, `"fs.kind": "event", `, "", 1)
		return s
	}
	asText := `{"name": "id", "type": "string"}`
	asNumber := `{"name": "id", "type": "long"}`
	withDoc := `{"name": "id", "type": "string", "doc": "Which."}`
	command := at(1, asText)
	command.Kind, command.Text = event.KindCommand, strings.Replace(command.Text, `"event"`, `"command"`, 1)
	for name, c := range map[string]struct {
		here, there []Submission
		policy      Compatibility
		want        []string
	}{
		"equal":                       {[]Submission{at(1, asText)}, []Submission{at(1, asText)}, "", nil},
		"equal, the kind kept beside": {[]Submission{at(1, asText)}, []Submission{bare(at(1, asText))}, "", nil},
		"equal, the kind by mode":     {[]Submission{bare(at(1, asText))}, []Submission{at(1, asText)}, "", nil},
		"a first version":             {[]Submission{at(1, asText)}, nil, "", []string{"order.Placed v1 new"}},
		"a next version": {
			[]Submission{at(1, asText), at(2, asText, fieldAmount)},
			[]Submission{at(1, asText)}, "",
			[]string{"order.Placed v2 new against 1; order.Placed.amount added"},
		},
		"a version that cannot read": {
			[]Submission{at(1, asText), at(2, asNumber)},
			[]Submission{at(1, asText)}, "",
			[]string{"order.Placed v2 new against 1; order.Placed.id type; reads not 1 at order.Placed.id; not read by 1 at order.Placed.id; CONFLICT version 2 cannot read what an earlier one wrote, as BACKWARD_TRANSITIVE demands"},
		},
		"a version that cannot be read": {
			[]Submission{at(1, asText), at(2)},
			[]Submission{at(1, asText)}, "",
			[]string{"order.Placed v2 new against 1; order.Placed.id removed; not read by 1 at order.Placed.id"},
		},
		"not compatible, and nobody asks": {
			[]Submission{at(1, asText), at(2, asNumber)},
			[]Submission{at(1, asText)}, None,
			[]string{"order.Placed v2 new against 1; order.Placed.id type"},
		},
		"compatible with the last only": {
			[]Submission{at(1, asNumber), at(2), at(3, `{"name": "id", "type": "string", "default": ""}`)},
			[]Submission{at(1, asNumber), at(2)}, Backward,
			[]string{"order.Placed v3 new against 2; order.Placed.id added"},
		},
		"missing here": {nil, []Submission{at(1, asText), at(2, asText)}, "", []string{"order.Placed v1 missing", "order.Placed v2 missing"}},
		"missing and changed": {
			[]Submission{at(1, asText, fieldAmount)},
			[]Submission{at(1, asText), at(2, asText)}, "",
			[]string{
				"order.Placed v1 changed against 1; order.Placed.amount added; CONFLICT version 1 is registered with another text, and a version never changes: take the change back, and put it into version 3",
				"order.Placed v2 missing",
			},
		},
		"another doc":  {[]Submission{at(1, withDoc)}, []Submission{at(1, asText)}, "", []string{"order.Placed v1 doc against 1; order.Placed.id doc"}},
		"another form": {[]Submission{at(1, `{"name": "id", "type": {"type": "string"}}`)}, []Submission{at(1, asText)}, "", []string{"order.Placed v1 changed against 1; order.Placed otherForm; CONFLICT version 1 is registered with another text, and a version never changes: take the change back, and put it into version 2"}},
		"another kind": {[]Submission{command}, []Submission{at(1, asText)}, "", []string{`order.Placed v1 changed against 1; order.Placed property; CONFLICT the type is registered as kind "event", and a type's kind never changes: name a new type for kind "command"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := compared(t, c.here, registered(c.there...), c.policy); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// What Compare calls a conflict, and nothing else, is what Register refuses.
func TestCompareAndRegisterAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex()
		version := func(n int) Submission {
			return Submission{Type: "order.T", Version: n, Kind: event.KindEvent, Text: anyRecord(t, "order.T", "a", 1)}
		}
		first := version(1)
		candidates, err := parse([]Submission{first})
		if err != nil {
			return // unfit, which Compare does not look at
		}
		policy := rapid.SampledFrom([]Compatibility{BackwardTransitive, Backward, None}).Draw(t, "policy")
		p, err := makePlan(x, candidates, policy)
		if err != nil {
			t.Fatal(err)
		}
		here := []Submission{first, version(2)}
		if rapid.Bool().Draw(t, "change the first") {
			here[0] = version(1)
		}
		if candidates, err = parse(here); err != nil {
			return
		}
		for _, reg := range p.added {
			if err := x.add(reg); err != nil {
				t.Fatal(err)
			}
		}
		_, refusal := makePlan(x, candidates, policy)
		differences, err := Compare(here, p.added, policy)
		if err != nil {
			t.Fatal(err)
		}
		conflict := slices.ContainsFunc(differences, func(d Difference) bool { return d.Conflict != "" })
		if conflict != (refusal != nil) {
			t.Fatalf("compared: %+v\nregistered: %v", differences, refusal)
		}
	})
}
