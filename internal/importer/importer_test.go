package importer

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

const partitions = 3

// note is the command of these tests.
type note struct {
	Text string `avro:"text"`
}

var noteDef = codec.TypeDef{Name: "note.Make", Version: 1, Kind: event.KindCommand, GoType: reflect.TypeFor[note]()}

// world is a namespace with a commands topic, a reply topic, and somebody who answers.
type world struct {
	t      *testing.T
	kafka  *testkit.Kafka
	ns     string
	codec  *codec.Codec
	client *kgo.Client

	mu   sync.Mutex
	seen []*kgo.Record
}

// answer decides the reply to the nth sending of a command; "" is none.
type answer func(id string, sending int) (outcome string)

func newWorld(t *testing.T, reply answer) *world {
	t.Helper()
	w := &world{t: t, kafka: testkit.Kafkas(t)[0], ns: testkit.Namespace(t), codec: testCodec(t)}
	w.kafka.CreateTopic(t, topics.Commands(w.ns, "note"), partitions, nil)
	w.kafka.CreateTopic(t, topics.Replies(w.ns), partitions, nil)
	w.client = w.kafka.Client(t, kgo.ConsumeTopics(topics.Commands(w.ns, "note")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.serve(ctx, reply) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

func testCodec(t *testing.T) *codec.Codec {
	t.Helper()
	replySchema, err := fs.ReadFile(avro.Files, "foldstream/Reply.v1.avsc")
	if err != nil {
		t.Fatal(err)
	}
	var all []*codec.Registered
	for i, r := range []struct {
		typ, text string
		kind      event.Kind
	}{
		{codec.TypeReply, string(replySchema), event.KindSystem},
		{"note.Make", `{"type": "record", "namespace": "note", "name": "Make", "fields": [{"name": "text", "type": "string"}]}`, event.KindCommand},
	} {
		registered, err := codec.RegisterText(int32(i+1), r.typ, 1, r.kind, r.text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, registered)
	}
	return codec.New(codec.NewStaticReader(all...), codec.Config{})
}

// serve reads commands and answers each, as ingest would, with a stranger's answer before it.
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
			id := header(r, event.HeaderID)
			sendings[id]++
			if outcome := reply(id, sendings[id]); outcome != "" {
				w.reply(ctx, r, "stranger-"+id, OutcomeRejected)
				w.reply(ctx, r, id, outcome)
			}
		})
	}
}

func (w *world) reply(ctx context.Context, to *kgo.Record, id, outcome string) {
	binding, err := w.codec.Bind(ctx, codec.ReplyDef())
	if err != nil {
		w.t.Error(err)
		return
	}
	value, err := binding.Append(nil, codec.Reply{
		RequestID: id, Outcome: outcome, Category: "note", StreamID: string(to.Key), Code: "code", Errors: []string{},
	})
	if err != nil {
		w.t.Error(err)
		return
	}
	where, err := event.ParseReplyTo(header(to, event.HeaderReplyTo))
	if err != nil {
		w.t.Error(err)
		return
	}
	err = w.client.ProduceSync(ctx, &kgo.Record{Topic: where.Topic, Partition: where.Partition, Key: []byte(id), Value: value}).FirstErr()
	if err != nil && ctx.Err() == nil {
		w.t.Error(err)
	}
}

func (w *world) records() []*kgo.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

func (w *world) config() Config {
	return Config{
		Namespace: w.ns, Kafka: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Codec: w.codec,
		Types: []codec.TypeDef{noteDef}, AnswerTimeout: time.Minute,
	}
}

func header(r *kgo.Record, name string) string {
	value, _ := event.HeaderValue(r.Headers, name)
	return string(value)
}

var t0 = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// notes yields n commands over seven streams.
func notes(n int) iter.Seq[Command] {
	return func(yield func(Command) bool) {
		for i := range n {
			if !yield(Command{
				Category: "note", StreamID: fmt.Sprintf("s-%d", i%7), Type: "note.Make", ID: fmt.Sprintf("c-%03d", i),
				Time: t0, Expected: event.ExpectedAny, CorrelationID: "corr", Data: note{Text: strconv.Itoa(i)},
			}) {
				return
			}
		}
	}
}

func TestEveryCommandIsSentInOrderOnItsPartitionAndCounted(t *testing.T) {
	t.Parallel()
	byLastDigit := map[byte]string{'1': OutcomeRejected, '2': OutcomeConflict, '3': OutcomeInvalid, '4': OutcomeDuplicate}
	w := newWorld(t, func(id string, _ int) string {
		if outcome, special := byLastDigit[id[len(id)-1]]; special {
			return outcome
		}
		return OutcomeAccepted
	})
	cfg := w.config()
	told := 0
	cfg.Answered = func(codec.Reply) { told++ }
	report, err := Run(t.Context(), cfg, notes(200))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{OutcomeAccepted: 120, OutcomeRejected: 20, OutcomeConflict: 20, OutcomeInvalid: 20, OutcomeDuplicate: 20}
	for outcome, n := range want {
		if report.Outcomes[outcome] != n {
			t.Errorf("%s: got %d, want %d", outcome, report.Outcomes[outcome], n)
		}
	}
	if report.Commands != 200 || told != 200 || report.Unanswered != 0 || report.SentAgain != 0 || report.Failed() != 60 || len(report.Failures) != failuresMax {
		t.Errorf("got %+v and %d told, want 200 of each, 60 failed, the first %d named", report, told, failuresMax)
	}
	checkOrder(t, w.records())
	checkHeaders(t, w.records()[0])
}

