package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

const partitions = 3

// world is a namespace with a commands topic and a reply topic, and somebody who answers as ingest
// would.
type world struct {
	t      *testing.T
	kafka  *testkit.Kafka
	ns     string
	codec  *codec.Codec
	client *kgo.Client

	mu   sync.Mutex
	seen []*kgo.Record
}

// answer makes the replies to the nth record of a request.
type answer func(r event.Request, sending int) []codec.Reply

func newWorld(t *testing.T, k *testkit.Kafka, reply answer) *world {
	t.Helper()
	text, err := avro.Files.ReadFile("foldstream/Reply.v1.avsc")
	if err != nil {
		t.Fatal(err)
	}
	registered, err := codec.RegisterText(1, codec.TypeReply, 1, event.KindSystem, string(text))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, kafka: k, ns: testkit.Namespace(t), codec: codec.New(codec.NewStaticReader(registered), codec.Config{})}
	k.CreateTopic(t, topics.Commands(w.ns, "note"), partitions, nil)
	k.CreateTopic(t, topics.Replies(w.ns), partitions, nil)
	adm := kadm.NewClient(k.Client(t))
	testkit.Await(t, "the broker knows its topics", 30*time.Second, func(ctx context.Context) bool {
		_, err := topics.IDs(ctx, adm, topics.Commands(w.ns, "note"), topics.Replies(w.ns))
		return err == nil
	})
	w.client = k.Client(t, kgo.ConsumeTopics(topics.Commands(w.ns, "note")), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.serve(ctx, reply) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

// serve answers each record; a stranger's answer goes before each.
func (w *world) serve(ctx context.Context, reply answer) {
	sendings := map[string]int{}
	for {
		fetches := w.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachRecord(func(r *kgo.Record) {
			w.mu.Lock()
			w.seen = append(w.seen, r)
			w.mu.Unlock()
			request, err := event.ParseRequest(r.Headers)
			if err != nil {
				w.t.Errorf("headers: %v", err)
				return
			}
			sendings[request.ID]++
			for _, one := range reply(request, sendings[request.ID]) {
				w.reply(ctx, request, []byte("stranger"), one)
				w.reply(ctx, request, request.ReplyKey, one)
			}
		})
	}
}

func (w *world) reply(ctx context.Context, to event.Request, key []byte, reply codec.Reply) {
	binding, err := w.codec.Bind(ctx, codec.ReplyDef())
	if err != nil {
		w.t.Error(err)
		return
	}
	reply.RequestID, reply.Errors = to.ID, []string{}
	value, err := binding.Append(nil, reply)
	if err != nil {
		w.t.Error(err)
		return
	}
	err = w.client.ProduceSync(ctx, &kgo.Record{Topic: to.ReplyTo.Topic, Partition: to.ReplyTo.Partition, Key: key, Value: value}).FirstErr()
	if err != nil && ctx.Err() == nil {
		w.t.Error(err)
	}
}

func (w *world) records() []*kgo.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*kgo.Record(nil), w.seen...)
}

// notOwner is an engine that owns nothing.
func notOwner(context.Context, engine.Submission) (engine.Outcome, error) {
	return engine.Outcome{}, engine.ErrNotOwner
}

func (w *world) config(submit func(context.Context, engine.Submission) (engine.Outcome, error)) Config {
	return Config{Namespace: w.ns, Categories: []string{"note"}, Submit: submit, Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Codec: w.codec}
}

