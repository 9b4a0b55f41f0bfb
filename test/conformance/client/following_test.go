package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/pkg/client"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var following = []behaviour{
	{"a subscription filters by type, user and correlation", filters},
	{"a sequential subscription keeps the order of each stream", ordered},
	{"a sequential subscription handles streams at the same time, and a parallel one events", sameTime},
	{"what the handler cannot process is tried again and becomes a letter", letters},
	{"a panic of the handler is an error", panics},
	{"a handler can stop its subscription, and nothing later of its stream is handled", stopped},
	{"a subscription goes on behind what was handled", resumed},
	{"a replay begins anywhere and leaves the checkpoint alone", replayed},
	{"a moved checkpoint is where the subscription goes on", moved},
	{"a subscription can begin at the end", fromEnd},
	{"a full queue pauses the fetch", backpressure},
	{"what is wrong with a subscription is said", wrongSubscriptions},
	{"members of a group share the log", members},
}

// checkpoints keeps places over HTTP, as a program's table would.
type checkpoints struct {
	mu     sync.Mutex
	places map[string]string
	saves  int
}

func (c *checkpoints) Load(_ context.Context, name string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.places[name], nil
}

func (c *checkpoints) Save(_ context.Context, name, position string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.places == nil {
		c.places = map[string]string{}
	}
	c.places[name], c.saves = position, c.saves+1
	return nil
}

// follower is a subscription under way.
type follower struct {
	t      *testing.T
	events chan client.Event
	cancel context.CancelFunc
	ended  chan error
}

// follow runs sub; without a Handler its events come to take.
func follow(t *testing.T, c *client.Client, sub client.Subscription) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{t: t, events: make(chan client.Event, 10_000), cancel: cancel, ended: make(chan error, 1)}
	if sub.Category == "" {
		sub.Category = "note"
	}
	if sub.Handler == nil {
		sub.Handler = func(_ context.Context, e client.Event) error { f.events <- e; return nil }
	}
	go func() { f.ended <- c.Subscribe(ctx, sub) }()
	t.Cleanup(cancel)
	return f
}

// take waits for n events.
func (f *follower) take(n int) []client.Event {
	f.t.Helper()
	var all []client.Event
	timeout := time.After(50 * time.Second)
	for len(all) < n {
		select {
		case e := <-f.events:
			all = append(all, e)
		case err := <-f.ended:
			f.t.Fatalf("the subscription ended after %d of %d events: %v", len(all), n, err)
		case <-timeout:
			f.t.Fatalf("got %d events in time, want %d", len(all), n)
		}
	}
	return all
}

// end cancels and returns what Subscribe returned.
func (f *follower) end() error {
	f.t.Helper()
	f.cancel()
	return f.wait()
}

func (f *follower) wait() error {
	f.t.Helper()
	select {
	case err := <-f.ended:
		return err
	case <-time.After(50 * time.Second):
		f.t.Fatal("the subscription does not end")
		return nil
	}
}

func (f *follower) endClean() {
	f.t.Helper()
	if err := f.end(); err != nil {
		f.t.Errorf("Subscribe: got %v, want nil at the end of its context", err)
	}
}

func texter(t *testing.T, events []client.Event) []string {
	t.Helper()
	var all []string
	for _, e := range events {
		data, err := e.Data()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data.(noted).Text)
	}
	return all
}

// mark is a correlation that only one test's events have.
func mark(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), counter.Add(1)) }

func (w *world) marked(t *testing.T, c *client.Client, stream event.StreamID, correlation string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := c.Append(bounded(t), stream, event.ExpectedAny, note(text), client.WithCorrelation(correlation)); err != nil {
			t.Fatal(err)
		}
	}
}

