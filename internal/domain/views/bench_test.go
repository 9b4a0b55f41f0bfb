package views_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// BenchmarkFold compares a view in YAML with the same one in Go, as a projector runs them: each
// event is decoded, and a batch folds the ten of a stream before its row is read.
//
//	go test -run '^$' -bench Fold ./internal/domain/views
func BenchmarkFold(b *testing.B) {
	for _, c := range []struct {
		view   projection.View
		events []any
	}{{views.WorkflowList(), workflowLife()}, {views.NodeMetrics(), nodeLife()}} {
		w := newTwins(b, c.view)
		for i, language := range []string{"go", "yaml"} {
			b.Run(fmt.Sprintf("%s/%s/decode", c.view.Name, language), func(b *testing.B) { w.bench(b, i, c.events, true) })
			b.Run(fmt.Sprintf("%s/%s/fold", c.view.Name, language), func(b *testing.B) { w.bench(b, i, c.events, false) })
		}
	}
}

func workflowLife() []any {
	return []any{
		workflow.WorkflowCreated{Name: "Bill the customers", Tags: []string{"billing", "monthly"}},
		workflow.NodeAdded{NodeID: "n2", Kind: "task", Name: "Send the bills", Config: map[string]string{"queue": "mail", "retries": "3"}},
		workflow.NodeAdded{NodeID: "n1", Kind: "task", Name: "Read the orders", Config: map[string]string{"source": "orders"}},
		workflow.NodeAdded{NodeID: "n3", Kind: "timer", Name: "Wait a week"},
		workflow.NodesConnected{From: "n1", To: "n2"},
		workflow.NodesConnected{From: "n2", To: "n3"},
		workflow.NodesDisconnected{From: "n2", To: "n3"},
		workflow.NodeRemoved{NodeID: "n3"},
		workflow.WorkflowUpdated{Name: "Bill all customers", Tags: []string{"billing"}},
		workflow.WorkflowArchived{Reason: "replaced"},
	}
}

func nodeLife() []any {
	var out []any
	for i := range 10 {
		outcome := execution.OutcomeSucceeded
		if i%4 == 0 {
			outcome = execution.OutcomeFailed
		}
		out = append(out, execution.NodeRecorded{
			WorkflowID: "w-1", Node: fmt.Sprintf("n%d", i%3), Outcome: outcome, DurationMs: int64(i) * 100,
			Attributes: map[string]string{"resource": "Ada"},
		})
	}
	return out
}

func (w *twins) bench(b *testing.B, which int, life []any, decode bool) {
	view := []projection.View{w.inGo, w.inYAML}[which]
	var payloads []codec.Payload
	var events []projection.Event
	for i, data := range life {
		typ := typeOf(data)
		value, err := w.written[typ].Append(nil, data)
		if err != nil {
			b.Fatal(err)
		}
		payload, err := w.codec.Inspect(context.Background(), typ, value)
		if err != nil {
			b.Fatal(err)
		}
		decoded, err := w.read[which][typ].Decode(payload)
		if err != nil {
			b.Fatal(err)
		}
		payloads = append(payloads, payload)
		events = append(events, projection.Event{
			Stream: event.StreamID{Category: view.Categories[0], ID: "s-1"}, Version: event.Version(i + 1), Type: typ,
			Time: t0.Add(time.Duration(i) * time.Second), Data: decoded,
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if decode {
			for i := range events {
				data, err := w.read[which][events[i].Type].Decode(payloads[i])
				if err != nil {
					b.Fatal(err)
				}
				events[i].Data = data
			}
		}
		if err := foldAll(view, events); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(life)), "ns/event")
}

func foldAll(view projection.View, events []projection.Event) error {
	if view.Kind == projection.KindMetric {
		for i := range events {
			if _, err := view.Deltas(events[i]); err != nil {
				return err
			}
		}
		return nil
	}
	f, err := view.Begin(nil, false)
	if err != nil {
		return err
	}
	for i := range events {
		if err := f.Apply(events[i]); err != nil {
			return err
		}
	}
	_, _, err = f.Row()
	return err
}

func typeOf(data any) string {

	return fmt.Sprintf("%T", data) // the packages are named after the categories
}
