package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/client"
	"github.com/foldstream/foldstream/pkg/event"
)

var requests = []behaviour{
	{"an append holds or conflicts by its expected version", expectedVersions},
	{"an append of several events is one", severalEvents},
	{"a repeated request is a duplicate with its first outcome", duplicates},
	{"an id that is used again with other content is refused by name", idReused},
	{"a command is decided", commands},
	{"what is wrong with a request is said, and where", invalidRequests},
	{"an append takes Go values, JSON and Avro", formsOfData},
	{"time, ids and metadata arrive at the events", metadataArrives},
	{"asynchronous requests are sent in batches and settle", asyncBatches},
	{"asynchronous appends of one stream keep their order", asyncOrder},
	{"a batch may be larger than what may be in flight", asyncRoom},
	{"a full asynchronous queue refuses", asyncQueueFull},
	{"a closed client refuses", closedClient},
	{"a caller who leaves is told that the outcome is unknown", callerLeaves},
}

func expectedVersions(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	for i, step := range []struct {
		expected event.Expected
		first    event.Version // 0: a conflict with actual
		actual   event.Version
	}{
		{expected: event.ExpectedExists, actual: 0},
		{expected: event.ExpectExactly(1), actual: 0},
		{expected: event.ExpectedNone, first: 1},
		{expected: event.ExpectedNone, actual: 1},
		{expected: event.ExpectedAny, first: 2},
		{expected: event.ExpectedExists, first: 3},
		{expected: event.ExpectExactly(2), actual: 3},
		{expected: event.ExpectExactly(3), first: 4},
	} {
		outcome, err := c.Append(bounded(t), stream, step.expected, note("x"))
		if step.first > 0 {
			if err != nil || outcome.Kind != client.Accepted || outcome.First != step.first || outcome.Last != step.first || outcome.Offset < 0 {
				t.Errorf("step %d, %s: got %+v, %v, want version %d accepted", i, step.expected, outcome, err, step.first)
			}
			continue
		}
		var conflict *client.ConflictError
		if !errors.As(err, &conflict) || conflict.Actual != step.actual || conflict.Stream != stream || conflict.Expected != step.expected || conflict.RequestID == "" {
			t.Errorf("step %d, %s: got %+v, %v, want a conflict with actual version %d", i, step.expected, outcome, err, step.actual)
		}
	}
}

