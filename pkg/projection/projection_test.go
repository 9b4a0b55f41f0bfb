package projection

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"pgregory.net/rapid"
)

type happened struct {
	Text string `avro:"text"`
}

func on(names ...string) []codec.TypeDef {
	var out []codec.TypeDef
	for _, n := range names {
		out = append(out, On[happened](n, 1))
	}
	return out
}

type kind string

type everything struct {
	Text   kind               `db:"text"`
	Maybe  *string            `db:"maybe"`
	Small  int32              `db:"small,smallint"`
	Number int                `db:"number"`
	Big    *int64             `db:"big"`
	Flag   bool               `db:"flag"`
	Ratio  float64            `db:"ratio"`
	At     time.Time          `db:"at"`
	Then   *time.Time         `db:"then_at"`
	Tags   []string           `db:"tags"`
	Struct struct{ A string } `db:"struct,jsonb"`
	Map    map[string]int     `db:"map,jsonb"`
	Slice  []string           `db:"slice,jsonb"`
	Hidden string             `db:"-"`
	_      int
}

func entityOf[R any](fold func(R, bool, Event) (R, Change, error)) View {
	return Entity(EntitySpec[R]{Name: "v", Version: 1, On: on("c.E"), Fold: fold})
}

func keep[R any](r R, _ bool, _ Event) (R, Change, error) { return r, Set, nil }

func TestColumnsFollowTheTags(t *testing.T) {
	v := entityOf(keep[everything])
	if err := v.Validate(); err != nil {
		t.Fatalf("validate: %v", err)
	}
	want := []Column{
		{Name: "id", Type: "text", Wire: "text"},
		{Name: "text", Type: "text", Wire: "text"},
		{Name: "maybe", Type: "text", Wire: "text", Nullable: true},
		{Name: "small", Type: "smallint", Wire: "bigint"},
		{Name: "number", Type: "bigint", Wire: "bigint"},
		{Name: "big", Type: "bigint", Wire: "bigint", Nullable: true},
		{Name: "flag", Type: "boolean", Wire: "boolean"},
		{Name: "ratio", Type: "double precision", Wire: "double precision"},
		{Name: "at", Type: "timestamptz", Wire: "timestamptz"},
		{Name: "then_at", Type: "timestamptz", Wire: "timestamptz", Nullable: true},
		{Name: "tags", Type: "text[]", Wire: "text[]"},
		{Name: "struct", Type: "jsonb", Wire: "jsonb"},
		{Name: "map", Type: "jsonb", Wire: "jsonb"},
		{Name: "slice", Type: "jsonb", Wire: "jsonb"},
		{Name: "version", Type: "bigint", Wire: "bigint"},
	}
	if got := v.Layout(); !reflect.DeepEqual(got, want) {
		t.Errorf("layout:\n got  %v\n want %v", got, want)
	}
}

func TestARowReadBackIsTheRowThatWasFolded(t *testing.T) {
	p, _ := planOf[everything](false)
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringMatching(`[a-zé"\\{},]{0,8}`)
		at := rapid.Custom(func(rt *rapid.T) time.Time {
			return time.UnixMicro(rapid.Int64Range(-1e15, 1e16).Draw(rt, "micros")).UTC()
		})
		in := everything{
			Text: kind(text.Draw(rt, "text")), Small: rapid.Int32Range(-1000, 1000).Draw(rt, "small"), Number: rapid.Int().Draw(rt, "number"),
			Flag: rapid.Bool().Draw(rt, "flag"), Ratio: rapid.Float64().Draw(rt, "ratio"), At: at.Draw(rt, "at"),
			Tags: rapid.SliceOfN(text, 0, 3).Draw(rt, "tags"), Map: rapid.MapOfN(text, rapid.Int(), 0, 3).Draw(rt, "map"), Slice: []string{},
		}
		in.Struct.A = text.Draw(rt, "a")
		if rapid.Bool().Draw(rt, "nullables") {
			maybe, big, then := text.Draw(rt, "maybe"), rapid.Int64().Draw(rt, "big"), at.Draw(rt, "then")
			in.Maybe, in.Big, in.Then = &maybe, &big, &then
		}
		row, err := p.encode(&in)
		if err != nil {
			rt.Fatal(err)
		}
		var out everything
		if err := p.decode(row, &out); err != nil {
			rt.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			rt.Fatalf("got %+v, want %+v", out, in)
		}
	})
}

