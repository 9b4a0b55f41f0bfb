package projection

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

type mark struct {
	Text string    `db:"text"`
	At   time.Time `db:"at"`
}

func appendOf[R any](rows func(Event) ([]R, error)) View {
	return Append(AppendSpec[R]{Name: "a", Version: 1, On: on("c.E", "d.E"), Rows: rows})
}

// marks appends a row for each letter of the event's text.
func marks(e Event) ([]mark, error) {
	switch text := e.Data.(happened).Text; text {
	case "boom":
		return []mark{{Text: "half"}}, errors.New("boom")
	case "panic":
		panic("no")
	case "many":
		return make([]mark, EventRowsMax+1), nil
	default:
		var out []mark
		for _, letter := range text {
			out = append(out, mark{string(letter), e.Time})
		}
		return out, nil
	}
}

func happens(category, id string, version event.Version, text string) Event {
	at := time.Date(2026, 1, 1, 0, 0, 0, 123456789, time.FixedZone("east", 3600))
	return Event{Stream: event.StreamID{Category: category, ID: id}, Version: version, Type: category + ".E", Time: at, Data: happened{text}}
}

func TestAppendedRowsAreKeyedByTheirEvent(t *testing.T) {
	v := appendOf(marks)
	if err := v.Validate(); err != nil {
		t.Fatalf("validate: %v", err)
	}
	var names []string
	for _, c := range v.Layout() {
		names = append(names, c.Name+" "+c.Type)
	}
	if want := []string{"category text", "stream text", "version bigint", "n integer", "text text", "at timestamptz"}; !slices.Equal(names, want) {
		t.Errorf("layout: got %q, want %q", names, want)
	}
	if want := []string{"c", "d"}; !slices.Equal(v.Categories, want) {
		t.Errorf("categories: got %q, want %q", v.Categories, want)
	}
	ignored := happens("c", "s", 3, "")
	ignored.Type = "c.Other"
	table, err := Fold(v, happens("c", "s", 1, "xy"), happens("d", "s", 1, "z"), happens("c", "s", 2, ""), ignored, happens("c", "s", 4, "w"), happens("c", "s", 1, "again"))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 12, 31, 23, 0, 0, 123456000, time.UTC)
	want := []Row{
		{"c", "s", int64(1), int64(1), "x", at}, {"c", "s", int64(1), int64(2), "y", at},
		{"c", "s", int64(4), int64(1), "w", at}, {"d", "s", int64(1), int64(1), "z", at},
	}
	if got := table.Sorted(); !reflect.DeepEqual(got, want) {
		t.Errorf("rows:\n got  %v\n want %v", got, want)
	}
	if got := table.Rows[KeyOf(AppendKey(event.StreamID{Category: "c", ID: "s"}, 1, 2))]; !reflect.DeepEqual(got, want[1]) {
		t.Errorf("by key: got %v, want %v", got, want[1])
	}
	if got := table.Versions[event.StreamID{Category: "c", ID: "s"}]; got != 4 {
		t.Errorf("last version: got %d, want 4", got)
	}
}

func TestAnEventThatCannotBeAppendedLeavesNoRow(t *testing.T) {
	for text, want := range map[string]string{"boom": "boom", "panic": ErrPanic.Error(), "many": "the limit is 10000", "a\x00": ErrValue.Error()} {
		table, err := Fold(appendOf(marks), happens("c", "s", 1, "x"), happens("c", "s", 2, text), happens("c", "s", 3, "y"))
		if err != nil {
			t.Fatal(err)
		}
		if fault := table.Parked[event.StreamID{Category: "c", ID: "s"}]; fault == nil || !strings.Contains(fault.Error(), want) {
			t.Errorf("%q: parked with %v, want %q", text, fault, want)
		}
		if len(table.Rows) != 1 {
			t.Errorf("%q: got rows %v, want that of version 1", text, table.Rows)
		}
	}
	_, err := Fold(appendOf(marks), happens("c", "s", 1, "x"), happens("c", "s", 3, "x"))
	if !errors.Is(err, ErrSequence) {
		t.Errorf("gap: got %v, want %v", err, ErrSequence)
	}
}

func TestAppendDefinitionsAreChecked(t *testing.T) {
	type own struct {
		N int64 `db:"n"`
	}
	type role struct {
		N int64 `db:"m,add"`
	}
	for name, c := range map[string]struct {
		view View
		want string
	}{
		"no rows":    {appendOf[mark](nil), "Rows is nil"},
		"own column": {appendOf(func(Event) ([]own, error) { return nil, nil }), `"n" stands twice (an append view has category, stream, version, n by itself)`},
		"role":       {appendOf(func(Event) ([]role, error) { return nil, nil }), "metric views"},
		"no column":  {appendOf(func(Event) ([]struct{}, error) { return nil, nil }), "no column beside the key"},
		"name":       {Append(AppendSpec[mark]{Name: "events", Version: 1, On: on("c.E"), Rows: marks}), "reserved"},
	} {
		if err := c.view.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want a fault with %q", name, err, c.want)
		}
	}
	if _, err := appendOf(marks).Begin(nil, false); err == nil {
		t.Error("an append view can be folded like an entity")
	}
	if _, err := entityOf(keep[mark]).Rows(Event{}); err == nil {
		t.Error("an entity view can be appended to")
	}
}
