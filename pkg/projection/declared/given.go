package declared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"go.yaml.in/yaml/v3"
)

// Limits of a file of tests.
const (
	TestsMax      = 500
	TestEventsMax = 1_000 // of one test
	testRowsMax   = 1_000
)

// Result is what came of one test.
type Result struct {
	File    string
	Line    int
	View    string
	Version int
	Name    string
	// Failures say what differs; none: the test passed.
	Failures []string
}

// Passed says whether nothing differed.
func (r Result) Passed() bool { return len(r.Failures) == 0 }

// Test runs every <view>.v<version>.test.yaml of a folder against the view beside it: given
// events, then rows. Events go through Avro, as in the log. The error joins one *Fault for each
// thing that is wrong with a view or a test; then no test is run.
//
//	tests:
//	  - name: an invoice is paid
//	    given:
//	      - {type: invoice.Issued, stream: i-1, data: {total: 300}}
//	      - {type: invoice.Paid, stream: i-1, time: 2026-03-01T09:30:00Z}
//	    then:
//	      - {id: i-1, total: 300, status: paid}
//	    parked: {i-2: "no row yet"}
//
// The rows are all of the view's, in the order of their keys; columns left out are not compared.
// Events without a time are a minute apart, from 2000-01-01T00:00:00Z; versions count from 1 in
// each stream. A stream of the only category is named by its id, others by category/id.
func Test(ctx context.Context, fsys fs.FS, dir, label string, types *Types) ([]Result, error) {
	views, err := Load(fsys, dir, label, types)
	if err != nil {
		return nil, err
	}
	names, err := files(fsys, dir)
	if err != nil {
		return nil, err
	}
	var suites []*suite
	var wrong []error
	for _, view := range views {
		name := fmt.Sprintf("%s.v%d%s", view.Name, view.Version, testSuffix)
		if !slices.Contains(names, name) {
			continue
		}
		s, err := readSuite(fsys, path.Join(dir, name), path.Join(label, dir, name), view)
		suites, wrong = append(suites, s), append(wrong, err)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	world := newTestWorld(types)
	var results []Result
	for _, s := range suites {
		done, err := world.run(ctx, s)
		if err != nil {
			return nil, err
		}
		results = append(results, done...)
	}
	return results, nil
}

// suite is one file of tests.
type suite struct {
	*faults
	view  projection.View
	tests []testDef
}

type testDef struct {
	at     position
	name   string
	given  []givenDef
	then   []map[string]thenValue
	parked map[string]string
}

type givenDef struct {
	at      position
	typ     text
	version int // of the schema; 0: the one that the view reads
	stream  event.StreamID
	event   projection.Event
	data    string // JSON
}

type thenValue struct {
	at   position
	text string // canonical
}

func readSuite(fsys fs.FS, name, label string, view projection.View) (*suite, error) {
	s := &suite{faults: &faults{file: label}, view: view}
	body, err := readFile(fsys, name)
	if err != nil {
		return nil, &Fault{File: label, Problem: err.Error()}
	}
	s.read(body)
	return s, s.err()
}

func (s *suite) read(body []byte) {
	r := &reader{faults: s.faults}
	root, ok := r.root(body)
	if !ok {
		return
	}
	r.mapping(root, "the tests", setting{"tests", func(v *yaml.Node) {
		if v.Kind != yaml.SequenceNode || len(v.Content) > TestsMax {
			r.add(at(v), "write a list of {name, given, then}", "tests: want a list of at most %d, got %s", TestsMax, kindOf(v))
			return
		}
		for _, item := range v.Content {
			s.tests = append(s.tests, s.test(r, deref(item)))
		}
	}})
}

func (s *suite) test(r *reader, n *yaml.Node) testDef {
	t := testDef{at: at(n), parked: map[string]string{}}
	r.mapping(n, "test",
		setting{"name", func(v *yaml.Node) { t.name = r.word(v, "name").value }},
		setting{"given", func(v *yaml.Node) { t.given = s.given(r, v) }},
		setting{"then", func(v *yaml.Node) { t.then = s.then(r, v) }},
		setting{"parked", func(v *yaml.Node) {
			for _, p := range r.pairs(v, "parked") {
				t.parked[s.stream(p.key.value, "").String()] = r.word(p.value, "parked "+p.key.value).value
			}
		}})
	if t.name == "" && !r.full() {
		r.add(t.at, "add `name: …`", "a test has no name")
	}
	return t
}

var testBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *suite) given(r *reader, n *yaml.Node) []givenDef {
	if n.Kind != yaml.SequenceNode || len(n.Content) > TestEventsMax {
		r.add(at(n), "write a list of {type, stream, data}", "given: want a list of at most %d, got %s", TestEventsMax, kindOf(n))
		return nil
	}
	var out []givenDef
	last := map[event.StreamID]event.Version{}
	for i, item := range n.Content {
		g := s.oneGiven(r, deref(item), testBegin.Add(time.Duration(i)*time.Minute))
		if g.event.Version == 0 {
			g.event.Version = last[g.stream] + 1
		}
		last[g.stream] = g.event.Version
		if g.event.ID == "" {
			g.event.ID = fmt.Sprintf("%s@%d", g.stream, g.event.Version)
		}
		out = append(out, g)
	}
	return out
}