func TestWhatPostgresRefusesIsFoundAtTheEvent(t *testing.T) {
	type row struct {
		Text  string            `db:"text"`
		Maybe *string           `db:"maybe"`
		Small int64             `db:"small,integer"`
		At    time.Time         `db:"at"`
		Tags  []string          `db:"tags"`
		Doc   map[string]string `db:"doc,jsonb"`
	}
	text := func(s string) *string { return &s }
	for name, bad := range map[string]row{
		"NUL":                         {Text: "a\x00"},
		"invalid UTF-8":               {Text: "a\xff"},
		"NUL behind a pointer":        {Maybe: text("\x00")},
		"beyond integer":              {Small: math.MaxInt32 + 1},
		"year 10000":                  {At: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"year 0":                      {At: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)},
		"NUL in an array":             {Tags: []string{"", "\x00"}},
		"NUL in a jsonb value":        {Doc: map[string]string{"k": "\x00"}},
		"NUL in a jsonb key":          {Doc: map[string]string{"\x00": ""}},
		"invalid UTF-8 in jsonb":      {Doc: map[string]string{"k": "\xff"}},
		"NUL after a backslash jsonb": {Doc: map[string]string{"k": "\\\x00"}},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			v := entityOf(func(r row, exists bool, e Event) (row, Change, error) {
				if calls++; calls == 1 {
					return bad, Set, nil
				}
				return row{}, Set, nil // would hide what the first event did
			})
			f, err := v.Begin(nil, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Apply(Event{Data: bad}); !errors.Is(err, ErrValue) {
				t.Errorf("got %v, want %v", err, ErrValue)
			}
		})
	}
	t.Run("what only looks bad passes", func(t *testing.T) {
		good := row{Text: "\ufffd", Doc: map[string]string{"a": `\u0000`, "b": `\\ufffd`, "c": "\ufffd", "d": "<&>"}}
		f, err := entityOf(func(row, bool, Event) (row, Change, error) { return good, Set, nil }).Begin(nil, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Apply(Event{Data: good}); err != nil {
			t.Errorf("apply: %v", err)
		}
		if _, _, err := f.Row(); err != nil {
			t.Errorf("row: %v", err)
		}
	})
}

func TestDefinitionsAreCheckedWhole(t *testing.T) {
	type good struct {
		N int64 `db:"n"`
	}
	type untagged struct{ N int64 }
	type channel struct {
		C chan int `db:"c"`
	}
	type wrongType struct {
		N string `db:"n,bigint"`
	}
	type reserved struct {
		N int64 `db:"fs_n"`
	}
	type twice struct {
		A int64 `db:"a"`
		B int64 `db:"a"`
	}
	type version struct {
		V int64 `db:"version"`
	}
	type roles struct {
		N int64 `db:"n,add"`
	}
	type nullKey struct {
		K *string `db:"k,key"`
		N int64   `db:"n,add"`
	}
	type textSum struct {
		K string `db:"k,key"`
		N string `db:"n,add"`
	}
	type roleless struct {
		K string `db:"k,key"`
		N int64  `db:"n"`
	}
	type keyless struct {
		N int64 `db:"n,add"`
	}
	entity := func(spec EntitySpec[good]) View {
		if spec.Name == "" {
			spec.Name = "v"
		}
		if spec.Version == 0 {
			spec.Version = 1
		}
		if spec.On == nil {
			spec.On = on("c.E")
		}
		if spec.Fold == nil {
			spec.Fold = keep[good]
		}
		return Entity(spec)
	}
	metric := func(v View) View { return v }
	for name, c := range map[string]struct {
		view View
		want string
	}{
		"name":           {entity(EntitySpec[good]{Name: "Big"}), "want a name of"},
		"long name":      {entity(EntitySpec[good]{Name: strings.Repeat("a", 32)}), "want a name of"},
		"system's name":  {entity(EntitySpec[good]{Name: "letters"}), "reserved"},
		"version":        {entity(EntitySpec[good]{Version: -1}), "count from 1"},
		"no types":       {entity(EntitySpec[good]{On: []codec.TypeDef{}, Category: "c"}), "On is empty"},
		"type twice":     {entity(EntitySpec[good]{On: on("c.E", "c.E")}), "registered twice"},
		"other category": {entity(EntitySpec[good]{On: on("c.E"), Category: "d"}), "want <category>.<Name>"},
		"two categories": {entity(EntitySpec[good]{On: on("c.E", "d.E")}), "one stream"},
		"key stands":     {entity(EntitySpec[good]{Key: "n"}), "stands twice"},
		"no fold":        {Entity(EntitySpec[good]{Name: "v", Version: 1, On: on("c.E")}), "Fold is nil"},
		"untagged":       {entityOf(keep[untagged]), "`db` tag"},
		"channel":        {entityOf(keep[channel]), "no column type"},
		"wrong type":     {entityOf(keep[wrongType]), `cannot be "bigint"`},
		"reserved":       {entityOf(keep[reserved]), "fs_"},
		"twice":          {entityOf(keep[twice]), "stands twice"},
		"version column": {entityOf(keep[version]), "stands twice"},
		"role":           {entityOf(keep[roles]), "metric views"},
		"no struct":      {entityOf(keep[int]), "no struct"},
		"null key":       {metric(Metric(MetricSpec[nullKey]{Name: "v", Version: 1, On: on("c.E")})), "never null"},
		"no deltas":      {metric(Metric(MetricSpec[nullKey]{Name: "v", Version: 1, On: on("c.E")})), "Deltas is nil"},
		"text sum":       {metric(Metric(MetricSpec[textSum]{Name: "v", Version: 1, On: on("c.E")})), "add takes"},
		"roleless":       {metric(Metric(MetricSpec[roleless]{Name: "v", Version: 1, On: on("c.E")})), "tagged key, add, min or max"},
		"keyless":        {metric(Metric(MetricSpec[keyless]{Name: "v", Version: 1, On: on("c.E")})), "no key column"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.view.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a fault with %q", err, c.want)
			}
		})
	}
	both := entity(EntitySpec[good]{Name: "Big", Version: -1}).Validate()
	if !strings.Contains(both.Error(), "want a name of") || !strings.Contains(both.Error(), "count from 1") {
		t.Errorf("faults are not joined: %v", both)
	}
}