func filters(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	stream := fresh("workflow")
	for i, command := range []any{
		workflow.CreateWorkflow{Name: "n", Tags: []string{}},
		workflow.AddNode{NodeID: "a", Kind: "k", Name: "a", Config: map[string]string{}},
		workflow.AddNode{NodeID: "b", Kind: "k", Name: "b", Config: map[string]string{}},
		workflow.ConnectNodes{From: "a", To: "b"},
		workflow.RemoveNode{NodeID: "a"},
	} {
		user := []string{"ann", "bob"}[i%2]
		if _, err := c.Dispatch(bounded(t), stream, command, client.WithUser(user), client.WithCorrelation(m)); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range map[string]struct {
		sub  client.Subscription
		want []event.Version
	}{
		"all of a correlation":  {client.Subscription{}, []event.Version{1, 2, 3, 4, 5, 6}},
		"a type":                {client.Subscription{Types: []string{"workflow.NodeAdded"}}, []event.Version{2, 3}},
		"types with a wildcard": {client.Subscription{Types: []string{"*.Node*"}}, []event.Version{2, 3, 4, 5, 6}},
		"several types":         {client.Subscription{Types: []string{"workflow.WorkflowCreated", "workflow.*Removed"}}, []event.Version{1, 6}},
		"a user":                {client.Subscription{Users: []string{"bob"}}, []event.Version{2, 4}},
		"a user and a type":     {client.Subscription{Users: []string{"ann"}, Types: []string{"workflow.Node*"}}, []event.Version{3, 5, 6}},
	} {
		f.sub.Name, f.sub.Category, f.sub.Correlations, f.sub.Replay = "filtered", "workflow", []string{m}, true
		got := follow(t, c, f.sub)
		if events := versions(got.take(len(f.want))); !slices.Equal(events, f.want) {
			t.Errorf("%s: got versions %v, want %v", name, events, f.want)
		}
		got.endClean()
	}
}

func ordered(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	streams := []event.StreamID{fresh("note"), fresh("note"), fresh("note"), fresh("note")}
	const each = 25
	for i := range each {
		for _, s := range streams {
			c.AppendAsync(s, event.ExpectedAny, note(fmt.Sprint(i)), client.WithCorrelation(m))
		}
	}
	if err := c.Flush(bounded(t)); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	last := map[string]event.Version{}
	done := make(chan struct{})
	left := each * len(streams)
	f := follow(t, c, client.Subscription{Name: "ordered", Correlations: []string{m}, Handler: func(_ context.Context, e client.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if e.Version != last[e.Stream.ID]+1 {
			t.Errorf("stream %s: got version %d behind %d", e.Stream, e.Version, last[e.Stream.ID])
		}
		last[e.Stream.ID] = e.Version
		if left--; left == 0 {
			close(done)
		}
		return nil
	}})
	select {
	case <-done:
	case err := <-f.ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(50 * time.Second):
		t.Fatalf("%d events are missing", left)
	}
	f.endClean()
}

func sameTime(t *testing.T, w *world) {
	c := w.client(t)
	for name, s := range map[string]struct {
		mode    client.Mode
		streams int
	}{"sequential": {client.Sequential, 3}, "parallel": {client.Parallel, 1}} {
		m := mark(t)
		var streams []event.StreamID
		for range s.streams {
			streams = append(streams, fresh("note"))
		}
		for i := range 3 {
			w.marked(t, c, streams[i%len(streams)], m, fmt.Sprint(i))
		}
		// Each handler waits until all three are in hand.
		var here atomic.Int32
		all := make(chan struct{})
		f := follow(t, c, client.Subscription{Name: "parallel", Correlations: []string{m}, Mode: s.mode, Workers: 3, Replay: true,
			Handler: func(ctx context.Context, _ client.Event) error {
				if here.Add(1) == 3 {
					close(all)
				}
				select {
				case <-all:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}})
		select {
		case <-all:
		case <-time.After(40 * time.Second):
			t.Errorf("%s: %d handlers at the same time, want 3", name, here.Load())
		}
		f.endClean()
	}
}

func letters(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	stream := fresh("note")
	w.marked(t, c, stream, m, "bad", "hopeless", "good")
	var mu sync.Mutex
	tries := map[string]int{}
	handled := make(chan string, 100)
	var taken []client.Letter
	sub := client.Subscription{
		Name: "failing", Correlations: []string{m}, Retry: client.Retry{Attempts: 2, Wait: time.Millisecond},
		Handler: func(_ context.Context, e client.Event) error {
			var n noted
			if err := e.Decode(&n); err != nil {
				return err
			}
			mu.Lock()
			tries[n.Text]++
			mu.Unlock()
			switch n.Text {
			case "bad":
				return errors.New("cannot take it")
			case "hopeless":
				return deadletter.Parked(deadletter.StageHandle, "business", errors.New("never"))
			}
			handled <- n.Text
			return nil
		},
	}
	if w.overHTTP {
		sub.OnLetter = func(_ context.Context, l client.Letter) error {
			mu.Lock()
			defer mu.Unlock()
			taken = append(taken, l)
			return nil
		}
	}
	f := follow(t, c, sub)
	select {
	case <-handled:
	case err := <-f.ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(50 * time.Second):
		t.Fatal("nothing was handled behind the letters")
	}
	f.endClean()
	if tries["bad"] != 3 || tries["hopeless"] != 1 {
		t.Errorf("got tries %v, want 3 of bad and 1 of hopeless", tries)
	}
	if !w.overHTTP {
		w.checkLetters(t, stream)
		return
	}
	if len(taken) != 2 || taken[0].Attempts != 3 || taken[0].Event.Version != 1 || taken[1].Event.Version != 2 || taken[0].Err == nil || taken[0].FirstAt.IsZero() {
		t.Errorf("got letters %+v, want those of versions 1 and 2", taken)
	}
}

func (w *world) checkLetters(t *testing.T, stream event.StreamID) {
	t.Helper()
	reader := w.kafka.Client(t, kgo.ConsumeTopics(topics.DeadLetters(w.ns, "sub.failing")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var found []*kgo.Record
	for len(found) < 2 {
		fetches := reader.PollFetches(bounded(t))
		if err := fetches.Err0(); err != nil {
			t.Fatalf("read the letters: %v", err)
		}
		found = append(found, fetches.Records()...)
	}
	text := func(r *kgo.Record, header string) string {
		value, _ := event.HeaderValue(r.Headers, header)
		return string(value)
	}
	for i, want := range []struct{ class, attempts, message string }{{"handler", "3", "cannot take it"}, {"business", "1", "never"}} {
		r := found[i]
		if string(r.Key) != stream.ID || text(r, deadletter.HeaderClass) != want.class || text(r, deadletter.HeaderAttempts) != want.attempts ||
			text(r, deadletter.HeaderConsumer) != "sub.failing" || !strings.Contains(text(r, deadletter.HeaderMessage), want.message) ||
			text(r, deadletter.HeaderStage) != string(deadletter.StageHandle) || text(r, event.HeaderSequence) != fmt.Sprint(i+1) {
			t.Errorf("letter %d: got key %s, headers %v, want %+v", i, r.Key, r.Headers, want)
		}
		if len(r.Value) == 0 || r.Value[0] != 0 {
			t.Errorf("letter %d: got value % x, want the event's", i, r.Value)
		}
	}
}

func panics(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	w.marked(t, c, fresh("note"), m, "x")
	letter := make(chan client.Letter, 1)
	f := follow(t, c, client.Subscription{
		Name: "panics", Correlations: []string{m}, Retry: client.Retry{Attempts: -1},
		Handler:  func(context.Context, client.Event) error { panic("the handler's own fault") },
		OnLetter: func(_ context.Context, l client.Letter) error { letter <- l; return nil },
	})
	select {
	case l := <-letter:
		if l.Attempts != 1 || !strings.Contains(l.Err.Error(), "the handler's own fault") {
			t.Errorf("got %+v, want one attempt and the panic's text", l)
		}
	case err := <-f.ended:
		t.Fatalf("ended: %v", err)
	case <-time.After(50 * time.Second):
		t.Fatal("no letter")
	}
	f.endClean()
}

func stopped(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	stream := fresh("note")
	w.marked(t, c, stream, m, "1", "2", "3")
	cause := errors.New("an operator must look")
	var mu sync.Mutex
	var seen []event.Version
	store := &checkpoints{}
	stops := true
	sub := client.Subscription{
		Name: "stopped", Correlations: []string{m}, Checkpoints: store,
		Handler: func(_ context.Context, e client.Event) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, e.Version)
			if stops && e.Version == 2 {
				return deadletter.Stopped("test", cause)
			}
			return nil
		},
	}
	if err := follow(t, c, sub).wait(); !errors.Is(err, cause) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v, want the handler's error with the event's version", err)
	}
	if !slices.Equal(seen, []event.Version{1, 2}) {
		t.Errorf("handled versions %v, want 1 and 2", seen)
	}
	mu.Lock()
	stops, seen = false, nil
	mu.Unlock()
	f := follow(t, c, sub)
	deadline := time.After(50 * time.Second)
	for n := 0; n < 2; {
		select {
		case err := <-f.ended:
			t.Fatalf("ended: %v", err)
		case <-deadline:
			t.Fatalf("handled %d after the stop, want 2", n)
		case <-time.After(10 * time.Millisecond):
		}
		mu.Lock()
		n = len(seen)
		mu.Unlock()
	}
	f.endClean()
	if !slices.Equal(seen, []event.Version{2, 3}) {
		t.Errorf("after the stop: handled versions %v, want 2 and 3", seen)
	}
}

func resumed(t *testing.T, w *world) {
	m := mark(t)
	stream := fresh("note")
	store := &checkpoints{}
	sub := client.Subscription{Name: "resumed", Correlations: []string{m}, Checkpoints: store}
	for round := range 3 {
		c := w.client(t) // as a program that is started again
		f := follow(t, c, sub)
		text := []string{fmt.Sprintf("%d-a", round), fmt.Sprintf("%d-b", round)}
		w.marked(t, c, stream, m, text...)
		if got := texter(t, f.take(2)); !slices.Equal(got, text) {
			t.Errorf("round %d: got %v, want %v: nothing twice after an orderly end", round, got, text)
		}
		f.endClean()
	}
}

// committed are the group's places.
func (w *world) committed(t *testing.T, name string) string {
	t.Helper()
	offsets, err := kadm.NewClient(w.kafka.Client(t)).FetchOffsets(t.Context(), topics.Group(w.ns, "sub."+name))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	offsets.Each(func(o kadm.OffsetResponse) { all = append(all, fmt.Sprintf("%d:%d %s", o.Partition, o.At, o.Metadata)) })
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func replayed(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	stream := fresh("note")
	store := &checkpoints{}
	w.marked(t, c, stream, m, "1", "2")
	sub := client.Subscription{Name: "replayed", Correlations: []string{m}, Checkpoints: store}
	live := follow(t, c, sub)
	live.take(2)
	live.endClean()
	before, saves := "", store.saves
	if !w.overHTTP {
		if before = w.committed(t, "replayed"); before == "" {
			t.Fatal("nothing is committed")
		}
	}
	page, err := c.Load(bounded(t), stream, 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(5 * time.Millisecond) // so that the stamps, which are milliseconds, differ
	w.marked(t, c, stream, m, "3", "4")
	later, err := c.Load(bounded(t), stream, 3, 1)
	if err != nil {
		t.Fatal(err)
	}
	var position string
	for name, from := range map[string]struct {
		from client.From
		want []string
	}{
		"start": {client.FromStart(), []string{"1", "2", "3", "4"}},
		"time":  {client.FromTime(later.Events[0].RecordedAt), []string{"3", "4"}},
	} {
		replay := sub
		replay.Replay, replay.From = true, from.from
		var got []string
		f := follow(t, c, replay)
		events := f.take(len(from.want))
		got = texter(t, events)
		if !slices.Equal(got, from.want) {
			t.Errorf("from %s (version 2 is of %s): got %v, want %v", name, page.Events[0].RecordedAt, got, from.want)
		}
		position = events[0].Position() // of what is handled by now
		f.endClean()
	}
	replay := sub
	replay.Replay, replay.From = true, client.FromPosition(position)
	f := follow(t, c, replay)
	w.marked(t, c, stream, m, "5")
	for { // what came before the position may come again, what follows must come
		if e := f.take(1); texter(t, e)[0] == "5" {
			break
		}
	}
	f.endClean()
	if w.overHTTP && store.saves != saves {
		t.Errorf("replays saved the checkpoint %d times", store.saves-saves)
	}
	if !w.overHTTP {
		if after := w.committed(t, "replayed"); after != before {
			t.Errorf("replays moved the group's places from %s to %s", before, after)
		}
	}
	live = follow(t, c, sub)
	if got := texter(t, live.take(3)); !slices.Equal(got, []string{"3", "4", "5"}) {
		t.Errorf("the subscription itself: got %v, want 3, 4, 5", got)
	}
	live.endClean()
	replay.From = client.FromPosition("of another world")
	if err := follow(t, c, replay).wait(); !errors.Is(err, client.ErrPosition) {
		t.Errorf("a foreign position: got %v, want ErrPosition", err)
	}
}

func moved(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	store := &checkpoints{}
	w.marked(t, c, fresh("note"), m, "1", "2")
	sub := client.Subscription{Name: "moved", Correlations: []string{m}, Checkpoints: store}
	f := follow(t, c, sub)
	f.take(2)
	if !w.overHTTP {
		again := sub
		again.Replay, again.MoveCheckpoint = true, true
		if err := follow(t, c, again).wait(); err == nil || !strings.Contains(err.Error(), "living members") {
			t.Errorf("while a member lives: got %v, want to be told to stop it", err)
		}
	}
	f.endClean()
	again := sub
	again.Replay, again.MoveCheckpoint = true, true
	f = follow(t, c, again)
	if got := texter(t, f.take(2)); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %v, want all again", got)
	}
	f.endClean()
	f = follow(t, c, sub)
	w.marked(t, c, fresh("note"), m, "3")
	if got := texter(t, f.take(1)); got[0] != "3" {
		t.Errorf("got %v, want what came later", got)
	}
	f.endClean()
}

func fromEnd(t *testing.T, w *world) {
	c := w.client(t)
	m := mark(t)
	stream := fresh("note")
	w.marked(t, c, stream, m, "before")
	f := follow(t, c, client.Subscription{Name: "ends", Correlations: []string{m}, From: client.FromEnd(), Checkpoints: &checkpoints{}})
	// The subscription has begun some time from now on: append until one arrives.
	for i := 0; ; i++ {
		w.marked(t, c, stream, m, fmt.Sprint(i))
		select {
		case e := <-f.events:
			if got := texter(t, []client.Event{e})[0]; got == "before" {
				t.Errorf("got %q, which came before the end", got)
			}
		case err := <-f.ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
	f.endClean()
}

func backpressure(t *testing.T, w *world) {
	registerer := prometheus.NewRegistry()
	c := w.client(t, func(cfg *client.Config) { cfg.Registerer = registerer })
	m := mark(t)
	const events, queue = 60, 10
	for range events {
		c.AppendAsync(fresh("note"), event.ExpectedAny, note("x"), client.WithCorrelation(m))
	}
	if err := c.Flush(bounded(t)); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	var handled atomic.Int32
	f := follow(t, c, client.Subscription{Name: "slow", Correlations: []string{m}, Workers: 2, QueueMax: queue, Replay: true,
		Handler: func(context.Context, client.Event) error { <-release; handled.Add(1); return nil }})
	pauses := func() float64 { return metric(t, registerer, "foldstream_client_subscription_pauses_total") }
	for deadline := time.Now().Add(50 * time.Second); pauses() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the fetch is not paused")
		}
		select {
		case err := <-f.ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if queued := metric(t, registerer, "foldstream_client_subscription_queue_events"); queued > queue {
		t.Errorf("got %v events queued, want at most %d", queued, queue)
	}
	close(release)
	for deadline := time.Now().Add(50 * time.Second); handled.Load() < events; {
		if time.Now().After(deadline) {
			t.Fatalf("handled %d of %d after the pause", handled.Load(), events)
		}
		select {
		case err := <-f.ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	f.endClean()
	if n := handled.Load(); n != events {
		t.Errorf("handled %d, want %d", n, events)
	}
}

// metric sums a metric over its labels.
func metric(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

func wrongSubscriptions(t *testing.T, w *world) {
	c := w.client(t)
	ok := func(context.Context, client.Event) error { return nil }
	for name, s := range map[string]struct {
		sub  client.Subscription
		want string
	}{
		"no handler":                  {client.Subscription{Name: "one", Category: "note"}, "Handler is nil"},
		"a bad name":                  {client.Subscription{Name: "One", Category: "note", Handler: ok}, "subscription"},
		"no category":                 {client.Subscription{Name: "one", Handler: ok}, "category"},
		"a checkpoint moved to where": {client.Subscription{Name: "one", Category: "note", Handler: ok, MoveCheckpoint: true}, "MoveCheckpoint"},
		"too many workers":            {client.Subscription{Name: "one", Category: "note", Handler: ok, Workers: 10_000}, "Workers"},
		"an unknown category":         {client.Subscription{Name: "one", Category: "nothing", Handler: ok}, client.ErrNoCategory.Error()},
	} {
		if err := c.Subscribe(bounded(t), s.sub); err == nil || !strings.Contains(err.Error(), s.want) {
			t.Errorf("%s: got %v, want it to say %q", name, err, s.want)
		}
	}
	if w.overHTTP {
		return
	}
	err := c.Subscribe(bounded(t), client.Subscription{Name: "nowhere", Category: "note", Handler: ok})
	if err == nil || !strings.Contains(err.Error(), "topics apply") || !strings.Contains(err.Error(), "sub.nowhere") {
		t.Errorf("no topic for letters: got %v, want the command that makes it", err)
	}
}

func members(t *testing.T, w *world) {
	if w.overHTTP {
		return // there are no groups over HTTP
	}
	m := mark(t)
	c := w.client(t)
	sub := client.Subscription{Name: "members", Correlations: []string{m}}
	one := follow(t, c, sub)
	for i := range 5 {
		w.marked(t, c, fresh("note"), m, fmt.Sprint("one-", i))
	}
	one.take(5)
	two := follow(t, w.client(t), sub)
	for deadline := time.Now().Add(40 * time.Second); len(two.events) == 0; { // until the second one has a share
		w.marked(t, c, fresh("note"), m, "both")
		if time.Now().After(deadline) {
			t.Fatal("the second member gets nothing")
		}
	}
	one.endClean() // the second one takes over
	stream := fresh("note")
	for p := range int32(partitions) { // each partition has one
		for topics.Partition([]byte(stream.ID), partitions) != p {
			stream = fresh("note")
		}
		w.marked(t, c, stream, m, fmt.Sprint("last-", p))
	}
	last := map[string]bool{}
	for len(last) < partitions {
		if text := texter(t, two.take(1))[0]; strings.HasPrefix(text, "last-") {
			last[text] = true
		}
	}
	two.endClean()
}