func (s *suite) oneGiven(r *reader, n *yaml.Node, when time.Time) givenDef {
	g := givenDef{at: at(n), data: "{}", event: projection.Event{Time: when}}
	var stream string
	word := func(name string, into *string) setting {
		return setting{name, func(v *yaml.Node) { *into = r.word(v, name).value }}
	}
	r.mapping(n, "given",
		setting{"type", func(v *yaml.Node) { g.typ = r.word(v, "type") }},
		setting{"schema", func(v *yaml.Node) { g.version = r.integer(v, "schema", versionMax) }},
		word("stream", &stream), word("id", &g.event.ID), word("correlation", &g.event.CorrelationID),
		word("causation", &g.event.CausationID), word("user", &g.event.UserID),
		setting{"version", func(v *yaml.Node) { g.event.Version = event.Version(r.integer(v, "version", 1_000_000_000)) }},
		setting{"time", func(v *yaml.Node) { g.event.Time = s.time(r, v) }},
		setting{"data", func(v *yaml.Node) { g.data = s.json(r, v, "data") }})
	switch {
	case g.typ.value == "" || stream == "":
		r.add(g.at, "write {type: …, stream: …, data: {…}}", "an event needs a type and a stream")
	default:
		category, _, _ := strings.Cut(g.typ.value, ".")
		g.stream = s.stream(stream, category)
		g.event.Type, g.event.Stream = g.typ.value, g.stream
	}
	return g
}

// stream reads category/id, or the id alone.
func (s *suite) stream(name, category string) event.StreamID {
	for _, c := range s.view.Categories {
		if id, found := strings.CutPrefix(name, c+"/"); found {
			return event.StreamID{Category: c, ID: id}
		}
	}
	if category == "" {
		category = s.view.Categories[0]
	}
	return event.StreamID{Category: category, ID: name}
}

func (s *suite) time(r *reader, n *yaml.Node) time.Time {
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		r.add(at(n), "write 2026-03-01T09:30:00Z", "time: want RFC 3339, got %s", kindOf(n))
	}
	return t.UTC().Truncate(time.Microsecond)
}

func (s *suite) then(r *reader, n *yaml.Node) []map[string]thenValue {
	if n.Kind != yaml.SequenceNode || len(n.Content) > testRowsMax {
		r.add(at(n), "write a list of rows, [] for none", "then: want a list of at most %d, got %s", testRowsMax, kindOf(n))
		return nil
	}
	layout := s.view.Layout()
	var names []string
	for _, c := range layout {
		names = append(names, c.Name)
	}
	var rows []map[string]thenValue
	for _, item := range n.Content {
		row := map[string]thenValue{}
		for _, p := range r.pairs(deref(item), "then") {
			i := slices.Index(names, p.key.value)
			if i < 0 {
				r.add(p.key.at, didYouMean(p.key.value, names), "the view has no column %s", quoteShort(p.key.value))
				continue
			}
			row[p.key.value] = thenValue{p.key.at, s.expected(r, p.value, layout[i])}
		}
		rows = append(rows, row)
	}
	return rows
}

// expected is the canonical text of a value in YAML.
func (s *suite) expected(r *reader, n *yaml.Node, c projection.Column) string {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		switch c.Wire {
		case "text":
			text, _ := json.Marshal(n.Value)
			return string(projection.JSON(text).Canonical())
		case "timestamptz":
			return shown(s.time(r, n))
		}
	}
	return string(projection.JSON(s.json(r, n, c.Name)).Canonical())
}

// shown is a stored value's canonical text.
func shown(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case projection.JSON:
		return string(v.Canonical())
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(projection.JSON(text).Canonical())
}

const (
	dataDepthMax = 64
	dataNodesMax = 100_000
)

// json turns YAML into JSON.
func (s *suite) json(r *reader, n *yaml.Node, what string) string {
	nodes := 0
	out, err := appendYAML(nil, n, dataDepthMax, &nodes)
	if err != nil {
		r.add(at(n), "", "%s: %v", what, err)
		return "null"
	}
	return string(out)
}