func severalEvents(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	w.must(t, c, stream, "before")
	outcome := w.must(t, c, stream, "a", "b", "c")
	if outcome.First != 2 || outcome.Last != 4 {
		t.Errorf("got versions %d to %d, want 2 to 4", outcome.First, outcome.Last)
	}
	if got, want := texts(t, c, stream), "before a b c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// texts reads all of a stream of notes.
func texts(t *testing.T, c *client.Client, stream event.StreamID) string {
	t.Helper()
	var all []string
	for e, err := range c.Events(bounded(t), stream) {
		if err != nil {
			t.Fatalf("read %s: %v", stream, err)
		}
		var n noted
		if err := e.Decode(&n); err != nil {
			t.Fatal(err)
		}
		all = append(all, n.Text)
	}
	return strings.Join(all, " ")
}

func duplicates(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	first, err := c.Append(bounded(t), stream, event.ExpectedNone, note("a", "b"), client.WithID("the-id"))
	if err != nil {
		t.Fatal(err)
	}
	w.must(t, c, stream, "later")
	// Another client, as after a crash of the program.
	again, err := w.client(t).Append(bounded(t), stream, event.ExpectedNone, note("a", "b"), client.WithID("the-id"))
	if err != nil || again.Kind != client.Duplicate || again.First != first.First || again.Last != first.Last || again.Offset != first.Offset || again.RequestID != "the-id" {
		t.Errorf("got %+v, %v, want a duplicate of %+v", again, err, first)
	}
}

func idReused(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	if _, err := c.Append(bounded(t), stream, event.ExpectedNone, note("a"), client.WithID("used")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Append(bounded(t), stream, event.ExpectedNone, note("b"), client.WithID("used"))
	var invalid *client.InvalidError
	if !errors.As(err, &invalid) || invalid.Code != "id-reused" {
		t.Errorf("got %v, want an InvalidError with code id-reused", err)
	}
}

func commands(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("workflow")
	create := workflow.CreateWorkflow{Name: "n", Tags: []string{"x"}}
	outcome, err := c.Dispatch(bounded(t), stream, create, client.WithExpected(event.ExpectedNone), client.WithID("create"))
	if err != nil || outcome.First != 1 || outcome.Last != 1 {
		t.Fatalf("create: got %+v, %v, want version 1", outcome, err)
	}
	again, err := c.Dispatch(bounded(t), stream, &create, client.WithExpected(event.ExpectedNone), client.WithID("create"))
	if err != nil || again.Kind != client.Duplicate || again.First != 1 {
		t.Errorf("create again: got %+v, %v, want a duplicate", again, err)
	}
	_, err = c.Dispatch(bounded(t), stream, create)
	var rejected *client.RejectedError
	if !errors.As(err, &rejected) || rejected.Code != "exists" || rejected.Message == "" || rejected.Stream != stream {
		t.Errorf("create another: got %v, want a RejectedError with code exists", err)
	}
	name := "n"
	outcome, err = c.Dispatch(bounded(t), stream, workflow.UpdateWorkflow{Name: &name})
	if err != nil || outcome.Kind != client.Accepted || outcome.First != 0 || outcome.Last != 0 {
		t.Errorf("a change of nothing: got %+v, %v, want accepted without versions", outcome, err)
	}
	outcome, err = c.Dispatch(bounded(t), stream, client.Command{Type: "workflow.AddNode", JSON: json.RawMessage(`{"nodeId":"1","kind":"k","name":"m","config":{}}`)})
	if err != nil || outcome.Last != 2 {
		t.Errorf("a command as JSON: got %+v, %v, want version 2", outcome, err)
	}
	_, err = c.Dispatch(bounded(t), stream, create, client.WithExpected(event.ExpectExactly(7)))
	var conflict *client.ConflictError
	if !errors.As(err, &conflict) || conflict.Actual != 2 {
		t.Errorf("a command with another version: got %v, want a conflict with 2", err)
	}
}

func invalidRequests(t *testing.T, w *world) {
	c := w.client(t)
	long := strings.Repeat("x", 256)
	for name, try := range map[string]struct {
		send func() error
		code string
		says string
	}{
		"no events": {func() error {
			_, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, nil)
			return err
		}, "empty-append", "0 events"},
		"an id too long": {func() error {
			_, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, note("x"), client.WithID(long))
			return err
		}, "header", "ce_id"},
		"a stream id with a control character": {func() error {
			_, err := c.Append(bounded(t), event.StreamID{Category: "note", ID: "a\nb"}, event.ExpectedAny, note("x"))
			return err
		}, "key", "control characters"},
		"metadata with a name of ours": {func() error {
			_, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, []client.NewEvent{{Data: noted{}, Metadata: map[string]string{"fs-origin": "x"}}})
			return err
		}, "header", "fs-origin"},
		"JSON that does not fit": {func() error {
			_, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, []client.NewEvent{{Type: "note.Noted", JSON: json.RawMessage(`{"text": 7}`)}})
			return err
		}, "payload", "data.text"},
		"Avro that does not fit": {func() error {
			reg, err := w.registry.Latest(t.Context(), "note.Noted")
			if err != nil {
				return err
			}
			_, err = c.Append(bounded(t), fresh("note"), event.ExpectedAny, []client.NewEvent{{Type: "note.Noted", SchemaID: reg.ID, Avro: []byte{9}}})
			return err
		}, "payload", ""},
		"an event of another category": {func() error {
			_, err := c.Append(bounded(t), fresh("workflow"), event.ExpectedAny, note("x"))
			return err
		}, "type", ""},
	} {
		var invalid *client.InvalidError
		if err := try.send(); !errors.As(err, &invalid) || invalid.Code != try.code || !strings.Contains(err.Error(), try.says) {
			t.Errorf("%s: got %v, want an InvalidError with code %s that says %q", name, err, try.code, try.says)
		}
	}
	if _, err := c.Append(bounded(t), fresh("nothing"), event.ExpectedAny, note("x")); !errors.Is(err, client.ErrNoCategory) {
		t.Errorf("an unknown category: got %v, want ErrNoCategory", err)
	}
	if _, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, []client.NewEvent{{Data: struct{}{}}}); err == nil || !strings.Contains(err.Error(), "Config.Types") {
		t.Errorf("an unbound Go type: got %v, want one that names Config.Types", err)
	}
}