type sum struct {
	Key string    `db:"key,key"`
	N   int64     `db:"n,add"`
	F   float64   `db:"f,add"`
	Min time.Time `db:"min_at,min"`
	Max *string   `db:"max,max"`
}

func metricOf(deltas func(Event) ([]sum, error)) View {
	return Metric(MetricSpec[sum]{Name: "m", Version: 1, On: on("c.E", "d.E"), Deltas: deltas})
}

func TestMergesCommute(t *testing.T) {
	v := metricOf(func(Event) ([]sum, error) { return nil, nil })
	rapid.Check(t, func(rt *rapid.T) {
		deltas := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) Row {
			var at, text any
			if rapid.Bool().Draw(rt, "at?") {
				at = time.Unix(rapid.Int64Range(0, 1e9).Draw(rt, "at"), 0).UTC()
			}
			if rapid.Bool().Draw(rt, "text?") {
				text = rapid.StringN(0, 3, -1).Draw(rt, "text")
			}
			return Row{"k", rapid.Int64Range(-1e9, 1e9).Draw(rt, "n"), float64(rapid.IntRange(-1000, 1000).Draw(rt, "f")), at, text}
		}), 1, 8).Draw(rt, "deltas")
		fold := func(order []Row) Row {
			out := append(Row{}, order[0]...)
			for _, d := range order[1:] {
				if err := v.MergeInto(out, d); err != nil {
					rt.Fatal(err)
				}
			}
			return out
		}
		if a, b := fold(deltas), fold(rapid.Permutation(deltas).Draw(rt, "order")); !reflect.DeepEqual(a, b) {
			rt.Fatalf("one order gives %v, another %v", a, b)
		}
	})
}

func TestASumBeyondBigintIsRefusedAndChangesNothing(t *testing.T) {
	v := metricOf(func(Event) ([]sum, error) { return nil, nil })
	for _, c := range [][2]int64{{math.MaxInt64, 1}, {math.MinInt64, -1}} {
		row := Row{"k", c[0], 1.0, nil, nil}
		if err := v.MergeInto(row, Row{"k", c[1], 1.0, nil, nil}); !errors.Is(err, ErrValue) {
			t.Errorf("%d + %d: got %v, want %v", c[0], c[1], err, ErrValue)
		}
		if row[1] != c[0] || row[2] != 1.0 {
			t.Errorf("the row became %v", row)
		}
	}
}

