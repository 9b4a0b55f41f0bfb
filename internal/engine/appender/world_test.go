package appender

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// deadline bounds every wait of a test; a test that meets it fails.
const deadline = 30 * time.Second

// onEach runs one test on every broker.
func onEach(t *testing.T, test func(t *testing.T, k *testkit.Kafka)) {
	t.Helper()
	for _, k := range testkit.Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			test(t, k)
		})
	}
}

// onKfake runs a test on an embedded broker of its own, whose answers it may falsify.
func onKfake(t *testing.T) *testkit.Kafka {
	t.Helper()
	return testkit.WrapKfake(testkit.StartKfake(t))
}

// world is a topic with one partition, and appenders on it.
type world struct {
	t      *testing.T
	k      *testkit.Kafka
	ctx    context.Context
	client *kgo.Client
	part   Partition
	info   ClaimInfo
}

func newWorld(t *testing.T, k *testkit.Kafka, configs map[string]string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	w := &world{t: t, k: k, ctx: ctx, client: k.Client(t)}
	topic := testkit.Namespace(t) + ".order.events"
	k.CreateTopic(t, topic, 1, configs)
	w.part = Partition{Topic: topic, Partition: 0, TransactionalID: topic + "-0", TopicID: topicID(t, w.client, topic)}
	w.info = ClaimInfo{
		Group: "test.ingest", Instance: "one", CommandsTopicID: [16]byte{1, 2, 3}, LastEventID: "event-9",
		Compacted: configs["cleanup.policy"] == "compact",
	}
	return w
}

// topicID waits until the broker knows the topic that it has just created.
func topicID(t testing.TB, client *kgo.Client, topic string) [16]byte {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < deadline; time.Sleep(5 * time.Millisecond) {
		topics, err := kadm.NewClient(client).ListTopics(t.Context(), topic)
		if err != nil {
			t.Fatalf("list topic %s: %v", topic, err)
		}
		if id := topics[topic].ID; id != ([16]byte{}) {
			return id
		}
	}
	t.Fatalf("topic %s is not there within %s", topic, deadline)
	return [16]byte{}
}

// appender starts one on the world's broker; it is closed with the test.
func (w *world) appender(change ...func(*Config)) *Appender {
	w.t.Helper()
	cfg := Config{Opts: []kgo.Opt{kgo.SeedBrokers(w.k.Seeds()...)}, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		w.t.Fatalf("New: %v", err)
	}
	w.t.Cleanup(a.Close)
	return a
}

// claim takes the partition over as a new owner.
func (w *world) claim(a *Appender) *Writer {
	w.t.Helper()
	writer, err := a.Claim(w.ctx, w.part, w.info, LastClaim{}, nil)
	if err != nil {
		w.t.Fatalf("Claim: %v", err)
	}
	return writer
}

// fates collects results in the order told.
type fates struct {
	t  *testing.T
	ch chan Result
}

func newFates(t *testing.T) *fates { return &fates{t: t, ch: make(chan Result, 4096)} }

func (f *fates) done(r Result) { f.ch <- r }

func (f *fates) proof(err error) { f.ch <- Result{Err: err} }

func (f *fates) next() Result {
	f.t.Helper()
	select {
	case r := <-f.ch:
		return r
	case <-time.After(deadline):
		f.t.Fatalf("no result within %s", deadline)
		return Result{}
	}
}

// event is an entry of one record.
func eventOf(value string) []Record {
	return []Record{{Key: []byte("k"), Value: []byte(value), Headers: []event.Header{{Key: "ce_id", Value: []byte("id-" + value)}}}}
}

// write appends one entry and returns its fate.
func write(t *testing.T, w *Writer, value string) Result {
	t.Helper()
	f := newFates(t)
	w.Append(eventOf(value), f.done)
	w.Flush()
	return f.next()
}

// mustWrite appends one entry, which must stand at the offset.
func mustWrite(t *testing.T, w *Writer, value string, offset int64) {
	t.Helper()
	if r := write(t, w, value); r.Err != nil || r.Offset != offset {
		t.Fatalf("append %q: got offset %d, error %v, want offset %d", value, r.Offset, r.Err, offset)
	}
}

// stored is one batch of the log.
type stored struct {
	Base    int64
	Claim   event.Claim
	Seq     int32
	Records []*kgo.Record
}

// log reads the whole partition, batch by batch.
func (w *world) log() []stored {
	w.t.Helper()
	ends, err := kadm.NewClient(w.client).ListEndOffsets(w.ctx, w.part.Topic)
	if err != nil {
		w.t.Fatalf("list end offsets: %v", err)
	}
	end, _ := ends.Lookup(w.part.Topic, w.part.Partition)
	if end.Err != nil {
		w.t.Fatalf("end offset: %v", end.Err)
	}
	reader := w.k.Client(w.t, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{
		w.part.Topic: {w.part.Partition: kgo.NewOffset().AtStart()},
	}), kgo.KeepControlRecords())
	defer reader.Close()
	var batches []stored
	for next := int64(0); next < end.Offset; {
		fetches := reader.PollFetches(w.ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("read the log: %v", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			claim := event.Claim{ProducerID: r.ProducerID, Epoch: r.ProducerEpoch}
			batches = append(batches, stored{Base: r.Offset, Claim: claim, Records: []*kgo.Record{r}})
		})
	}
	return batches
}

func (w *world) values() []string {
	var values []string
	for _, b := range w.log() {
		for _, r := range b.Records {
			if c := event.Control(r.Headers); c != "" {
				values = append(values, "<"+c+">")
				continue
			}
			values = append(values, string(r.Value))
		}
	}
	return values
}

func wantLog(t *testing.T, w *world, want ...string) {
	t.Helper()
	if got := strings.Join(w.values(), " "); got != strings.Join(want, " ") {
		t.Errorf("log: got %s, want %s", got, strings.Join(want, " "))
	}
}

var _ = errors.Is
var _ = fmt.Sprint
var _ sync.Mutex
var _ = kerr.ErrorForCode
var _ kmsg.Key
