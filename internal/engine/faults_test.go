package engine

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// link is the network of one instance. Held, nothing passes and nothing fails, as for a process
// that is stopped (SIGSTOP); cut, everything fails at once, as for one that is dead.
type link struct {
	mu    sync.Mutex
	gate  chan struct{} // closed while bytes may pass
	dead  bool
	conns map[*linkedConn]struct{}
}

func newLink() *link {
	open := make(chan struct{})
	close(open)
	return &link{gate: open, conns: map[*linkedConn]struct{}{}}
}

var errCut = errors.New("the test has cut this instance's network")

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !l.pass() {
		return nil, errCut
	}
	var d net.Dialer
	inner, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &linkedConn{Conn: inner, link: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		_ = inner.Close()
		return nil, errCut
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// pass waits while the link is held; false when it is cut.
func (l *link) pass() bool {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	<-gate
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.dead
}

func (l *link) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

func (l *link) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.gate:
	default:
		close(l.gate)
	}
}

func (l *link) cut() {
	l.mu.Lock()
	l.dead = true
	conns := l.conns
	l.conns = map[*linkedConn]struct{}{}
	l.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
	l.release()
}

type linkedConn struct {
	net.Conn
	link *link
}

// Read waits behind the read, so that a read under way when the link is held waits too.
func (c *linkedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.link.pass() {
		return 0, errCut
	}
	return n, err
}

func (c *linkedConn) Write(p []byte) (int, error) {
	if !c.link.pass() {
		return 0, errCut
	}
	return c.Conn.Write(p)
}

func (c *linkedConn) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

// linked gives an instance a network that the test can hold and cut.
func linked(l *link) func(*Config) {
	return func(c *Config) {
		c.Kafka = append(c.Kafka, kgo.Dialer(l.dial), kgo.RetryTimeout(2*time.Second))
		c.RevokeDrainMax = 50 * time.Millisecond
	}
}

// startLinked starts an instance on a link of its own.
func (w *world) startLinked(change ...func(*Config)) (*instance, *link) {
	w.t.Helper()
	l := newLink()
	i := w.start(append([]func(*Config){linked(l)}, change...)...)
	i.link = l
	w.t.Cleanup(l.cut) // runs before the instance's own cleanup: nothing waits for a held link
	return i, l
}

// crash ends an instance as kill -9 does: nothing is drained, committed or said. The group is told
// in its place, which the session's end would do some seconds later.
func (i *instance) crash() {
	i.w.t.Helper()
	i.link.cut()
	i.cancel()
	i.engine.cancel()
	i.expel()
}

// expel makes the group forget an instance, as at the end of its session.
func (i *instance) expel() {
	i.w.t.Helper()
	i.engine.mu.Lock()
	group := i.engine.group
	i.engine.mu.Unlock()
	if group == nil {
		return // not a member yet
	}
	member, _ := group.GroupMetadata()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group = i.engine.cfg.Group
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	req.Members = append(req.Members, m)
	req.MemberID = member
	if _, err := req.RequestWith(i.w.t.Context(), i.w.client); err != nil {
		i.w.t.Fatalf("expel %s: %v", member, err)
	}
}

// intruder writes to an events partition under the claim protocol, as another owner does.
type intruder struct {
	w        *world
	appender *appender.Appender
	writer   *appender.Writer
	category string
}

// intrude claims a partition for a group, naming a commands topic.
func (w *world) intrude(category string, partition int32, group string) *intruder {
	w.t.Helper()
	a, err := appender.New(appender.Config{Opts: []kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)}, Logger: quiet})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(a.Close)
	ids := w.topicIDs(topics.Events(w.ns, category), topics.Commands(w.ns, category))
	p := appender.Partition{
		Topic: topics.Events(w.ns, category), TopicID: ids[topics.Events(w.ns, category)], Partition: partition,
		TransactionalID: topics.TransactionalID(w.ns, category, partition),
	}
	info := appender.ClaimInfo{Group: group, Instance: "intruder", CommandsTopicID: ids[topics.Commands(w.ns, category)]}
	writer, err := a.Claim(w.t.Context(), p, info, appender.LastClaim{}, nil)
	if err != nil {
		w.t.Fatalf("intruder's claim: %v", err)
	}
	return &intruder{w: w, appender: a, writer: writer, category: category}
}