func TestFoldParksSkipsAndFindsGaps(t *testing.T) {
	boom := errors.New("boom")
	v := metricOf(func(e Event) ([]sum, error) {
		switch e.Data.(happened).Text {
		case "boom":
			return []sum{{Key: "half"}}, boom
		case "panic":
			panic("no")
		}
		return []sum{{Key: e.Stream.ID, N: 1}, {Key: e.Stream.ID, N: 2}}, nil
	})
	at := func(category, id string, version event.Version, text string) Event {
		return Event{Stream: event.StreamID{Category: category, ID: id}, Version: version, Type: category + ".E", Data: happened{text}}
	}
	table, err := Fold(v, at("c", "a", 1, ""), at("c", "a", 1, ""), at("d", "a", 1, ""), at("c", "b", 1, "boom"), at("c", "b", 2, ""), at("c", "p", 1, "panic"), at("x", "a", 9, ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Rows) != 1 || table.Rows["a"][1] != int64(6) {
		t.Errorf("rows: got %v, want a with 6", table.Rows)
	}
	if err := table.Parked[event.StreamID{Category: "c", ID: "b"}]; !errors.Is(err, boom) {
		t.Errorf("b is parked with %v, want %v", err, boom)
	}
	if err := table.Parked[event.StreamID{Category: "c", ID: "p"}]; !errors.Is(err, ErrPanic) {
		t.Errorf("p is parked with %v, want %v", err, ErrPanic)
	}
	_, err = Fold(v, at("c", "a", 1, ""), at("c", "a", 3, ""))
	if !errors.Is(err, ErrSequence) || !strings.Contains(err.Error(), "have version 3, want 2") {
		t.Errorf("gap: got %v", err)
	}
}

func TestDeleteAndKeep(t *testing.T) {
	type row struct {
		N int64 `db:"n"`
	}
	v := entityOf(func(r row, exists bool, e Event) (row, Change, error) {
		switch e.Data.(happened).Text {
		case "delete":
			return r, Delete, nil
		case "keep":
			return row{N: 99}, Keep, nil
		case "odd":
			return r, Change(9), nil
		}
		if !exists && r.N != 0 {
			return r, Keep, errors.New("a row that is not there has a value")
		}
		r.N++
		return r, Set, nil
	})
	fold := func(texts ...string) *Table {
		var events []Event
		for i, text := range texts {
			events = append(events, Event{Stream: event.StreamID{Category: "c", ID: "a"}, Version: event.Version(i + 1), Type: "c.E", Data: happened{text}})
		}
		table, err := Fold(v, events...)
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	if got := fold("", "", "keep").Rows["a"]; !reflect.DeepEqual(got, Row{"a", int64(2), int64(3)}) {
		t.Errorf("after keep: got %v", got)
	}
	if got := fold("", "delete").Rows; len(got) != 0 {
		t.Errorf("after delete: got %v", got)
	}
	if got := fold("", "", "delete", "").Rows["a"]; !reflect.DeepEqual(got, Row{"a", int64(1), int64(4)}) {
		t.Errorf("after coming back: got %v", got)
	}
	if got := fold("keep").Rows; len(got) != 0 {
		t.Errorf("keep without a row: got %v", got)
	}
	if got := fold("", "odd").Parked; len(got) != 1 {
		t.Errorf("an unknown change parks: got %v", got)
	}
}

func TestTimesAreWhatPostgresKeeps(t *testing.T) {
	type row struct {
		At   time.Time  `db:"at"`
		Then *time.Time `db:"then_at"`
	}
	var seen []time.Time
	at := time.Date(2026, 1, 1, 1, 0, 0, 123456789, time.FixedZone("east", 3600))
	v := entityOf(func(r row, exists bool, e Event) (row, Change, error) {
		if exists {
			seen = append(seen, r.At, *r.Then)
		}
		return row{At: at, Then: &at}, Set, nil
	})
	f, err := v.Begin(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Apply(Event{}); err != nil {
			t.Fatal(err)
		}
	}
	want := time.Date(2026, 1, 1, 0, 0, 0, 123456000, time.UTC)
	for _, got := range seen {
		if got != want {
			t.Errorf("the next event saw %v, want %v", got, want)
		}
	}
	if at.Nanosecond() != 123456789 {
		t.Error("the function's own value was changed")
	}
}

func TestDiffNamesWhatDiffers(t *testing.T) {
	v := metricOf(func(e Event) ([]sum, error) {
		return []sum{{Key: e.Stream.ID, N: int64(len(e.Data.(happened).Text))}}, nil
	})
	table := func(texts map[string]string) *Table {
		var events []Event
		for id, text := range texts {
			events = append(events, Event{Stream: event.StreamID{Category: "c", ID: id}, Version: 1, Type: "c.E", Data: happened{text}})
		}
		out, err := Fold(v, events...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	want := []string{`m "a": column n: got 2, want 1`, `m "b": missing`, `m "c": unexpected`}
	if got := Diff(table(map[string]string{"a": "x", "b": "x"}), table(map[string]string{"a": "xx", "c": "x"})); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if JSON(`{"b":1,"a":1.0}`).Canonical() != `{"a":1.0,"b":1}` {
		t.Error("JSON is not compared by content")
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{"", "a\x00", `\u0000`, "\xff", "\ufffd", `\\\u0000`, "\\\x00", "<"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := marshal(map[string]string{"k": s})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := checkJSON(text) != nil, CheckText(s) != nil; got != want {
			t.Errorf("checkJSON of %q as %s: got refused %v, want %v", s, text, got, want)
		}
	})
}
