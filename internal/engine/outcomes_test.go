package engine

import (
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
)

func TestTheSixOutcomes(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)

		first := w.deposit("a", 10)
		reply := w.ask(first)
		wantOutcome(t, reply, OutcomeAccepted, "")
		wantVersions(t, reply, 1, 1)

		again := w.ask(first)
		wantOutcome(t, again, OutcomeDuplicate, "")
		wantVersions(t, again, 1, 1)
		if again.Partition != reply.Partition || again.Offset != reply.Offset {
			t.Errorf("duplicate stands at %d@%d, the original at %d@%d", again.Partition, again.Offset, reply.Partition, reply.Offset)
		}

		other := first
		other.data = deposit{Amount: 11}
		wantOutcome(t, w.ask(other), OutcomeInvalid, CodeIDReused)

		late := w.deposit("a", 1)
		late.expected = "none"
		conflict := w.ask(late)
		wantOutcome(t, conflict, OutcomeConflict, "")
		if conflict.ActualVersion != 1 {
			t.Errorf("actual version: got %d, want 1", conflict.ActualVersion)
		}

		wantOutcome(t, w.ask(w.deposit("a", -11)), OutcomeRejected, "overdrawn")

		nothing := w.ask(w.deposit("a", 0))
		wantOutcome(t, nothing, OutcomeAccepted, "")
		wantVersions(t, nothing, 0, 0)

		garbage := w.deposit("a", 1)
		garbage.data, garbage.value = nil, []byte{9, 9, 9}
		wantOutcome(t, w.ask(garbage), OutcomeInvalid, CodeFrame)

		if got := len(w.events("account")["a"]); got != 1 {
			t.Errorf("events of stream a: got %d, want 1", got)
		}
	})
}

func TestAppendModeTakesOneAndSeveralEvents(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		one := w.note("n", "one")
		one.expected = "none"
		wantVersions(t, w.ask(one), 1, 1)

		body := func(text string) []byte {
			framed, err := w.bindings["note.Noted"].Append(nil, noted{Text: text})
			if err != nil {
				t.Fatal(err)
			}
			return framed[5:]
		}
		several := w.note("n", "")
		several.typ = codec.TypeAppend
		several.data = codec.AppendEnvelope{Events: []codec.AppendItem{
			{Type: "note.Noted", SchemaID: idNoted, Data: body("two")}, {Type: "note.Noted", ID: "third", SchemaID: idNoted, Data: body("three")},
		}}
		several.expected = "1"
		reply := w.ask(several)
		wantOutcome(t, reply, OutcomeAccepted, "")
		wantVersions(t, reply, 2, 3)
		events := w.events("note")["n"]
		if len(events) != 3 || events[2].ID != "third" {
			t.Fatalf("events of stream n: got %+v", events)
		}
		if reply.Offset != events[2].Offset {
			t.Errorf("offset: got %d, want that of the last event, %d", reply.Offset, events[2].Offset)
		}
		wantVersions(t, w.ask(several), 2, 3)
	})
}
