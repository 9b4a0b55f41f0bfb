package engine

import (
	"fmt"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
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

// An event has the headers that its request carries along, then its own; those who read the log
// see them. A client that writes version 1 of the envelope goes on as before.
func TestMetadataBecomesHeadersOfItsEventAlone(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start(func(c *Config) { c.Categories[0].AllowAppends = true }).serving(4)
		told := w.note("n", "")
		told.headers = []event.Header{header("tenant", "request"), header("hop", "1")}
		appending(
			codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: map[string]string{"z": "last", "tenant": "event", "a": ""}},
			codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody},
		)(w, &told)
		wantVersions(t, w.ask(told), 1, 2)
		decided := w.deposit("s", 0)
		appending(codec.AppendItem{Type: "account.Deposited", SchemaID: idDeposited, Data: []byte{2, 0}, Metadata: map[string]string{"why": "because"}})(w, &decided)
		wantVersions(t, w.ask(decided), 1, 1)
		old := w.note("n", "")
		appendAt(0)(w, &old)
		wantVersions(t, w.ask(old), 3, 3)

		notes := w.events("note")["n"]
		for i, want := range []string{"[tenant=request hop=1 a= tenant=event z=last]", "[tenant=request hop=1]", "[]"} {
			if got := extraOf(notes[i]); got != want {
				t.Errorf("event %d of the note: got headers %s, want %s", i, got, want)
			}
		}
		if got, want := extraOf(w.events("account")["s"][0]), "[why=because]"; got != want {
			t.Errorf("event of the account: got headers %s, want %s", got, want)
		}
		wantVersions(t, w.ask(told), 1, 2)
		other := told
		appending(codec.AppendItem{Type: "note.Noted", SchemaID: idNoted, Data: notedBody, Metadata: map[string]string{"z": "another"}})(w, &other)
		wantOutcome(t, w.ask(other), OutcomeInvalid, CodeIDReused)
	})
}

func extraOf(e event.Recorded) string {
	texts := make([]string, 0, len(e.Extra))
	for _, h := range e.Extra {
		texts = append(texts, h.Key+"="+string(h.Value))
	}
	return fmt.Sprint(texts)
}