// run starts a gateway; stop ends its Run and waits.
func (w *world) run(cfg Config) (g *Gateway, stop func()) {
	w.t.Helper()
	g, err := New(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("Run: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return g, stop
}

func onBrokers(t *testing.T, test func(t *testing.T, k *testkit.Kafka)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

func request(id string) Request {
	return Request{Category: "note", StreamID: "n", Request: event.Request{ID: id, Type: "note.Noted", Expected: event.ExpectExactly(4), UserID: "ada"}, Value: []byte("value")}
}

// silent never answers.
func silent(event.Request, int) []codec.Reply { return nil }

func accepted(attempt string) codec.Reply {
	return codec.Reply{Outcome: "accepted", Category: "note", StreamID: "n", FirstVersion: 5, LastVersion: 6, Partition: 1, Offset: 7, Attempt: attempt}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantKind(t *testing.T, o engine.Outcome, err error, want engine.OutcomeKind) {
	t.Helper()
	if err != nil || o.Kind != want {
		t.Errorf("got %+v and %v, want %s", o, err, want)
	}
}

func TestAnOwnerInMemoryIsAskedFirstAndAgainWhileItDoesNotKnow(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, silent)
		var asked []engine.Submission
		g, _ := w.run(w.config(func(_ context.Context, s engine.Submission) (engine.Outcome, error) {
			asked = append(asked, s)
			if len(asked) < 3 {
				return engine.Outcome{Kind: engine.OutcomeUnknown}, nil
			}
			return engine.Outcome{Kind: engine.OutcomeDuplicate, First: 1, Last: 2}, nil
		}))
		r := request("a")
		r.FreshID = true
		o, err := g.Do(within(t, 10*time.Second), r)
		wantKind(t, o, err, engine.OutcomeAccepted) // a duplicate of itself
		if len(asked) != 3 {
			t.Fatalf("asked %d times, want 3", len(asked))
		}
		for _, s := range asked {
			if s.Request.Time.IsZero() || !s.Request.Time.Equal(asked[0].Request.Time) || !s.Request.DedupeUntil.Equal(asked[0].Request.DedupeUntil) || s.Request.ID != "a" {
				t.Errorf("asked again with another time: %+v", s.Request)
			}
			if ahead := time.Until(s.Request.DedupeUntil); ahead < 10*time.Second || ahead > 20*time.Second {
				t.Errorf("the id is remembered for %s, want behind the deadline", ahead)
			}
		}
		if n := len(w.records()); n != 0 {
			t.Errorf("%d records on the commands topic, want none", n)
		}
		asked = nil
		o, err = g.Do(within(t, 10*time.Second), request("b"))
		wantKind(t, o, err, engine.OutcomeDuplicate) // perhaps of a call before
	})
}

func TestWhatIsBusyIsOverloadedUnlessItMayBeStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Kafkas(t)[0], silent)
	var answers []engine.OutcomeKind
	g, _ := w.run(w.config(func(context.Context, engine.Submission) (engine.Outcome, error) {
		if len(answers) == 0 {
			return engine.Outcome{}, engine.ErrBusy
		}
		kind := answers[0]
		answers = answers[1:]
		return engine.Outcome{Kind: kind}, nil
	}))
	if _, err := g.Do(within(t, 10*time.Second), request("a")); !errors.Is(err, ErrOverloaded) {
		t.Errorf("busy: got %v, want ErrOverloaded", err)
	}
	answers = []engine.OutcomeKind{engine.OutcomeUnknown}
	o, err := g.Do(within(t, 100*time.Millisecond), request("b"))
	wantKind(t, o, err, engine.OutcomeUnknown)
}

func TestABusyStreamsUnknownOutcomesAreHandedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Kafkas(t)[0], silent)
	var asked atomic.Int64
	var remembered atomic.Int64
	cfg := w.config(func(_ context.Context, s engine.Submission) (engine.Outcome, error) {
		asked.Add(1)
		if !s.Request.DedupeUntil.IsZero() {
			remembered.Add(1)
			return engine.Outcome{Kind: engine.OutcomeConflict}, nil
		}
		return engine.Outcome{Kind: engine.OutcomeUnknown}, nil
	})
	second := time.Now()
	cfg.Clock = func() time.Time { return second } // all calls come in one second
	g, _ := w.run(cfg)
	const calls = 10_000 // of one stream: more than idsAhead lets be remembered for at least dedupeAfter
	ctx := within(t, 10*time.Second)
	for i := range calls {
		if _, err := g.Do(ctx, request(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if asked.Load() != calls {
		t.Errorf("asked %d times for %d requests: what is not remembered must not be sent again", asked.Load(), calls)
	}
	if most := int64(idsAhead / dedupeAfter.Seconds()); remembered.Load() == 0 || remembered.Load() > most {
		t.Errorf("%d ids are to be remembered, want some and at most %d", remembered.Load(), most)
	}
}

func TestAStreamWhoseMemoryIsFullStillTakesWhatNeedNotBeRemembered(t *testing.T) {
	t.Parallel()
	full := engine.Outcome{Kind: engine.OutcomeRejected, Code: engine.CodeCapacity, Message: "full"}
	own := request("b")
	own.Request.DedupeUntil = time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for name, c := range map[string]struct {
		request Request
		want    engine.OutcomeKind
		asked   int
	}{
		"the gateway's wish is given up": {request("a"), engine.OutcomeAccepted, 2},
		"the client's is not":            {own, engine.OutcomeRejected, 1},
	} {
		t.Run(name+", in memory", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testkit.Kafkas(t)[0], silent)
			asked := 0
			g, _ := w.run(w.config(func(_ context.Context, s engine.Submission) (engine.Outcome, error) {
				if asked++; !s.Request.DedupeUntil.IsZero() {
					return full, nil
				}
				return engine.Outcome{Kind: engine.OutcomeAccepted, First: 1, Last: 1}, nil
			}))
			o, err := g.Do(within(t, 10*time.Second), c.request)
			wantKind(t, o, err, c.want)
			if asked != c.asked {
				t.Errorf("asked %d times, want %d", asked, c.asked)
			}
		})
		t.Run(name+", through the topic", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testkit.Kafkas(t)[0], func(r event.Request, _ int) []codec.Reply {
				if !r.DedupeUntil.IsZero() {
					return []codec.Reply{{Outcome: string(full.Kind), Code: full.Code, Message: full.Message, Partition: -1, Offset: -1, Attempt: r.Attempt}}
				}
				return []codec.Reply{accepted(r.Attempt)}
			})
			g, _ := w.run(w.config(notOwner))
			o, err := g.Do(within(t, 20*time.Second), c.request)
			wantKind(t, o, err, c.want)
			if n := len(w.records()); n != c.asked {
				t.Errorf("%d records, want %d", n, c.asked)
			}
		})
	}
	t.Run("a refusal without a wish is final", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, testkit.Kafkas(t)[0], silent)
		asked := 0
		g, _ := w.run(w.config(func(context.Context, engine.Submission) (engine.Outcome, error) {
			asked++
			return full, nil
		}))
		o, err := g.Do(within(t, 10*time.Second), request("c"))
		wantKind(t, o, err, engine.OutcomeRejected)
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}

