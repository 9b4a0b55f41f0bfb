package appender

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestMain(m *testing.M) { os.Exit(testkit.MainNoLeaks(m)) }

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
		if m := describeTopic(t, client, topic); m.ErrorCode == 0 && m.TopicID != ([16]byte{}) {
			return m.TopicID
		}
	}
	t.Fatalf("topic %s is not there within %s", topic, deadline)
	return [16]byte{}
}

// describeTopic asks the broker; kadm would answer from the client's memory.
func describeTopic(t testing.TB, client *kgo.Client, topic string) kmsg.MetadataResponseTopic {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil || len(resp.Topics) != 1 {
		t.Fatalf("metadata of %s: %v, %d topics", topic, err, len(resp.Topics))
	}
	return resp.Topics[0]
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

// eventOf is an entry of one record.
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
	Control bool // a transaction marker
	Records []kmsg.Record
}

// log reads the whole partition, batch by batch.
func (w *world) log() []stored {
	w.t.Helper()
	end := w.end()
	var batches []stored
	for next := int64(0); next < end; {
		read := w.fetch(next)
		if len(read) == 0 {
			w.t.Fatalf("read the log: nothing at offset %d, it ends at %d", next, end)
		}
		for _, b := range read {
			if b.Base >= next {
				batches = append(batches, b)
				next = b.Base + int64(len(b.Records))
			}
		}
	}
	return batches
}

// end is the end offset of the partition. Just after a leader's move the client may ask the
// former one.
func (w *world) end() int64 {
	w.t.Helper()
	for {
		ends, err := kadm.NewClient(w.client).ListEndOffsets(w.ctx, w.part.Topic)
		if err != nil {
			w.t.Fatalf("list end offsets: %v", err)
		}
		end, _ := ends.Lookup(w.part.Topic, w.part.Partition)
		if end.Err == nil {
			return end.Offset
		}
		if !kerr.IsRetriable(end.Err) || w.ctx.Err() != nil {
			w.t.Fatalf("end offset: %v", end.Err)
		}
	}
}

func (w *world) fetch(offset int64) []stored {
	w.t.Helper()
	req := fetchRequest(w.part, offset)
	raw, err := w.leader().Request(w.ctx, req)
	if err != nil {
		w.t.Fatalf("fetch: %v", err)
	}
	resp := raw.(*kmsg.FetchResponse)
	if len(resp.Topics) == 0 || len(resp.Topics[0].Partitions) == 0 {
		w.t.Fatalf("fetch: empty answer, code %d", resp.ErrorCode)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		w.t.Fatalf("fetch: %v", err)
	}
	return parseBatches(w.t, p.RecordBatches)
}

