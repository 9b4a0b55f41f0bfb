package client

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/client"
	"github.com/foldstream/foldstream/pkg/event"
)

var reads = []behaviour{
	{"a stream is read in pages, forward and backward", pages},
	{"reads name what is not there", notThere},
	{"an event's data is decoded in several ways", decodings},
	{"a state is folded now, at a version and at a time", states},
	{"the outcome of a command is looked up", lookups},
	{"a read can wait for a version", minVersions},
}

// ten is a stream of ten events, read by others of its partition too.
func ten(t *testing.T, w *world, c *client.Client) event.StreamID {
	t.Helper()
	stream := fresh("note")
	w.must(t, c, stream, "1", "2", "3")
	w.must(t, c, fresh("note"), "other")
	w.must(t, c, stream, "4", "5", "6", "7", "8", "9", "10")
	return stream
}

func versions(events []client.Event) []event.Version {
	var all []event.Version
	for _, e := range events {
		all = append(all, e.Version)
	}
	return all
}

func pages(t *testing.T, w *world) {
	c := w.client(t)
	stream := ten(t, w, c)
	for name, p := range map[string]struct {
		from  event.Version
		limit int
		opts  []client.ReadOption
		want  []event.Version
		next  event.Version
	}{
		"the default":        {0, 0, nil, []event.Version{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 0},
		"a first page":       {0, 3, nil, []event.Version{1, 2, 3}, 4},
		"a page in between":  {4, 3, nil, []event.Version{4, 5, 6}, 7},
		"a last page":        {9, 3, nil, []event.Version{9, 10}, 0},
		"exactly to the end": {8, 3, nil, []event.Version{8, 9, 10}, 0},
		"behind the end":     {11, 3, nil, nil, 0},
		"backward":           {0, 3, []client.ReadOption{client.Backward()}, []event.Version{10, 9, 8}, 7},
		"backward from 2":    {2, 3, []client.ReadOption{client.Backward()}, []event.Version{2, 1}, 0},
	} {
		page, err := c.Load(bounded(t), stream, p.from, p.limit, p.opts...)
		if err != nil || !slices.Equal(versions(page.Events), p.want) || page.Next != p.next || page.Version != 10 || page.Stream != stream {
			t.Errorf("%s: got versions %v of %d, next %d, %v, want %v of 10, next %d", name, versions(page.Events), page.Version, page.Next, err, p.want, p.next)
		}
	}
	if got, want := texts(t, c, stream), "1 2 3 4 5 6 7 8 9 10"; got != want {
		t.Errorf("Events: got %q, want %q", got, want)
	}
	var down []event.Version
	for e, err := range c.Events(bounded(t), stream, client.Backward()) {
		if err != nil {
			t.Fatal(err)
		}
		if down = append(down, e.Version); len(down) == 3 {
			break // a reader may leave
		}
	}
	if !slices.Equal(down, []event.Version{10, 9, 8}) {
		t.Errorf("Events backward: got %v, want 10, 9, 8", down)
	}
	if _, err := c.Load(bounded(t), stream, 1, client.PageMax+1); err == nil {
		t.Error("a page beyond PageMax was allowed")
	}
}

func notThere(t *testing.T, w *world) {
	c := w.client(t)
	none := fresh("note")
	if _, err := c.Load(bounded(t), none, 0, 0); !errors.Is(err, client.ErrNoStream) {
		t.Errorf("Load: got %v, want ErrNoStream", err)
	}
	for _, err := range c.Events(bounded(t), none) {
		if !errors.Is(err, client.ErrNoStream) {
			t.Errorf("Events: got %v, want ErrNoStream", err)
		}
	}
	if _, err := c.State(bounded(t), fresh("workflow"), client.At{}); !errors.Is(err, client.ErrNoStream) {
		t.Errorf("State: got %v, want ErrNoStream", err)
	}
	w.must(t, c, none, "now it is there")
	if _, err := c.State(bounded(t), none, client.At{}); !errors.Is(err, client.ErrNoFold) {
		t.Errorf("State without a decider: got %v, want ErrNoFold", err)
	}
	if _, err := c.Load(bounded(t), fresh("nothing"), 0, 0); !errors.Is(err, client.ErrNoCategory) {
		t.Errorf("Load of an unknown category: got %v, want ErrNoCategory", err)
	}
	if _, err := c.Lookup(bounded(t), none, "no such"); !errors.Is(err, client.ErrNoCommand) {
		t.Errorf("Lookup: got %v, want ErrNoCommand", err)
	}
}

func decodings(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	w.must(t, c, stream, "text")
	page, err := c.Load(bounded(t), stream, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	e := page.Events[0]
	data, err := e.Data()
	if err != nil || data != (noted{Text: "text"}) {
		t.Errorf("Data: got %#v, %v", data, err)
	}
	var m map[string]any
	if err := e.Decode(&m); err != nil || m["text"] != "text" {
		t.Errorf("Decode into a map: got %v, %v", m, err)
	}
	var wrong struct{ Text string }
	if err := e.Decode(&wrong); err == nil {
		t.Error("Decode took a struct that is bound to nothing")
	}
	if err := e.Decode(noted{}); err == nil {
		t.Error("Decode took what is no pointer")
	}
	if len(e.Value) == 0 || e.Value[0] != 0 {
		t.Errorf("Value: got % x, want Confluent framing", e.Value)
	}
}

func states(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("workflow")
	for _, command := range []any{
		workflow.CreateWorkflow{Name: "n", Tags: []string{"t"}},
		workflow.AddNode{NodeID: "a", Kind: "k", Name: "a", Config: map[string]string{}},
		workflow.AddNode{NodeID: "b", Kind: "k", Name: "b", Config: map[string]string{}},
	} {
		if _, err := c.Dispatch(bounded(t), stream, command); err != nil {
			t.Fatal(err)
		}
	}
	second, err := c.Load(bounded(t), stream, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	at2 := second.Events[0].RecordedAt
	for name, s := range map[string]struct {
		at      client.At
		version event.Version
		nodes   []string
	}{
		"now":          {client.At{}, 3, []string{"a", "b"}},
		"at version 2": {client.At{Version: 2}, 2, []string{"a"}},
		"at version 1": {client.At{Version: 1}, 1, nil},
		"at the end":   {client.At{Time: time.Now().Add(time.Hour)}, 3, []string{"a", "b"}},
	} {
		got, err := c.State(bounded(t), stream, s.at)
		var state workflow.State
		if err == nil {
			err = got.Decode(&state)
		}
		if err != nil || got.Version != s.version || !slices.Equal(state.Nodes, s.nodes) || state.Name != "n" || got.RecordedAt.IsZero() {
			t.Errorf("%s: got version %d, %+v, %v, want version %d with nodes %v", name, got.Version, state, err, s.version, s.nodes)
		}
		var plain struct{ Name string }
		if err := got.Decode(&plain); err != nil || plain.Name != "n" || !json.Valid(got.JSON) {
			t.Errorf("%s as plain JSON: got %+v, %v of %s", name, plain, err, got.JSON)
		}
	}
	// Stamps of two events may be equal; a state at one has all of that stamp.
	if got, err := c.State(bounded(t), stream, client.At{Time: at2}); err != nil || got.Version < 2 || got.RecordedAt.After(at2) {
		t.Errorf("at the time of version 2: got version %d, %v, want 2 or more of that stamp", got.Version, err)
	}
	for _, at := range []client.At{{Version: 4}, {Time: time.Unix(1, 0)}} {
		if _, err := c.State(bounded(t), stream, at); !errors.Is(err, client.ErrNoVersion) {
			t.Errorf("at %+v: got %v, want ErrNoVersion", at, err)
		}
	}
	if _, err := c.State(bounded(t), stream, client.At{Version: 1, Time: at2}); err == nil {
		t.Error("version and time together were taken")
	}
}

func lookups(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	w.must(t, c, stream, "before")
	sent, err := c.Append(bounded(t), stream, event.ExpectedAny, note("a", "b"), client.WithID("looked for"))
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, c, stream, "after")
	found, err := c.Lookup(bounded(t), stream, "looked for")
	if err != nil || found != sent {
		t.Errorf("got %+v, %v, want %+v", found, err, sent)
	}
}

func minVersions(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	w.must(t, c, stream, "1", "2")
	if page, err := c.Load(bounded(t), stream, 0, 0, client.WithMinVersion(2, time.Second)); err != nil || len(page.Events) != 2 {
		t.Errorf("what is there: got %+v, %v", page, err)
	}
	if _, err := c.Load(bounded(t), stream, 0, 0, client.WithMinVersion(3, 10*time.Millisecond)); !errors.Is(err, client.ErrStale) {
		t.Errorf("what is not there: got %v, want ErrStale", err)
	}
}