func appendYAML(dst []byte, n *yaml.Node, depthLeft int, nodes *int) ([]byte, error) {
	n = deref(n)
	if *nodes++; depthLeft == 0 || *nodes > dataNodesMax {
		return nil, fmt.Errorf("it nests deeper than %d or has more than %d values", dataDepthMax, dataNodesMax)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		return appendSeries(dst, '[', ']', len(n.Content), func(dst []byte, i int) ([]byte, error) {
			return appendYAML(dst, n.Content[i], depthLeft-1, nodes)
		})
	case yaml.MappingNode:
		return appendSeries(dst, '{', '}', len(n.Content)/2, func(dst []byte, i int) ([]byte, error) {
			key, err := json.Marshal(deref(n.Content[2*i]).Value)
			if err != nil {
				return nil, err
			}
			return appendYAML(append(append(dst, key...), ':'), n.Content[2*i+1], depthLeft-1, nodes)
		})
	}
	var v any
	if n.Tag == "!!timestamp" {
		v = n.Value // a date stays the text that was written
	} else if err := n.Decode(&v); err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	return append(dst, text...), err
}

// testWorld writes events as the log would.
type testWorld struct {
	types *Types
	codec *codec.Codec
}

func newTestWorld(types *Types) *testWorld {
	var regs []*codec.Registered
	for _, name := range slices.Sorted(maps.Keys(types.byName)) {
		for _, t := range types.byName[name] {
			regs = append(regs, &codec.Registered{ID: int32(len(regs) + 1), Type: t.Name, Version: t.Version, Kind: event.KindEvent, Schema: t.Schema})
		}
	}
	return &testWorld{types: types, codec: codec.New(codec.NewStaticReader(regs...), codec.Config{})}
}

func (w *testWorld) run(ctx context.Context, s *suite) ([]Result, error) {
	bindings := map[string]*codec.Binding{}
	for _, def := range s.view.Types {
		b, err := w.codec.Bind(ctx, def)
		if err != nil {
			return nil, fmt.Errorf("view %s: %w", s.view.Name, err)
		}
		bindings[def.Name] = b
	}
	var out []Result
	for _, t := range s.tests {
		r := Result{File: s.file, Line: t.at.line, View: s.view.Name, Version: s.view.Version, Name: t.name}
		events, err := w.events(ctx, s, t, bindings)
		if err != nil {
			r.Failures = []string{err.Error()}
		} else {
			r.Failures = s.compare(t, events)
		}
		out = append(out, r)
	}
	return out, nil
}

func (w *testWorld) events(ctx context.Context, s *suite, t testDef, bindings map[string]*codec.Binding) ([]projection.Event, error) {
	var out []projection.Event
	for i, g := range t.given {
		def, folded := s.view.TypeDef(g.typ.value)
		version := g.version
		if version == 0 {
			version = def.Version
		}
		found, known := w.types.find(g.typ.value, version)
		if !known {
			return nil, fmt.Errorf("line %d, event %d: type %s has no schema of version %d; %s", g.at.line, i+1, g.typ.value, version, didYouMean(g.typ.value, w.types.events()))
		}
		e := g.event
		if folded {
			data, err := w.decode(ctx, found, g.data, bindings[g.typ.value])
			if err != nil {
				return nil, fmt.Errorf("line %d, event %d (%s): %w", g.at.line, i+1, g.typ.value, err)
			}
			e.Data = data
		}
		out = append(out, e)
	}
	return out, nil
}

func (w *testWorld) decode(ctx context.Context, t Type, data string, b *codec.Binding) (any, error) {
	reg, err := w.reader(ctx, t)
	if err != nil {
		return nil, err
	}
	value, err := w.codec.EncodeJSON(codec.AppendConfluent(nil, reg.ID), reg, []byte(data))
	if err != nil {
		return nil, err
	}
	payload, err := w.codec.Inspect(ctx, t.Name, value)
	if err != nil {
		return nil, err
	}
	return b.Decode(payload)
}

func (w *testWorld) reader(ctx context.Context, t Type) (*codec.Registered, error) {
	b, err := w.codec.Bind(ctx, codec.TypeDef{Name: t.Name, Version: t.Version})
	if err != nil {
		return nil, err
	}
	return b.Registered(), nil
}

func (s *suite) compare(t testDef, events []projection.Event) []string {
	table, err := projection.Fold(s.view, events...)
	if err != nil {
		return []string{err.Error()}
	}
	var out []string
	for stream, err := range table.Parked {
		part, expected := t.parked[stream.String()]
		if !expected || !strings.Contains(err.Error(), part) {
			out = append(out, fmt.Sprintf("stream %s is parked: %v", stream, err))
		}
		delete(t.parked, stream.String())
	}
	for _, stream := range slices.Sorted(maps.Keys(t.parked)) {
		out = append(out, fmt.Sprintf("stream %s is not parked", stream))
	}
	slices.Sort(out)
	rows := table.Sorted()
	if len(rows) != len(t.then) {
		return append(out, fmt.Sprintf("got %d rows, want %d: %v", len(rows), len(t.then), rows))
	}
	for i, row := range rows {
		for at, c := range s.view.Layout() {
			want, named := t.then[i][c.Name]
			if got := shown(row[at]); named && got != want.text {
				out = append(out, fmt.Sprintf("line %d, row %d, column %s: got %s, want %s", want.at.line, i+1, c.Name, got, want.text))
			}
		}
	}
	return out
}
