// Package domain_test holds the golden records: one record of every version of every event and
// state that was ever written. What stands in a log stands there for good, so each must decode
// with today's types, to what it meant.
package domain_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
)

var writeMissing = flag.Bool("golden.write", false, "write golden records for versions that have none; existing ones are never changed")

const goldenDir = "testdata/golden"

var deciders = []decider.Definition{workflow.Decider.Definition(), execution.Decider.Definition()}

var at = time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)

// samples are values of the current version of each type, with every field set. They are used
// once, when a version is new.
var samples = []any{
	workflow.WorkflowCreated{Name: "Invoices ü", Tags: []string{"finance", "north"}},
	workflow.WorkflowUpdated{Name: "Bills", Tags: []string{"finance"}},
	workflow.NodeAdded{NodeID: "enter", Kind: "task", Name: "Enter the invoice", Config: map[string]string{"queue": "north"}},
	workflow.NodeRemoved{NodeID: "enter"},
	workflow.NodesConnected{From: "enter", To: "check"},
	workflow.NodesDisconnected{From: "enter", To: "check"},
	workflow.WorkflowArchived{Reason: "replaced"},
	workflow.State{
		Status: workflow.StatusActive, Name: "Invoices ü", Tags: []string{"finance"}, Nodes: []string{"enter", "check"},
		Connections: []workflow.Connection{{From: "enter", To: "check"}},
	},
	execution.ExecutionStarted{WorkflowID: "invoices", Input: map[string]string{"invoice": "17"}},
	execution.NodeRecorded{
		WorkflowID: "invoices", Node: "enter", Outcome: execution.OutcomeFailed, DurationMs: 1234567890123,
		Attributes: map[string]string{"resource": "Ann"},
	},
	execution.ExecutionCompleted{
		WorkflowID: "invoices", StartedAt: at, DurationMs: 60000, NodesExecuted: 3, NodesFailed: 1, Output: map[string]string{"paid": "yes"},
	},
	execution.ExecutionFailed{WorkflowID: "invoices", StartedAt: at, DurationMs: 60000, NodesExecuted: 3, NodesFailed: 2, Reason: "no money"},
	execution.ExecutionCancelled{WorkflowID: "invoices", StartedAt: at, DurationMs: 60000, NodesExecuted: 3, NodesFailed: 2, Reason: "withdrawn"},
	execution.State{
		Status: execution.StatusRunning, WorkflowID: "invoices", StartedAt: at, LastAt: at.Add(time.Minute), NodesExecuted: 3, NodesFailed: 1,
	},
}

func TestGoldenRecordsDecodeToWhatTheyMeant(t *testing.T) {
	w := newWorld(t)
	for _, def := range w.defs {
		for version := 1; version <= def.Version; version++ {
			t.Run(fmt.Sprintf("%s.v%d", def.Name, version), func(t *testing.T) {
				if *writeMissing && version == def.Version {
					w.write(t, def)
				}
				w.check(t, def, version)
			})
		}
	}
}

func TestNoTypeWithGoldenRecordsIsGone(t *testing.T) {
	w := newWorld(t)
	files, err := filepath.Glob(filepath.Join(goldenDir, "*.hex"))
	if err != nil || len(files) < len(w.defs) {
		t.Fatalf("got %d golden records (%v), want at least %d", len(files), err, len(w.defs))
	}
	for _, file := range files {
		base := strings.TrimSuffix(filepath.Base(file), ".hex")
		known := slices.ContainsFunc(w.defs, func(def codec.TypeDef) bool {
			for version := 1; version <= def.Version; version++ {
				if base == fmt.Sprintf("%s.v%d", def.Name, version) {
					return true
				}
			}
			return false
		})
		if !known {
			t.Errorf("%s is a golden record of no registered version: a log may hold such records, so the type must stay", file)
		}
	}
}