func formsOfData(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	struck, err := w.registry.Latest(t.Context(), "note.Struck")
	if err != nil {
		t.Fatal(err)
	}
	asJSON := client.NewEvent{Type: "note.Noted", JSON: json.RawMessage(`{"text": "json"}`)}
	asAvro := client.NewEvent{Type: "note.Struck", SchemaID: struck.ID, Avro: []byte("\x06you")}
	for name, events := range map[string][]client.NewEvent{
		"JSON alone": {asJSON},
		"Avro alone": {asAvro},
		"mixed":      {{Data: noted{Text: "go"}}, {Data: &noted{Text: "pointer"}}, asJSON, asAvro},
	} {
		if _, err := c.Append(bounded(t), stream, event.ExpectedAny, events); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	kinds := map[string]int{}
	for e, err := range c.Events(bounded(t), stream) {
		if err != nil {
			t.Fatal(err)
		}
		var text json.RawMessage
		if err := e.Decode(&text); err != nil {
			t.Fatal(err)
		}
		kinds[e.Type+string(text)]++
	}
	want := map[string]int{`note.Noted{"text":"json"}`: 2, `note.Struck{"by":"you"}`: 2, `note.Noted{"text":"go"}`: 1, `note.Noted{"text":"pointer"}`: 1}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", kinds, want)
	}
}