func fetchRequest(part Partition, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 100, 1, 16<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = part.Topic, part.TopicID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = part.Partition, offset, 16<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// producers are those that the leader knows.
func (w *world) producers() []int64 {
	w.t.Helper()
	described, err := kadm.NewClient(w.client).DescribeProducers(w.ctx, kadm.TopicsSet{w.part.Topic: {w.part.Partition: {}}})
	if err != nil {
		w.t.Fatalf("describe producers: %v", err)
	}
	var ids []int64
	for _, p := range described[w.part.Topic].Partitions[w.part.Partition].ActiveProducers.Sorted() {
		ids = append(ids, p.ProducerID)
	}
	return ids
}

func parseBatches(t testing.TB, raw []byte) []stored {
	t.Helper()
	var batches []stored
	for len(raw) > headerBytes {
		length := int(binary.BigEndian.Uint32(raw[atLength:])) + atLeaderEpoch
		if length > len(raw) {
			break
		}
		var b kmsg.RecordBatch
		if err := b.ReadFrom(raw[:length]); err != nil {
			t.Fatalf("parse a batch: %v", err)
		}
		batches = append(batches, stored{
			Base: b.FirstOffset, Claim: event.Claim{ProducerID: b.ProducerID, Epoch: b.ProducerEpoch}, Seq: b.FirstSequence,
			Control: b.Attributes&0x20 != 0, Records: parseRecords(t, b.Records, int(b.NumRecords)),
		})
		raw = raw[length:]
	}
	return batches
}

func parseRecords(t testing.TB, raw []byte, n int) []kmsg.Record {
	t.Helper()
	records := make([]kmsg.Record, n)
	for i := range records {
		length, width := binary.Varint(raw)
		if width <= 0 || int(length)+width > len(raw) {
			t.Fatalf("record %d has length %d in %d bytes", i, length, len(raw))
		}
		if err := records[i].ReadFrom(raw[:int(length)+width]); err != nil {
			t.Fatalf("parse record %d: %v", i, err)
		}
		raw = raw[int(length)+width:]
	}
	if len(raw) != 0 {
		t.Fatalf("%d bytes behind the last record", len(raw))
	}
	return records
}

// leader is the broker to send raw requests to.
func (w *world) leader() *kgo.Broker {
	w.t.Helper()
	for w.ctx.Err() == nil {
		for _, p := range describeTopic(w.t, w.client, w.part.Topic).Partitions {
			if p.Partition == w.part.Partition && p.Leader >= 0 {
				return w.client.Broker(int(p.Leader))
			}
		}
	}
	w.t.Fatalf("%s has no leader", w.part)
	return nil
}

// put sends one batch by hand, as any producer could, and returns the broker's answer.
func (w *world) put(claim event.Claim, seq int32, records ...Record) (offset int64, err error) {
	w.t.Helper()
	b := new(batchPool).get()
	b.add(records, time.Now, 16<<20)
	b.seal(claim, seq, -1)
	return w.putRaw(b.buf)
}

func (w *world) putRaw(batch []byte) (offset int64, err error) {
	w.t.Helper()
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = w.part.Topic, w.part.TopicID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = w.part.Partition, batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	raw, err := w.leader().Request(w.ctx, req)
	if err != nil {
		w.t.Fatalf("produce: %v", err)
	}
	p := raw.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return p.BaseOffset, kerr.ErrorForCode(p.ErrorCode)
}

// initID asks for a producer id by hand.
func (w *world) initID(transactionalID string, held *event.Claim) (event.Claim, error) {
	w.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &transactionalID
	req.TransactionTimeoutMillis = 10000
	req.ProducerID, req.ProducerEpoch = -1, -1
	if held != nil {
		req.ProducerID, req.ProducerEpoch = held.ProducerID, held.Epoch
	}
	resp, err := req.RequestWith(w.ctx, w.client)
	if err != nil {
		w.t.Fatalf("InitProducerID: %v", err)
	}
	return event.Claim{ProducerID: resp.ProducerID, Epoch: resp.ProducerEpoch}, kerr.ErrorForCode(resp.ErrorCode)
}

func (w *world) mustInitID(transactionalID string) event.Claim {
	w.t.Helper()
	for {
		claim, err := w.initID(transactionalID, nil)
		if errors.Is(err, kerr.ConcurrentTransactions) {
			time.Sleep(concurrentWaitMin)
			continue
		}
		if err != nil {
			w.t.Fatalf("InitProducerID for %s: %v", transactionalID, err)
		}
		return claim
	}
}

func control(headers []kmsg.Header) string {
	for _, h := range headers {
		if h.Key == event.HeaderControl {
			return string(h.Value)
		}
	}
	return ""
}

func (w *world) values() []string {
	var values []string
	for _, b := range w.log() {
		for _, r := range b.Records {
			switch c := control(r.Headers); {
			case b.Control:
				values = append(values, "<marker>")
			case c != "":
				values = append(values, "<"+c+">")
			default:
				values = append(values, string(r.Value))
			}
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

// tryCreate creates a topic that may just be under deletion.
func tryCreate(w *world, topic string) error {
	_, err := kadm.NewClient(w.client).CreateTopic(w.ctx, 1, 1, nil, topic)
	return err
}