func TestAnotherInstancesRequestGoesThroughTheTopic(t *testing.T) {
	t.Parallel()
	onBrokers(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, func(r event.Request, _ int) []codec.Reply { return []codec.Reply{accepted(r.Attempt)} })
		g, _ := w.run(w.config(notOwner))
		r := request("a")
		r.Request.Extra = []event.Header{{Key: "meta", Value: []byte("data")}}
		o, err := g.Do(within(t, 20*time.Second), r)
		wantKind(t, o, err, engine.OutcomeAccepted)
		if o.First != 5 || o.Last != 6 || o.Partition != 1 || o.Offset != 7 {
			t.Errorf("outcome: got %+v", o)
		}
		records := w.records()
		if len(records) != 1 {
			t.Fatalf("%d records, want 1", len(records))
		}
		rec := records[0]
		got, err := event.ParseRequest(rec.Headers)
		if err != nil {
			t.Fatal(err)
		}
		if rec.Partition != topics.Partition([]byte("n"), partitions) || string(rec.Key) != "n" || string(rec.Value) != "value" {
			t.Errorf("record: got %s[%d] %s %s", rec.Topic, rec.Partition, rec.Key, rec.Value)
		}
		if got.ID != "a" || got.Type != "note.Noted" || got.Expected != event.ExpectExactly(4) || got.UserID != "ada" || got.Attempt != "1" ||
			got.Time.IsZero() || got.DedupeUntil.IsZero() || got.ReplyTo.Topic != topics.Replies(w.ns) || got.ReplyTo.Partition < 0 || len(got.Extra) != 1 {
			t.Errorf("request: got %+v", got)
		}
	})
}

func TestOnlyTheAnswerToTheLastSendingCountsWhereNothingWasStored(t *testing.T) {
	t.Parallel()
	conflict := func(attempt string) codec.Reply {
		return codec.Reply{Outcome: "conflict", ActualVersion: 9, Partition: -1, Offset: -1, Attempt: attempt}
	}
	for name, c := range map[string]struct {
		replies map[int][]codec.Reply
		want    engine.OutcomeKind
		sent    int
	}{
		"no answer to the first, then one":                   {map[int][]codec.Reply{2: {accepted("2")}}, engine.OutcomeAccepted, 2},
		"a late conflict of the first is not the second's":   {map[int][]codec.Reply{2: {conflict("1"), accepted("2")}}, engine.OutcomeAccepted, 2},
		"a late acceptance of the first is":                  {map[int][]codec.Reply{2: {accepted("1")}}, engine.OutcomeAccepted, 2},
		"a duplicate is":                                     {map[int][]codec.Reply{2: {{Outcome: "duplicate", LastVersion: 3, Attempt: "2"}}}, engine.OutcomeDuplicate, 2},
		"unknown is asked for again":                         {map[int][]codec.Reply{1: {{Outcome: "unknown", Attempt: "1"}}, 2: {conflict("2")}}, engine.OutcomeConflict, 2},
		"a repeat of an unknown of before is not the answer": {map[int][]codec.Reply{2: {{Outcome: "unknown", Attempt: "1"}, conflict("2")}}, engine.OutcomeConflict, 2},
		"unknown to the end":                                 {map[int][]codec.Reply{1: {{Outcome: "unknown", Attempt: "1"}}, 2: {{Outcome: "unknown", Attempt: "2"}}, 3: {{Outcome: "unknown", Attempt: "3"}}}, engine.OutcomeUnknown, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, testkit.Kafkas(t)[0], func(_ event.Request, sending int) []codec.Reply { return c.replies[sending] })
			cfg := w.config(notOwner)
			cfg.AnswerTimeout, cfg.SendingsMax = 100*time.Millisecond, 3
			g, _ := w.run(cfg)
			o, err := g.Do(within(t, 20*time.Second), request("a"))
			wantKind(t, o, err, c.want)
			records := w.records()
			if len(records) != c.sent && c.sent == 3 || len(records) < c.sent {
				t.Errorf("%d records, want %d", len(records), c.sent)
			}
			for i, rec := range records {
				first, _ := event.ParseRequest(records[0].Headers)
				got, _ := event.ParseRequest(rec.Headers)
				if got.Attempt != fmt.Sprint(i+1) || string(rec.Value) != "value" || !got.Time.Equal(first.Time) || !got.DedupeUntil.Equal(first.DedupeUntil) || string(got.ReplyKey) != string(first.ReplyKey) {
					t.Errorf("sending %d: got %+v, want the first's with attempt %d", i+1, got, i+1)
				}
			}
		})
	}
}

func TestTheDeadlineEndsTheWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Kafkas(t)[0], silent)
	g, _ := w.run(w.config(notOwner))
	o, err := g.Do(within(t, 50*time.Millisecond), request("a"))
	wantKind(t, o, err, engine.OutcomeUnknown)
	if g.pending.len() != 0 {
		t.Errorf("%d requests wait, want none", g.pending.len())
	}
}

func TestNoMoreWaitThanMay(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 10)
	w := newWorld(t, testkit.Kafkas(t)[0], func(event.Request, int) []codec.Reply { arrived <- struct{}{}; return nil })
	cfg := w.config(notOwner)
	cfg.PendingMax = 1
	g, _ := w.run(cfg)
	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	first := make(chan engine.Outcome, 1)
	go func() { o, _ := g.Do(ctx, request("a")); first <- o }()
	<-arrived
	if _, err := g.Do(ctx, request("b")); !errors.Is(err, ErrOverloaded) {
		t.Errorf("got %v, want ErrOverloaded", err)
	}
	cancel()
	wantKind(t, <-first, nil, engine.OutcomeUnknown)
}

func TestWhatFitsNoRecordIsInvalid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testkit.Kafkas(t)[0], silent)
	g, _ := w.run(w.config(notOwner))
	r := request("a")
	r.Value = []byte(strings.Repeat("x", 2<<20))
	o, err := g.Do(within(t, 20*time.Second), r)
	wantKind(t, o, err, engine.OutcomeInvalid)
	if o.Code != engine.CodeTooLarge {
		t.Errorf("code: got %s, want %s", o.Code, engine.CodeTooLarge)
	}
}

func TestRunEndsBehindTheLastAnswer(t *testing.T) {
	t.Parallel()
	arrived, let := make(chan struct{}), make(chan struct{})
	w := newWorld(t, testkit.Kafkas(t)[0], func(r event.Request, _ int) []codec.Reply {
		close(arrived)
		<-let
		return []codec.Reply{accepted(r.Attempt)}
	})
	g, stop := w.run(w.config(notOwner))
	got := make(chan engine.Outcome, 1)
	go func() { o, _ := g.Do(within(t, 20*time.Second), request("a")); got <- o }()
	<-arrived
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	close(let)
	wantKind(t, <-got, nil, engine.OutcomeAccepted)
	<-stopped
	o, err := g.Do(within(t, 20*time.Second), request("b"))
	wantKind(t, o, err, engine.OutcomeUnknown)
}

func TestRunDoesNotWaitForeverForAnAnswer(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	w := newWorld(t, testkit.Kafkas(t)[0], func(event.Request, int) []codec.Reply { close(arrived); return nil })
	cfg := w.config(notOwner)
	cfg.DrainTimeout = 50 * time.Millisecond
	g, stop := w.run(cfg)
	got := make(chan engine.Outcome, 1)
	go func() { o, _ := g.Do(within(t, time.Minute), request("a")); got <- o }()
	<-arrived
	stop()
	wantKind(t, <-got, nil, engine.OutcomeUnknown)
}

func TestNewNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := New(t.Context(), Config{Namespace: "No", PendingMax: -1}); err == nil ||
		!strings.Contains(err.Error(), "Categories is empty") || !strings.Contains(err.Error(), "PendingMax") || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("got %v, want every fault", err)
	}
	w := newWorld(t, testkit.Kafkas(t)[0], silent)
	cfg := w.config(notOwner)
	cfg.Categories = []string{"other"}
	var missing *topics.MissingError
	if _, err := New(t.Context(), cfg); !errors.As(err, &missing) {
		t.Errorf("got %v, want a MissingError", err)
	}
	g, _ := w.run(w.config(notOwner))
	if _, err := g.Do(t.Context(), Request{Category: "other"}); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("got %v, want the category that is not served", err)
	}
}