func checkOrder(t *testing.T, records []*kgo.Record) {
	t.Helper()
	last := map[string]string{}
	for _, r := range records {
		if want := topics.Partition(r.Key, partitions); r.Partition != want {
			t.Errorf("stream %s: got partition %d, want %d", r.Key, r.Partition, want)
		}
		id := header(r, event.HeaderID)
		if id <= last[string(r.Key)] {
			t.Errorf("stream %s: %s stands behind %s", r.Key, id, last[string(r.Key)])
		}
		last[string(r.Key)] = id
	}
}

func checkHeaders(t *testing.T, r *kgo.Record) {
	t.Helper()
	request, err := event.ParseRequest(r.Headers)
	if err != nil {
		t.Fatalf("headers: %v", err)
	}
	if request.Type != "note.Make" || !request.Time.Equal(t0) || request.CorrelationID != "corr" || request.ReplyTo.Partition < 0 {
		t.Errorf("got %+v", request)
	}
	if ahead := time.Until(request.DedupeUntil); ahead < 23*time.Hour || ahead > event.DedupeAheadMax {
		t.Errorf("%s is %s ahead, want just below a day", event.HeaderDedupeUntil, ahead)
	}
}

func TestALostOrUnknownAnswerIsAskedForAgainUnderTheSameID(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{"lost": "", "unknown": OutcomeUnknown} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(id string, sending int) string {
				if id == "c-001" && sending == 1 {
					return first
				}
				if sending > 1 {
					return OutcomeDuplicate
				}
				return OutcomeAccepted
			})
			cfg := w.config()
			cfg.AnswerTimeout = 50 * time.Millisecond
			cfg.InFlightMax = 1
			report, err := Run(t.Context(), cfg, notes(3))
			if err != nil {
				t.Fatal(err)
			}
			if report.SentAgain < 1 || report.RepeatedDuplicates < 1 || report.Outcomes[OutcomeDuplicate] != report.RepeatedDuplicates {
				t.Errorf("got %+v, want one sent again and a duplicate of it", report)
			}
			attempts := []string{}
			for _, r := range w.records() {
				if header(r, event.HeaderID) == "c-001" {
					attempts = append(attempts, header(r, event.HeaderAttempt))
				}
			}
			if len(attempts) < 2 || attempts[0] != "" || attempts[1] != "2" {
				t.Errorf("attempts of c-001: got %q, want a second one marked 2", attempts)
			}
		})
	}
}

func TestACommandThatIsNeverAnsweredEndsTheRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(string, int) string { return "" })
	cfg := w.config()
	cfg.AnswerTimeout, cfg.AttemptsMax = time.Millisecond, 3
	report, err := Run(t.Context(), cfg, notes(1))
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "c-000") || !strings.Contains(err.Error(), "is ingest running") {
		t.Errorf("got %v, want ErrNoAnswer with the command's id", err)
	}
	if report.Unanswered != 1 || report.SentAgain != 2 {
		t.Errorf("got %+v, want one unanswered after two repeats", report)
	}
}

func TestNoMoreThanInFlightMaxAreUnanswered(t *testing.T) {
	t.Parallel()
	const inFlightMax = 5
	received := make(chan struct{}, 100)
	w := newWorld(t, func(string, int) string {
		received <- struct{}{}
		return ""
	})
	cfg := w.config()
	cfg.InFlightMax = inFlightMax
	taken := 0 // by the sending goroutine, which is Run's own
	counted := func(yield func(Command) bool) {
		for c := range notes(100) {
			taken++
			if !yield(c) {
				return
			}
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted by the test")
	go func() {
		for range inFlightMax {
			<-received
		}
		cancel(interrupted)
	}()
	report, err := Run(ctx, cfg, counted)
	if !errors.Is(err, interrupted) {
		t.Errorf("got %v, want the cause of the context's end", err)
	}
	// One more was taken from the input and waits for its turn.
	if report.Commands != inFlightMax || report.Unanswered != inFlightMax || taken > inFlightMax+1 {
		t.Errorf("got %+v and %d taken, want %d sent and unanswered", report, taken, inFlightMax)
	}
}

func TestRunRefusesABadConfig(t *testing.T) {
	t.Parallel()
	_, err := Run(t.Context(), Config{Namespace: "No", InFlightMax: -1, RatePerSecond: -1, DedupeFor: 48 * time.Hour}, notes(1))
	for _, want := range []string{"namespace", "Kafka, Codec and Types", "InFlightMax", "RatePerSecond", "DedupeFor"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a fault of %s", err, want)
		}
	}
}

func TestPacerSpacesSendingsEvenly(t *testing.T) {
	t.Parallel()
	now := t0
	p := pacer{perSecond: 100, began: t0, clock: func() time.Time { return now }}
	for i := range 3 { // due at 0, 10 and 20 ms: never waits when the clock is there already
		now = t0.Add(time.Duration(i) * 10 * time.Millisecond)
		if err := p.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's end", err)
	}
}
