package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

func TestNormalTellsMeaningFromForm(t *testing.T) {
	t.Parallel()
	base := `{"type": "record", "name": "A", "fields": [{"name": "m", "type": {"type": "map", "values": "string"}, "default": {"doc": "x"}}]}`
	for name, c := range map[string]struct {
		text string
		same bool
	}{
		"itself":             {base, true},
		"white space":        {strings.ReplaceAll(base, " ", "\n"), true},
		"order of keys":      {strings.Replace(base, `"type": "record", "name": "A"`, `"name": "A", "type": "record"`, 1), true},
		"a doc":              {strings.Replace(base, `"name": "A"`, `"doc": "d", "name": "A"`, 1), true},
		"a field's doc":      {strings.Replace(base, `"name": "m"`, `"doc": "d", "name": "m"`, 1), true},
		"a default's doc":    {strings.Replace(base, `"x"`, `"y"`, 1), false},
		"an alias":           {strings.Replace(base, `"name": "m"`, `"aliases": ["n"], "name": "m"`, 1), false},
		"a property of ours": {strings.Replace(base, `"name": "A"`, `"fs.kind": "event", "name": "A"`, 1), false},
		"rubbish":            {base + "{}", false},
	} {
		if got := normal(base) == normal(c.text); got != c.same {
			t.Errorf("%s: same is %t, want %t", name, got, c.same)
		}
	}
	// Numbers keep every digit.
	if a, b := normal(`{"default": 9007199254740993}`), normal(`{"default": 9007199254740992}`); a == b {
		t.Errorf("two numbers became one: %s", a)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		props, typ string
		kind       event.Kind
	}{
		"nothing said":  {``, "order.Placed", event.KindCommand},
		"kind said":     {`"fs.kind": "state", `, "order.Placed", event.KindState},
		"type said":     {`"fs.type": "order.Done", `, "order.Done", event.KindCommand},
		"both said":     {`"fs.type": "order.Done", "fs.kind": "event", `, "order.Done", event.KindEvent},
		"no text given": {`"fs.kind": 7, `, "order.Placed", event.KindCommand},
	} {
		schema, err := codec.Parse(`{` + c.props + `"type": "record", "name": "order.Placed", "fields": []}`)
		if err != nil {
			t.Fatal(err)
		}
		if typ, kind := Describe(schema, event.KindCommand); typ != c.typ || kind != c.kind {
			t.Errorf("%s: got %s of kind %s, want %s of kind %s", name, typ, kind, c.typ, c.kind)
		}
	}
}

func TestARecordNameHasOneType(t *testing.T) {
	t.Parallel()
	other := submission("order", "Placed", 1, fieldID)
	other.Type = "order.Done"
	other.Text = strings.Replace(other.Text, `{`, `{"fs.type": "order.Done", `, 1)
	candidates, err := parse([]Submission{submission("order", "Placed", 1, fieldID), other})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := makePlan(newIndex(), candidates, BackwardTransitive); err == nil || !strings.Contains(err.Error(), "has one type") {
		t.Errorf("got %v, want a refusal: single-object framing could not tell the two", err)
	}
}

// Whatever is registered in whatever parts and order, ids are 1..n, versions have no gap, and a
// plan changes nothing of what it was made from.
func TestPlansGiveIDsAndVersionsWithoutGaps(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		known := newIndex()
		var all []Submission
		for _, name := range []string{"A", "B", "C"} {
			fields := []string{fieldID}
			for v := range rapid.IntRange(0, 4).Draw(t, "versions of "+name) {
				all = append(all, submission("order", name, v+1, fields...))
				fields = append(fields, `{"name": "f`+string(rune('a'+v))+`", "type": "int", "default": 0}`)
			}
		}
		for round := range rapid.IntRange(1, 3).Draw(t, "rounds") {
			upTo := len(all)
			if round == 0 {
				upTo = rapid.IntRange(0, len(all)).Draw(t, "first part")
			}
			part := rapid.Permutation(all[:upTo]).Draw(t, "order")
			candidates, err := parse(part)
			if err != nil {
				t.Fatal(err)
			}
			before := len(known.byID)
			p, err := makePlan(known, candidates, BackwardTransitive)
			if err != nil {
				t.Fatal(err)
			}
			if len(known.byID) != before {
				t.Fatal("the plan changed the index")
			}
			for i, reg := range p.results {
				if reg.Type != part[i].Type || reg.Version != part[i].Version {
					t.Fatalf("answer %d is %s version %d, want %s version %d", i, reg.Type, reg.Version, part[i].Type, part[i].Version)
				}
			}
			for i, reg := range p.added {
				if want := int32(before + i + 1); reg.ID != want {
					t.Fatalf("addition %d has id %d, want %d", i, reg.ID, want)
				}
				if err := known.add(reg); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func TestTooManySubmissionsAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := parse(make([]Submission, SubmissionsMax+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v, want a refusal with the limit", err)
	}
}

func TestBudgetRefillsWithTime(t *testing.T) {
	t.Parallel()
	b := newBudget(2, 1)
	now := time.Unix(1_700_000_000, 0)
	for i, c := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {0, true}, {0, false}, {500 * time.Millisecond, false}, {500 * time.Millisecond, true}, {0, false}, {time.Hour, true}, {0, true}, {0, false}, {-time.Hour, false}} {
		now = now.Add(c.after)
		if got := b.take(now); got != c.want {
			t.Errorf("step %d: got %t, want %t", i, got, c.want)
		}
	}
}

func TestAbsentForgetsAndStaysSmall(t *testing.T) {
	t.Parallel()
	a := absent{life: time.Second}
	now := time.Unix(1_700_000_000, 0)
	a.add(int32(1), now)
	if !a.has(int32(1), now.Add(999*time.Millisecond)) || a.has(int32(1), now.Add(time.Second)) || a.has("1", now) {
		t.Error("want it to be remembered for a second, and only it")
	}
	for i := range int32(3 * absentMax) {
		a.add(i, now)
	}
	if got := len(a.till); got > absentMax {
		t.Errorf("holds %d, want at most %d", got, absentMax)
	}
}

func FuzzDecodeRow(f *testing.F) {
	schema, err := codec.Parse(text("order", "Placed", fieldID))
	if err != nil {
		f.Fatal(err)
	}
	key, value, err := encodeRow(&codec.Registered{ID: 1, Type: "order.Placed", Version: 1, Kind: event.KindEvent, Schema: schema})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key, value)
	f.Add([]byte("a/1"), []byte(`{"subject": "a", "version": 1}`))
	f.Add([]byte(nil), []byte(`[]`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		reg, err := decodeRow(key, value)
		if err != nil {
			return
		}
		// What was taken in survives being written again.
		key2, value2, err := encodeRow(reg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRow(key2, value2)
		if err != nil {
			t.Fatalf("a row that was read is not read again: %v", err)
		}
		if string(key2) != string(key) || again.ID != reg.ID || again.Schema.Text() != reg.Schema.Text() {
			t.Errorf("got %s id %d, want %s id %d", key2, again.ID, key, reg.ID)
		}
	})
}