// append writes one event as an owner of ours would.
func (in *intruder) append(rec appender.Record) {
	in.w.t.Helper()
	done := make(chan appender.Result, 1)
	in.writer.Append([]appender.Record{rec}, func(r appender.Result) { done <- r })
	in.writer.Flush()
	if r := <-done; r.Err != nil {
		in.w.t.Fatalf("intruder's append: %v", r.Err)
	}
}

// eventRecord is a valid event of account.Deposited.
func (w *world) eventRecord(stream string, version int, commandID string, commandOffset int64) appender.Record {
	w.t.Helper()
	value, err := w.bindings["account.Deposited"].Append(nil, deposited{Amount: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	headers := []event.Header{}
	add := func(name, value string) { headers = append(headers, event.Header{Key: name, Value: []byte(value)}) }
	add(event.HeaderID, "event-of-"+commandID)
	add(event.HeaderType, "account.Deposited")
	add(event.HeaderTime, event.FormatTime(time.Now()))
	add(event.HeaderSequence, itoa(version))
	add(event.HeaderCommandID, commandID)
	add(event.HeaderCommandHash, "00112233445566778899aabbccddeeff")
	if commandOffset >= 0 {
		add(event.HeaderCommandOffset, itoa(int(commandOffset)))
	}
	return appender.Record{Key: []byte(stream), Value: value, Headers: headers}
}

func (w *world) topicIDs(names ...string) map[string][16]byte {
	w.t.Helper()
	infos, err := topics.IDs(w.t.Context(), kadm.NewClient(w.client), names...)
	if err != nil {
		w.t.Fatal(err)
	}
	ids := map[string][16]byte{}
	for name, info := range infos {
		ids[name] = info.ID
	}
	return ids
}

// foreign writes records into a topic with a producer of its own, which knows no protocol.
func (w *world) foreign(records ...*kgo.Record) *kgo.Client {
	w.t.Helper()
	client := w.kafka.Client(w.t, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(time.Second), kgo.MetadataMinAge(10*time.Millisecond))
	if err := client.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatalf("foreign write: %v", err)
	}
	return client
}

// strayEvent is a record that looks like an event of ours.
func (w *world) strayEvent(stream string, version int) *kgo.Record {
	r := w.eventRecord(stream, version, "stray", -1)
	return &kgo.Record{
		Topic: topics.Events(w.ns, "account"), Partition: topics.Partition([]byte(stream), w.partitions),
		Key: r.Key, Value: r.Value, Headers: r.Headers,
	}
}

// streamOn names the n-th stream of a partition.
func (w *world) streamOn(partition int32, n int) string {
	for i := 0; ; i++ {
		id := "s" + itoa(i)
		if topics.Partition([]byte(id), w.partitions) != partition {
			continue
		}
		if n == 0 {
			return id
		}
		n--
	}
}

// clock is a clock that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// controls lists the control records of an events partition, in order.
func (w *world) controls(category string, partition int32, control string) []*kgo.Record {
	w.t.Helper()
	var found []*kgo.Record
	for _, rec := range w.log(topics.Events(w.ns, category)) {
		if rec.Partition == partition && event.Control(rec.Headers) == control {
			found = append(found, rec)
		}
	}
	return found
}

func headerText(rec *kgo.Record, name string) string {
	v, _ := event.HeaderValue(rec.Headers, name)
	return string(v)
}

// committed is the group offset of a commands partition; -1 for none.
func (w *world) committed(category string, partition int32) int64 {
	w.t.Helper()
	topic := topics.Commands(w.ns, category)
	offsets, err := kadm.NewClient(w.client).FetchOffsetsForTopics(w.t.Context(), topics.Group(w.ns, topics.ConsumerIngest), topic)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return -1
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if o, ok := offsets.Lookup(topic, partition); ok {
		return o.At
	}
	return -1
}

// valueOf reads a counter or a gauge.
func valueOf(m prometheus.Metric) float64 {
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		return -1
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}
