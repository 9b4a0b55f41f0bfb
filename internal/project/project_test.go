package project

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/foldstream/foldstream"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
)

// files makes a project's folder of pairs of path and text.
func files(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

// schema is a record with one text field; more goes before the fields.
func schema(category, name string, more ...string) string {
	return fmt.Sprintf("{\n  \"type\": \"record\", \"namespace\": %q, \"name\": %q, %s\n  \"fields\": [{\"name\": \"a\", \"type\": \"string\", \"default\": \"\"}]\n}\n",
		category, name, strings.Join(more, ", ")+strings.Repeat(",", min(len(more), 1)))
}

const appendProject = "namespace: acme\ncategories: {invoice: {mode: append}}\n"

func TestTheReferenceProjectLoads(t *testing.T) {
	t.Parallel()
	p, err := Load(foldstream.Project, "")
	if err != nil {
		t.Fatal(err)
	}
	if p.Namespace != "fs" || len(p.Categories) != 2 || p.Categories[0].Mode != topics.ModeDecider {
		t.Errorf("got namespace %s and categories %+v, want fs with workflow and execution", p.Namespace, p.Categories)
	}
	own := map[string]event.Kind{}
	for _, schema := range p.Schemas {
		own[schema.Type] = schema.Kind
	}
	for _, typ := range []string{"foldstream.Append", "foldstream.Reply", "foldstream.Snapshot", "foldstream.Checkpoint"} {
		if own[typ] != event.KindSystem {
			t.Errorf("%s is of kind %q, want %s", typ, own[typ], event.KindSystem)
		}
	}
	if err := p.Layout().Validate(); err != nil {
		t.Errorf("layout: %v", err)
	}
}

func TestSettingsAreRead(t *testing.T) {
	t.Parallel()
	p, err := Load(files(File, `
namespace: acme
schemas: ./avro/
partitions: 24
replication_factor: 3
min_insync_replicas: 2
registry: {compatibility: BACKWARD}
categories:
  invoice: {mode: append, partitions: 6, retention: 2555d, dedupe: {ids: 10, age: 90s}, snapshots: {every_events: 7, every: 2s, history_age: 90d}}
  mailer: {mode: external}
  order: {mode: decider, allow_appends: true, retention: forever}
`, "avro/invoice/Issued.v1.avsc", schema("invoice", "Issued"),
		"avro/invoice/Issued.v2.avsc", schema("invoice", "Issued", `"doc": "x"`),
		"avro/mailer/Send.v1.avsc", schema("mailer", "Send"),
		"avro/order/Placed.v1.avsc", schema("order", "Placed", `"fs.kind": "event"`),
		"avro/order/State.v1.avsc", schema("order", "State"), "avro/order/README.md", "hello"), "")
	if err != nil {
		t.Fatal(err)
	}
	want := Category{Name: "invoice", Mode: topics.ModeAppend, Partitions: 6, Retention: 2555 * 24 * time.Hour, AllowAppends: true, DedupeIDs: 10, DedupeAge: 90 * time.Second,
		Snapshots: snapshot.Settings{EveryEvents: 7, Every: 2 * time.Second, HistoryAge: 90 * 24 * time.Hour}}
	got := p.Categories[0]
	got.line = 0
	if got != want {
		t.Errorf("invoice: got %+v, want %+v", got, want)
	}
	if order := p.Categories[2]; !order.AllowAppends || order.Retention != 0 || order.DedupeIDs != DedupeIDsDefault || order.DedupeAge != DedupeAgeDefault {
		t.Errorf("order: got %+v", order)
	}
	if p.PartitionsDefault != 24 || p.ReplicationFactor != 3 || p.MinInsyncReplicas != 2 || p.Compatibility != CompatibilityBackward || p.SchemasDir != "avro" {
		t.Errorf("got %+v", p)
	}
	var kinds []string
	for _, s := range p.Schemas[:5] {
		kinds = append(kinds, fmt.Sprintf("%s.v%d=%s", s.Type, s.Version, s.Kind))
	}
	if got := fmt.Sprint(kinds); got != "[invoice.Issued.v1=event invoice.Issued.v2=event mailer.Send.v1=command order.Placed.v1=event order.State.v1=]" {
		t.Errorf("kinds by mode: got %s", got)
	}
	layout := p.Layout()
	if layout.DefaultPartitions != 24 || layout.Categories[0].Partitions != 6 || layout.Categories[1].Mode != topics.ModeExternal {
		t.Errorf("layout: got %+v", layout)
	}
}

func TestFaultsNamePlaceProblemAndRemedy(t *testing.T) {
	t.Parallel()
	issued := []string{"schemas/invoice/Issued.v1.avsc", schema("invoice", "Issued")}
	for _, c := range []struct {
		name string
		fs   fstest.MapFS
		want []string
	}{
		{"no file", files(), []string{"dir/foldstream.yaml: there is no such file"}},
		{"an empty file", files(File, ""), []string{"dir/foldstream.yaml:1: the file is empty"}},
		{"no mapping", files(File, "- a\n"), []string{"dir/foldstream.yaml:1: want a mapping, got a list"}},
		{"no YAML", files(File, "namespace: acme\n  x: {"), []string{"dir/foldstream.yaml:2: "}},
		{"two documents", files(append(issued, File, appendProject+"---\na: b\n")...), []string{"dir/foldstream.yaml:3: the file holds more than one YAML document"}},
		{"an unknown key", files(append(issued, File, appendProject+"namespac: x\n")...), []string{`dir/foldstream.yaml:3: the project: key "namespac" is unknown: did you mean namespace?`}},
		{"a key twice", files(append(issued, File, appendProject+"namespace: x\n")...), []string{`dir/foldstream.yaml:3: the project: key "namespace" stands in line 1 already`}},
		{"no namespace", files(append(issued, File, "categories: {invoice: {mode: append}}\n")...), []string{"dir/foldstream.yaml:1: namespace is missing", "namespace: acme"}},
		{"a bad namespace", files(append(issued, File, "namespace: Acme\ncategories: {invoice: {mode: append}}\n")...), []string{`dir/foldstream.yaml:1: namespace "Acme"`}},
		{"no mode", files(append(issued, File, "namespace: acme\ncategories:\n  invoice: {}\n")...), []string{"dir/foldstream.yaml:3: category invoice: mode is missing", "append"}},
		{"a mistyped mode", files(append(issued, File, "namespace: acme\ncategories:\n  invoice: {mode: apend}\n")...), []string{`dir/foldstream.yaml:3: category invoice.mode: "apend" is unknown`, "did you mean append?"}},
		{"a reserved name", files(File, "namespace: acme\ncategories:\n  replies: {mode: external}\n", "schemas/x", ""), []string{`dir/foldstream.yaml:3: category "replies"`, "reserved"}},
		{"bad numbers", files(append(issued, File, "namespace: acme\npartitions: 0\nreplication_factor: many\ncategories: {invoice: {mode: append, retention: 3, dedupe: {ids: -1, age: 48h}, snapshots: {every_events: 0, every: soon, history: 5}}}\n")...), []string{
			`dir/foldstream.yaml:2: partitions: got "0"`, `dir/foldstream.yaml:3: replication_factor: got "many"`,
			`dir/foldstream.yaml:4: category invoice.retention: got "3"`, "dedupe.ids", "dedupe.age", "snapshots.every_events", "snapshots.every: got", "history"}},
		{"replicas that cannot be", files(append(issued, File, appendProject+"replication_factor: 1\nmin_insync_replicas: 2\n")...), []string{"min_insync_replicas 2 is above replication_factor 1"}},
		{"appends allowed where they are the rule", files(append(issued, File, "namespace: acme\ncategories:\n  invoice:\n    mode: append\n    allow_appends: true\n")...), []string{"dir/foldstream.yaml:5: category invoice: allow_appends is for mode decider"}},
		{"a folder outside", files(append(issued, File, appendProject+"schemas: ../x\n")...), []string{`dir/foldstream.yaml:3: schemas: "../x" is no folder inside the project`}},
		{"no schemas at all", files(File, appendProject), []string{"dir/schemas: the folder of the schemas is not there"}},
		{"a category without schemas", files(File, appendProject, "schemas/README", ""), []string{"dir/foldstream.yaml:2: category invoice has no schema"}},
		{"a folder of no category", files(append(issued, File, appendProject, "schemas/invoices/X.v1.avsc", schema("invoices", "X"))...), []string{"dir/schemas/invoices: the folder is named for a category that the project does not have", "did you mean invoice?"}},
		{"a schema outside its folder", files(append(issued, File, appendProject, "schemas/X.v1.avsc", "{}")...), []string{"dir/schemas/X.v1.avsc: a schema lies in the folder of its category"}},
		{"a file name without a version", files(append(issued, File, appendProject, "schemas/invoice/Paid.avsc", "{}")...), []string{"dir/schemas/invoice/Paid.avsc: the file's name does not say type and version"}},
		{"a record of another name", files(File, appendProject, "schemas/invoice/Issued.v1.avsc", schema("invoice", "Paid")), []string{"dir/schemas/invoice/Issued.v1.avsc:2: the schema is of type invoice.Paid, but folder and file say invoice.Issued"}},
		{"no schema", files(File, appendProject, "schemas/invoice/Issued.v1.avsc", "{"), []string{"dir/schemas/invoice/Issued.v1.avsc"}},
		{"a gap in the versions", files(append(issued, File, appendProject, "schemas/invoice/Issued.v3.avsc", schema("invoice", "Issued"))...), []string{"dir/schemas/invoice/Issued.v3.avsc: version 3 of invoice.Issued follows version 1", "rename it to v2"}},
		{"a kind that the mode has not", files(File, appendProject, "schemas/invoice/Issued.v1.avsc", schema("invoice", "Issued", `"fs.kind": "command"`)), []string{`dir/schemas/invoice/Issued.v1.avsc:2: fs.kind "command" is not for a category of mode append`}},
		{"Foldstream's own folder", files(append(issued, File, appendProject, "schemas/foldstream/Mine.v1.avsc", schema("foldstream", "Mine"))...), []string{"dir/schemas/foldstream/Mine.v1.avsc: the folder foldstream is reserved"}},
		{"sagas in files", files(append(issued, File, appendProject, "sagas/x.v1.yaml", "saga: x")...), []string{"dir/sagas/x.v1.yaml", "this version does not read sagas from files"}},
		{"a view at fault", files(append(issued, File, appendProject, "views/x.v1.yaml", "view: x\nversion: 1\ncolumns: {total: bigint}\non: {invoice.Isued: {set: {total: 1}}}")...), []string{`dir/views/x.v1.yaml:4:6: event type "invoice.Isued" has no schema: did you mean invoice.Issued?`}},
		{"several faults", files(File, "namespace: Acme\ncategories:\n  a: {mode: x}\n  B: {mode: append}\n", "schemas/c/X.v1.avsc", "{}"), []string{
			"yaml:1: ", "yaml:3: ", "yaml:4: ", "schemas/c: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(c.fs, "dir")
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got\n%v\nwant an error with %q", err, want)
				}
			}
		})
	}
}

func TestFaultsAreBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("namespace: acme\ncategories:\n")
	for i := range 3 * faultsMax {
		fmt.Fprintf(&text, "  c%d: {mode: nope}\n", i)
	}
	_, err := Load(files(File, text.String(), "schemas/x", ""), "")
	if lines := strings.Count(err.Error(), "\n") + 1; lines != faultsMax+1 || !strings.Contains(err.Error(), "and 200 more faults") {
		t.Errorf("got %d lines, want %d and the number left out:\n%.200s", lines, faultsMax+1, err)
	}
}

func TestLoadRefusesAFileThatIsTooLarge(t *testing.T) {
	t.Parallel()
	if _, err := Load(files(File, strings.Repeat("#", fileBytesMax+1)), ""); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// The Go side of a decider's category.
type (
	place  struct{}
	placed struct{}
	state  struct{}
)

func orders(version int, types ...string) decider.Definition {
	d := decider.Spec[state]{
		Category: "order", StateVersion: 1,
		Decide: func(state, decider.Message) (decider.Decision, error) { return decider.Emit() },
		Evolve: func(s state, _ decider.Message) state { return s },
	}
	if slices.Contains(types, "Place") {
		d.Types = append(d.Types, decider.Command[place]("order.Place", version))
	}
	if slices.Contains(types, "Placed") {
		d.Types = append(d.Types, decider.Event[placed]("order.Placed", 1))
	}
	return d.Definition()
}

func deciderProject(t *testing.T, more ...string) *Project {
	t.Helper()
	p, err := Load(files(append([]string{File, "namespace: acme\ncategories: {order: {mode: decider}, note: {mode: append}}\n",
		"schemas/order/Place.v1.avsc", schema("order", "Place"), "schemas/order/Placed.v1.avsc", schema("order", "Placed"),
		"schemas/note/Made.v1.avsc", schema("note", "Made")}, more...)...), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var withState = []string{"schemas/order/State.v1.avsc", schema("order", "State")}

func TestResolveFillsInTheKindsOfADecidersTypes(t *testing.T) {
	t.Parallel()
	p := deciderProject(t, withState...)
	r, err := p.Resolve([]decider.Definition{orders(1, "Place", "Placed")})
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]event.Kind{"order.Place": event.KindCommand, "order.Placed": event.KindEvent, "order.State": event.KindState, "note.Made": event.KindEvent} {
		if s, _ := r.Schema(typ, 1); s.Kind != want {
			t.Errorf("%s: got kind %q, want %q", typ, s.Kind, want)
		}
	}
	if s, _ := p.Schema("order.Place", 1); s.Kind != "" {
		t.Errorf("the project itself was changed: %s is %q", s.Type, s.Kind)
	}
}

func TestResolveRefusesWhatDoesNotAgree(t *testing.T) {
	t.Parallel()
	other := orders(1, "Place", "Placed")
	other.Category, other.Types = "note", nil
	unknown := other
	unknown.Category = "nope"
	for _, c := range []struct {
		name string
		more []string
		defs []decider.Definition
		want string
	}{
		{"a category without its decider", withState, nil, "category order is in mode decider, but this program has no decider for it"},
		{"a decider of no category", withState, []decider.Definition{unknown}, `decides category "nope", which foldstream.yaml does not have`},
		{"a decider of another mode", withState, []decider.Definition{other}, `decides category "note", which is in mode append`},
		{"two deciders of one category", withState, []decider.Definition{orders(1, "Place", "Placed"), orders(1, "Place", "Placed")}, `two deciders of category "order"`},
		{"a Go type without its schema", withState, []decider.Definition{orders(2, "Place", "Placed")}, "bound to version 2 of order.Place, which has no schema: add schemas/order/Place.v2.avsc"},
		{"no state schema", nil, []decider.Definition{orders(1, "Place", "Placed")}, "the state is bound to version 1 of order.State, which has no schema: add schemas/order/State.v1.avsc"},
		{"a schema without its Go type", withState, []decider.Definition{orders(1, "Place")}, "no decider of this program registers order.Placed"},
		{"kinds that disagree", append([]string{"schemas/order/Placed.v1.avsc", schema("order", "Placed", `"fs.kind": "command"`)}, withState...),
			[]decider.Definition{orders(1, "Place", "Placed")}, "the schema says that order.Placed is of kind command, the program registers it as event"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := deciderProject(t, c.more...).Resolve(c.defs)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{appendProject, "a: &x {b: *x}", "namespace: [1]\ncategories: 3", "registry: null", "? {a: b}\n: c", "categories: {<<: {a: b}}", "\xff", "--- ---"} {
		f.Add(seed, schema("invoice", "Issued"))
	}
	f.Fuzz(func(t *testing.T, project, avsc string) {
		p, err := Load(files(File, project, "schemas/invoice/Issued.v1.avsc", avsc), "")
		if (p == nil) == (err == nil) {
			t.Errorf("got %v and %v, want one of them", p, err)
		}
		if err == nil {
			if err := p.Layout().Validate(); err != nil {
				t.Errorf("a project that loads has a bad layout: %v", err)
			}
		}
	})
}

func TestDeclaredViewsBelongToTheProject(t *testing.T) {
	t.Parallel()
	view := "view: totals\nversion: 1\ncolumns: {total: bigint}\non: {invoice.Issued: {set: {total: event.total}}}"
	p, err := Load(files("schemas/invoice/Issued.v1.avsc", `{"type": "record", "namespace": "invoice", "name": "Issued", "fields": [{"name": "total", "type": "long"}]}`, File, appendProject, "views/totals.v1.yaml", view, "views/totals.v1.test.yaml", "tests: []", "views/README.md", "words"), "dir")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Views) != 1 || p.Views[0].Name != "totals" {
		t.Errorf("got %d views, want totals", len(p.Views))
	}
}

func TestDeclaredViewsReadOldEventsByTheDecidersUpcasters(t *testing.T) {
	t.Parallel()
	text := func(fields string) string {
		return `{"type": "record", "namespace": "invoice", "name": "Issued", "fs.kind": "event", "fields": [` + fields + `]}`
	}
	p, err := Load(files(
		File, "namespace: acme\ncategories: {invoice: {mode: decider}}\n",
		"schemas/invoice/Issued.v1.avsc", text(`{"name": "total", "type": "long"}`),
		"schemas/invoice/Issued.v2.avsc", text(`{"name": "total", "type": "long"}, {"name": "tax", "type": "long", "default": 0}`),
		"views/totals.v1.yaml", "view: totals\nversion: 1\ncolumns: {tax: bigint}\non: {invoice.Issued: {set: {tax: event.tax}}}",
		"views/old.v1.yaml", "view: old\nversion: 1\ncolumns: {total: bigint}\non: {invoice.Issued@1: {set: {total: event.total}}}",
	), "")
	if err != nil {
		t.Fatal(err)
	}
	upcast := func(m map[string]any) (map[string]any, error) { return m, nil }
	resolved, _ := p.Resolve([]decider.Definition{{Category: "invoice", Types: []codec.TypeDef{
		{Name: "invoice.Issued", Version: 2, Kind: event.KindEvent, Upcasters: map[int]codec.Upcaster{1: upcast}},
	}}})
	for i, want := range map[string]int{"old": 0, "totals": 1} {
		at := slices.IndexFunc(resolved.Views, func(v projection.View) bool { return v.Name == i })
		if got := len(resolved.Views[at].Types[0].Upcasters); got != want {
			t.Errorf("view %s: got %d upcasters, want %d", i, got, want)
		}
	}
	if p.Views[0].Types[0].Upcasters != nil || p.Views[1].Types[0].Upcasters != nil {
		t.Error("Resolve changed the project that it was asked of")
	}
}
