package views_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/projection/declared"
	"pgregory.net/rapid"
)

// twins folds the same events into a view in Go and into its twin in YAML. Events go through
// Avro, as in the log: written from the Go types, read by each view's own.
type twins struct {
	inGo, inYAML projection.View
	written      map[string]*codec.Binding
	read         [2]map[string]*codec.Binding
	codec        *codec.Codec
}

func newTwins(t testing.TB, inGo projection.View) *twins {
	t.Helper()
	p, err := project.Load(foldstream.Project, "")
	if err != nil {
		t.Fatal(err)
	}
	var regs []*codec.Registered
	for i, s := range p.Schemas {
		regs = append(regs, &codec.Registered{ID: int32(i + 1), Type: s.Type, Version: s.Version, Kind: s.Kind, Schema: s.Schema})
	}
	file := fmt.Sprintf("../../../views/%s.v%d.yaml", inGo.Name, inGo.Version)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := &twins{inGo: inGo, codec: codec.New(codec.NewStaticReader(regs...), codec.Config{})}
	if w.inYAML, err = declared.Compile(file, text, p.ViewTypes()); err != nil {
		t.Fatal(err)
	}
	w.written = w.bind(t, inGo.Types)
	w.read = [2]map[string]*codec.Binding{w.written, w.bind(t, w.inYAML.Types)}
	return w
}

func (w *twins) bind(t testing.TB, types []codec.TypeDef) map[string]*codec.Binding {
	t.Helper()
	out := map[string]*codec.Binding{}
	for _, def := range types {
		b, err := w.codec.Bind(context.Background(), def)
		if err != nil {
			t.Fatal(err)
		}
		out[def.Name] = b
	}
	return out
}

// both returns an event as each view takes it.
func (w *twins) both(t testing.TB, e projection.Event) (inGo, inYAML projection.Event) {
	t.Helper()
	value, err := w.written[e.Type].Append(nil, e.Data)
	if err != nil {
		t.Fatal(err)
	}
	var out [2]projection.Event
	for i, bindings := range w.read {
		payload, err := w.codec.Inspect(context.Background(), e.Type, value)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = e
		if out[i].Data, err = bindings[e.Type].Decode(payload); err != nil {
			t.Fatal(err)
		}
	}
	return out[0], out[1]
}

var (
	anyID   = rapid.SampledFrom([]string{"a", "b", "c", "é", "Z"})
	anyText = rapid.SampledFrom([]string{"", "x", "Bill", "\"quoted\\\"", "<&>", "nul\x00", "ünï", "\u2028"})
	anyMap  = rapid.MapOfN(anyText, anyText, 0, 3)
	anyTags = rapid.SliceOfN(anyText, 0, 3)
)

func anyWorkflowEvent(t *rapid.T) (string, any) {
	id, text := func() string { return anyID.Draw(t, "id") }, func() string { return anyText.Draw(t, "text") }
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0:
		return "workflow.WorkflowCreated", workflow.WorkflowCreated{Name: text(), Tags: anyTags.Draw(t, "tags")}
	case 1:
		return "workflow.WorkflowUpdated", workflow.WorkflowUpdated{Name: text(), Tags: anyTags.Draw(t, "tags")}
	case 2, 3, 4:
		return "workflow.NodeAdded", workflow.NodeAdded{NodeID: id(), Kind: text(), Name: text(), Config: anyMap.Draw(t, "config")}
	case 5:
		return "workflow.NodeRemoved", workflow.NodeRemoved{NodeID: id()}
	case 6, 7:
		return "workflow.NodesConnected", workflow.NodesConnected{From: id(), To: id()}
	case 8:
		return "workflow.NodesDisconnected", workflow.NodesDisconnected{From: id(), To: id()}
	}
	return "workflow.WorkflowArchived", workflow.WorkflowArchived{Reason: text()}
}

func anyNodeEvent(t *rapid.T) (string, any) {
	return "execution.NodeRecorded", execution.NodeRecorded{
		WorkflowID: anyID.Draw(t, "workflow"), Node: anyText.Draw(t, "node"),
		Outcome:    rapid.SampledFrom([]execution.Outcome{execution.OutcomeSucceeded, execution.OutcomeFailed}).Draw(t, "outcome"),
		DurationMs: rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1000)).Draw(t, "duration"),
	}
}

func TestDeclaredViewsEqualTheirGoVersions(t *testing.T) {
	for _, c := range []struct {
		view projection.View
		draw func(*rapid.T) (string, any)
	}{{views.WorkflowList(), anyWorkflowEvent}, {views.NodeMetrics(), anyNodeEvent}} {
		t.Run(c.view.Name, func(t *testing.T) {
			w := newTwins(t, c.view)
			w.sameLayout(t)
			rapid.Check(t, func(rt *rapid.T) { w.sameRows(t, rt, c.draw) })
		})
	}
}

func (w *twins) sameLayout(t *testing.T) {
	t.Helper()
	a, b := w.inGo.Layout(), w.inYAML.Layout()
	if got, want := fmt.Sprint(b), fmt.Sprint(a); got != want {
		t.Errorf("columns: got %s, want %s", got, want)
	}
}

func (w *twins) sameRows(t *testing.T, rt *rapid.T, draw func(*rapid.T) (string, any)) {
	want, got := projection.NewTable(w.inGo), projection.NewTable(w.inYAML)
	versions := map[event.StreamID]event.Version{}
	for range rapid.IntRange(1, 40).Draw(rt, "events") {
		typ, data := draw(rt)
		stream := event.StreamID{Category: w.inGo.Categories[0], ID: rapid.SampledFrom([]string{"s1", "s2"}).Draw(rt, "stream")}
		versions[stream]++
		e := projection.Event{
			Stream: stream, Version: versions[stream], Type: typ, Data: data,
			Time: t0.Add(time.Duration(rapid.Int64Range(-1e15, 1e15).Draw(rt, "time"))),
		}
		inGo, inYAML := w.both(t, e)
		if err := want.Apply(inGo); err != nil {
			rt.Fatal(err)
		}
		if err := got.Apply(inYAML); err != nil {
			rt.Fatal(err)
		}
	}
	for _, difference := range projection.Diff(want, got) {
		rt.Errorf("%s", difference)
	}
	for stream, err := range want.Parked {
		if got.Parked[stream] == nil {
			rt.Errorf("stream %s is parked in Go alone: %v", stream, err)
		}
	}
	for stream, err := range got.Parked {
		if want.Parked[stream] == nil {
			rt.Errorf("stream %s is parked in YAML alone: %v", stream, err)
		}
	}
}

func TestTheTestsBesideTheDeclaredViewsPass(t *testing.T) {
	p, err := project.Load(foldstream.Project, "")
	if err != nil {
		t.Fatal(err)
	}
	results, err := declared.Test(context.Background(), os.DirFS("../../.."), declared.Dir, "", p.ViewTypes())
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, r := range results {
		tested[r.View] = true
		if !r.Passed() {
			t.Errorf("%s:%d: %s:\n\t%s", r.File, r.Line, r.Name, strings.Join(r.Failures, "\n\t"))
		}
	}
	for _, name := range []string{"workflow_list", "node_metrics"} {
		if !tested[name] {
			t.Errorf("view %s has no test", name)
		}
	}
}