// world is the codec with every schema of the domain, and what is bound to them.
type world struct {
	codec    *codec.Codec
	defs     []codec.TypeDef // of events and states
	bindings map[string]*codec.Binding
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{bindings: map[string]*codec.Binding{}}
	var registered []*codec.Registered
	for _, d := range deciders {
		w.defs = append(w.defs, codec.TypeDef{
			Name: decider.StateType(d.Category), Version: d.StateVersion, Kind: event.KindState, GoType: d.StateType,
		})
		for _, def := range d.Types {
			if def.Kind == event.KindEvent {
				w.defs = append(w.defs, def)
			}
		}
	}
	for _, def := range w.defs {
		for version := 1; version <= def.Version; version++ {
			registered = append(registered, register(t, def, version, int32(len(registered)+1)))
		}
	}
	w.codec = codec.New(codec.NewStaticReader(registered...), codec.Config{})
	for _, def := range w.defs {
		binding, err := w.codec.Bind(context.Background(), def)
		if err != nil {
			t.Fatalf("bind %s: %v", def.Name, err)
		}
		w.bindings[def.Name] = binding
	}
	return w
}

func register(t *testing.T, def codec.TypeDef, version int, id int32) *codec.Registered {
	t.Helper()
	path := fmt.Sprintf("%s.v%d.avsc", strings.Replace(def.Name, ".", "/", 1), version)
	text, err := avro.Files.ReadFile(path)
	if err != nil {
		t.Fatalf("schema of %s: %v", def.Name, err)
	}
	reg, err := codec.RegisterText(id, def.Name, version, def.Kind, string(text))
	if err != nil {
		t.Fatalf("schema %s: %v", path, err)
	}
	return reg
}

func goldenPath(typ string, version int, ext string) string {
	return filepath.Join(goldenDir, fmt.Sprintf("%s.v%d.%s", typ, version, ext))
}

// check decodes one golden record and compares what today's schema makes of it with the JSON
// beside it.
func (w *world) check(t *testing.T, def codec.TypeDef, version int) {
	t.Helper()
	path := goldenPath(def.Name, version, "hex")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("no golden record of %s version %d: add a value to samples and run this test with -golden.write (%v)", def.Name, version, err)
	}
	value, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	payload, err := w.codec.Inspect(context.Background(), def.Name, value)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if payload.Registered.Version != version {
		t.Errorf("%s is written with version %d, want %d", path, payload.Registered.Version, version)
	}
	if err := codec.SecondOpinion(payload.Registered.Schema, payload.Body); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	decoded, err := w.bindings[def.Name].Decode(payload)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	want, err := os.ReadFile(goldenPath(def.Name, version, "json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.meaning(t, def, decoded); got != string(want) {
		t.Errorf("%s\ngot  %s\nwant %s", path, got, want)
	}
}

// meaning is a value as JSON under the names of today's schema.
func (w *world) meaning(t *testing.T, def codec.TypeDef, value any) string {
	t.Helper()
	framed, err := w.bindings[def.Name].Append(nil, value)
	if err != nil {
		t.Fatalf("encode %s: %v", def.Name, err)
	}
	payload, err := w.codec.Inspect(context.Background(), def.Name, framed)
	if err != nil {
		t.Fatalf("inspect %s: %v", def.Name, err)
	}
	fields, err := w.codec.DecodeMap(payload)
	if err != nil {
		t.Fatalf("decode %s: %v", def.Name, err)
	}
	text, err := json.MarshalIndent(fields, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n"
}

// write makes a golden record where there is none. It is framed by the schema's fingerprint,
// since framing ids belong to one registry.
func (w *world) write(t *testing.T, def codec.TypeDef) {
	t.Helper()
	path := goldenPath(def.Name, def.Version, "hex")
	if _, err := os.Stat(path); err == nil {
		return
	}
	i := slices.IndexFunc(samples, func(v any) bool { return reflect.TypeOf(v) == def.GoType })
	if i < 0 {
		t.Fatalf("no sample of %s", def.Name)
	}
	binding := w.bindings[def.Name]
	framed, err := binding.Append(nil, samples[i])
	if err != nil {
		t.Fatal(err)
	}
	value := codec.AppendSingleObject(nil, binding.Registered().Schema.Fingerprint())
	value = append(value, framed[codec.ConfluentHeaderBytes:]...)
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		path: hex.EncodeToString(value) + "\n",
		goldenPath(def.Name, def.Version, "json"): w.meaning(t, def, samples[i]),
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