func metadataArrives(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	at := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	_, err := c.Append(bounded(t), stream, event.ExpectedAny, []client.NewEvent{
		{Data: noted{Text: "a"}, ID: "own-id", Time: at, Metadata: map[string]string{"tenant": "t1", "both": "event"}},
		{Data: noted{Text: "b"}},
	}, client.WithID("request"), client.WithCorrelation("corr"), client.WithCausation("cause"), client.WithUser("ann"),
		client.WithTime(at.Add(time.Hour)), client.WithMetadata(map[string]string{"both": "request"}),
		client.WithTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := c.Load(bounded(t), stream, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b := page.Events[0], page.Events[1]
	if a.ID != "own-id" || !a.Time.Equal(at) || a.Metadata["tenant"] != "t1" || a.Metadata["both"] != "event" {
		t.Errorf("first event: got %+v", a)
	}
	if b.ID == "" || !b.Time.Equal(at.Add(time.Hour)) || b.Metadata["tenant"] != "" || b.Metadata["both"] != "request" {
		t.Errorf("second event: got %+v", b)
	}
	for _, e := range page.Events {
		if e.CommandID != "request" || e.CorrelationID != "corr" || e.CausationID != "request" || e.UserID != "ann" || e.RecordedAt.IsZero() || e.Stream != stream {
			t.Errorf("event %d: got %+v", e.Version, e)
		}
	}
	command := fresh("workflow")
	_, err = c.Dispatch(bounded(t), command, workflow.CreateWorkflow{Name: "n", Tags: []string{}}, client.WithTime(at), client.WithMetadata(map[string]string{"tenant": "t2"}), client.WithUser("bob"))
	if err != nil {
		t.Fatal(err)
	}
	if page, err = c.Load(bounded(t), command, 0, 0); err != nil || page.Events[0].Metadata["tenant"] != "t2" || !page.Events[0].Time.Equal(at) || page.Events[0].UserID != "bob" {
		t.Errorf("event of a command: got %+v, %v", page.Events, err)
	}
}

func asyncBatches(t *testing.T, w *world) {
	c := w.client(t, func(cfg *client.Config) { cfg.BatchWait = time.Hour }) // only full batches and Flush send
	var all []*client.Pending
	for i := range 25 {
		stream := fresh("workflow")
		if i%2 == 0 {
			all = append(all, c.DispatchAsync(stream, workflow.CreateWorkflow{Name: "n", Tags: []string{}}))
		} else {
			all = append(all, c.AppendAsync(fresh("note"), event.ExpectedNone, note("x"), client.WithUser(fmt.Sprint("user", i%3))))
		}
	}
	rejected := c.DispatchAsync(fresh("workflow"), workflow.ArchiveWorkflow{Reason: "r"})
	wrong := c.DispatchAsync(fresh("workflow"), client.Command{})
	if err := c.Flush(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		select {
		case <-p.Done():
		default:
			t.Errorf("request %d is not settled after Flush", i)
			continue
		}
		if p.Err() != nil || p.Outcome().First != 1 || p.Outcome().RequestID != p.ID() {
			t.Errorf("request %d: got %+v, %v, want version 1", i, p.Outcome(), p.Err())
		}
	}
	var rejection *client.RejectedError
	if !errors.As(rejected.Err(), &rejection) || rejection.Code != "not-found" {
		t.Errorf("got %v, want a rejection with code not-found", rejected.Err())
	}
	if wrong.Err() == nil {
		t.Error("a command without data was taken")
	}
	if _, err := c.DispatchAsync(fresh("workflow"), workflow.CreateWorkflow{Name: "n", Tags: []string{}}).Wait(canceled()); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: got %v, want the context's end", err)
	}
}

func asyncRoom(t *testing.T, w *world) {
	c := w.client(t, func(cfg *client.Config) { cfg.InFlightMax, cfg.BatchMax = 1, 10 })
	var all []*client.Pending
	for range 12 {
		all = append(all, c.AppendAsync(fresh("note"), event.ExpectedNone, note("x")), c.DispatchAsync(fresh("workflow"), workflow.CreateWorkflow{Name: "n", Tags: []string{}}))
	}
	if err := c.Flush(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		if p.Err() != nil {
			t.Errorf("request %d: %v", i, p.Err())
		}
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func asyncOrder(t *testing.T, w *world) {
	c := w.client(t)
	streams := []event.StreamID{fresh("note"), fresh("note"), fresh("note")}
	const each = 40
	var all []*client.Pending
	for i := range each {
		for _, s := range streams {
			all = append(all, c.AppendAsync(s, event.ExpectExactly(event.Version(i)), note(fmt.Sprint(i))))
		}
	}
	if err := c.Flush(bounded(t)); err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		if p.Err() != nil {
			t.Fatalf("append %d: %v", i, p.Err())
		}
		if want := event.Version(i/len(streams) + 1); p.Outcome().First != want {
			t.Errorf("append %d: got version %d, want %d", i, p.Outcome().First, want)
		}
	}
}

func asyncQueueFull(t *testing.T, w *world) {
	c := w.client(t, func(cfg *client.Config) { cfg.QueueMax, cfg.BatchWait = 3, time.Hour })
	for range 3 {
		c.AppendAsync(fresh("note"), event.ExpectedAny, note("x"))
	}
	over := c.AppendAsync(fresh("note"), event.ExpectedAny, note("x"))
	if !errors.Is(over.Err(), client.ErrOverloaded) || errors.Is(over.Err(), client.ErrUnknownOutcome) {
		t.Errorf("got %v, want ErrOverloaded", over.Err())
	}
}

func closedClient(t *testing.T, w *world) {
	c := w.client(t)
	waiting := c.AppendAsync(fresh("note"), event.ExpectedAny, note("x"))
	if err := c.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if waiting.Err() != nil || waiting.Outcome().First != 1 {
		t.Errorf("queued before Close: got %+v, %v, want it accepted", waiting.Outcome(), waiting.Err())
	}
	_, err := c.Append(bounded(t), fresh("note"), event.ExpectedAny, note("x"))
	if !errors.Is(err, client.ErrClosed) {
		t.Errorf("Append: got %v, want ErrClosed", err)
	}
	if err := c.AppendAsync(fresh("note"), event.ExpectedAny, note("x")).Err(); !errors.Is(err, client.ErrClosed) {
		t.Errorf("AppendAsync: got %v, want ErrClosed", err)
	}
	err = c.Subscribe(bounded(t), client.Subscription{Name: "one", Category: "note", Handler: func(context.Context, client.Event) error { return nil }})
	if !errors.Is(err, client.ErrClosed) {
		t.Errorf("Subscribe: got %v, want ErrClosed", err)
	}
}

func callerLeaves(t *testing.T, w *world) {
	c := w.client(t)
	stream := fresh("note")
	w.must(t, c, stream, "warm")
	// The context ends at once: what was sent then may be stored or not.
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	<-ctx.Done()
	_, err := c.Append(ctx, stream, event.ExpectExactly(1), note("left"), client.WithID("left"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want the context's end", err)
	}
	var unknown *client.UnknownError
	if errors.Is(err, client.ErrUnknownOutcome) && (!errors.As(err, &unknown) || unknown.RequestID != "left" || !strings.Contains(err.Error(), "left")) {
		t.Errorf("got %v, want the request's id", err)
	}
	// The same request again, to know.
	outcome, err := c.Append(bounded(t), stream, event.ExpectExactly(1), note("left"), client.WithID("left"))
	if err != nil || outcome.First != 2 {
		t.Errorf("sent again: got %+v, %v, want version 2", outcome, err)
	}
	if got := texts(t, c, stream); strings.Count(got, "left") != 1 {
		t.Errorf("got %q, want it once", got)
	}
}

// Restarts need a world of their own.
func TestRequestsOutlastARestartOfIngest(t *testing.T) {
	t.Parallel()
	worlds(t, func(t *testing.T, w *world) {
		c := w.client(t, func(cfg *client.Config) {
			cfg.AnswerTimeout = 2 * time.Second
			cfg.Retry = client.Retry{Attempts: 20, Wait: 200 * time.Millisecond, WaitMax: time.Second}
		})
		stream := fresh("note")
		w.must(t, c, stream, "warm")
		w.stop()
		const n = 10
		results := make(chan error, n)
		for i := range n {
			go func() {
				_, err := c.Append(bounded(t), stream, event.ExpectedAny, note(fmt.Sprint("r", i)))
				results <- err
			}()
		}
		select {
		case err := <-results:
			t.Fatalf("answered while nobody was there: %v", err)
		case <-time.After(300 * time.Millisecond): // sendings meet nobody
		}
		w.start()
		for range n {
			if err := <-results; err != nil {
				t.Errorf("append through a restart: %v", err)
			}
		}
		got := texts(t, c, stream)
		for i := range n {
			if strings.Count(got+" ", fmt.Sprint("r", i, " ")) != 1 {
				t.Errorf("r%d: got %q, want it once", i, got)
			}
		}
	})
}

func TestARequestThatNobodyAnswersIsUnknownAndNamesItsID(t *testing.T) {
	t.Parallel()
	worlds(t, func(t *testing.T, w *world) {
		c := w.client(t, func(cfg *client.Config) {
			cfg.AnswerTimeout = 200 * time.Millisecond
			cfg.Retry = client.Retry{Attempts: 2, Wait: 10 * time.Millisecond}
		})
		w.stop()
		stream := fresh("note")
		_, err := c.Append(bounded(t), stream, event.ExpectedNone, note("x"), client.WithID("the-id"))
		var unknown *client.UnknownError
		if !errors.As(err, &unknown) || !errors.Is(err, client.ErrUnknownOutcome) || unknown.RequestID != "the-id" || unknown.Sendings != 3 || unknown.Stream != stream {
			t.Fatalf("got %v, want an UnknownError of the-id after 3 sendings", err)
		}
		if !strings.Contains(err.Error(), "the-id") {
			t.Errorf("got %q, want it to name the id", err)
		}
		w.start()
		outcome, err := w.client(t).Append(bounded(t), stream, event.ExpectedNone, note("x"), client.WithID("the-id"))
		if err != nil {
			t.Errorf("sent again: got %+v, %v, want it accepted or a duplicate", outcome, err)
		}
		if got := texts(t, c, stream); got != "x" {
			t.Errorf("got %q, want one event", got)
		}
	})
}
