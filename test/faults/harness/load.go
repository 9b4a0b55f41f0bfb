package harness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// LoadConfig shapes the clients. The zero value of a field means its default.
type LoadConfig struct {
	Clients int     // that ask at the same time; default 32
	Rate    float64 // requests per second of all clients; default 600
	// Slots is how many streams of a category are asked for at the same time; default 6.
	Slots int
	// StreamRequests is after how many requests a slot goes on with a new stream; default 100, below
	// the command ids that a stream remembers, so that each repetition must be recognised.
	StreamRequests int
	// AnswerTimeout is after how long a client asks again, with the same id; default 2 s.
	AnswerTimeout time.Duration
	AttemptsMax   int // sendings of a request; default 5
	// Misroute is the share of sendings that go to another partition than the key's; default none.
	Misroute float64
	// Direct is the share of sendings that go to the owner in memory; default none.
	Direct float64
}

func (c LoadConfig) withDefaults() LoadConfig {
	def(&c.Clients, 32)
	def(&c.Rate, 600)
	def(&c.Slots, 6)
	def(&c.StreamRequests, 100)
	def(&c.AnswerTimeout, 2*time.Second)
	def(&c.AttemptsMax, 5)
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Shares of what clients do.
const (
	shareAppend    = 0.15 // several events at once, of the requests to logs
	sharePoison    = 0.01
	shareRepeat    = 0.10 // accepted requests that are sent again on purpose, at once
	shareOld       = 0.05 // requests that are an earlier one of their stream, sent again
	shareExact     = 0.45 // requests that expect the version last seen
	shareNone      = 0.05
	shareExists    = 0.05
	shareOverdraft = 0.25 // of moves: so large a withdrawal that it may be refused
)

// load is the clients of one run.
type load struct {
	cfg        LoadConfig
	seed       int64
	namespace  string
	partitions int32
	began      time.Time
	log        *slog.Logger

	producer *kgo.Client
	replies  *kgo.Client
	schemas  *registry.Topic
	codec    *codec.Codec
	written  *codec.Binding
	move     *codec.Binding
	envelope *codec.Binding
	reply    *codec.Binding

	inFlight atomic.Int64 // requests without a final answer
	answers  atomic.Int64

	instances func() []*service // that take requests in memory

	mu       sync.Mutex
	sendings []*Sending
	byKey    map[attemptKey]*Sending
	waiting  map[attemptKey]chan Reply
	slots    map[string][]*slot
	strays   []string // replies that fit no sending
	answered chan struct{}
}

// slot is a place for a stream that several clients ask for. Guarded by load.mu.
type slot struct {
	category   string
	number     int
	generation int
	requests   int
	seen       int64    // the version that a client saw last
	accepted   []*draft // of the stream; all of them must be recognised when they come again
}

func (s *slot) stream() string { return fmt.Sprintf("%s-%d-%d", s.category, s.number, s.generation) }

// newLoad connects the clients. They speak to the broker past any proxy.
func newLoad(ctx context.Context, cfg LoadConfig, st *stack) (*load, error) {
	l := &load{
		cfg: cfg.withDefaults(), seed: st.run.Seed, namespace: st.run.Namespace, partitions: st.run.Partitions, began: st.began, log: st.log,
		instances: func() []*service { return st.named("ingest") },
		byKey:     map[attemptKey]*Sending{}, waiting: map[attemptKey]chan Reply{}, slots: map[string][]*slot{}, answered: make(chan struct{}),
	}
	for _, category := range categories {
		for n := range l.cfg.Slots {
			l.slots[category] = append(l.slots[category], &slot{category: category, number: n})
		}
	}
	return l, l.connect(ctx, st.broker.seeds())
}

func (l *load) connect(ctx context.Context, seeds []string) error {
	var err error
	if l.producer, err = kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(10*time.Second), kgo.ClientID("faults-load"),
		kgo.MetadataMinAge(200*time.Millisecond)); err != nil {
		return err
	}
	if l.replies, err = kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(topics.Replies(l.namespace)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond), kgo.ClientID("faults-replies"),
		kgo.MetadataMinAge(200*time.Millisecond)); err != nil {
		return err
	}
	if l.schemas, err = registry.NewTopic(registry.TopicConfig{
		Opts: []kgo.Opt{kgo.SeedBrokers(seeds...)}, Namespace: l.namespace, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		return err
	}
	l.codec = codec.New(l.schemas, codec.Config{})
	accounts := project.Accounts().Definition()
	for _, b := range []struct {
		to  **codec.Binding
		def codec.TypeDef
	}{{&l.written, project.WrittenDef()}, {&l.move, accounts.Types[0]}, {&l.envelope, codec.AppendDef()}, {&l.reply, codec.ReplyDef()}} {
		if *b.to, err = l.codec.Bind(ctx, b.def); err != nil {
			return fmt.Errorf("bind %s: %w", b.def.Name, err)
		}
	}
	return nil
}

func (l *load) close() {
	for _, c := range []*kgo.Client{l.producer, l.replies} {
		if c != nil {
			c.Close()
		}
	}
	if l.schemas != nil {
		l.schemas.Close()
	}
}

func (l *load) now() time.Duration { return time.Since(l.began) }

// readReplies takes answers in until ctx ends.
func (l *load) readReplies(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := l.replies.PollFetches(ctx)
		at := l.now()
		fetches.EachRecord(func(rec *kgo.Record) { l.takeReply(ctx, rec, at) })
	}
}

func (l *load) takeReply(ctx context.Context, rec *kgo.Record, at time.Duration) {
	reply, err := l.decodeReply(ctx, rec)
	l.mu.Lock()
	defer l.mu.Unlock()
	attempt, _ := strconv.Atoi(reply.Attempt)
	key := attemptKey{reply.RequestID, attempt}
	s := l.byKey[key]
	if err != nil || s == nil {
		if ctx.Err() == nil {
			l.strays = append(l.strays, fmt.Sprintf("reply at %s[%d]@%d fits no sending: request %q attempt %q (%v)", rec.Topic, rec.Partition, rec.Offset, reply.RequestID, reply.Attempt, err))
		}
		return
	}
	r := Reply{At: at, Outcome: reply.Outcome, First: reply.FirstVersion, Last: reply.LastVersion, Actual: reply.ActualVersion, Offset: reply.Offset, Code: reply.Code}
	s.Replies = append(s.Replies, r)
	l.answers.Add(1)
	close(l.answered)
	l.answered = make(chan struct{})
	if wait := l.waiting[key]; wait != nil {
		delete(l.waiting, key)
		wait <- r // has room for the one answer that is waited for
	}
}

func (l *load) decodeReply(ctx context.Context, rec *kgo.Record) (codec.Reply, error) {
	payload, err := l.codec.Inspect(ctx, codec.TypeReply, rec.Value)
	if err != nil {
		return codec.Reply{}, err
	}
	decoded, err := l.reply.Decode(payload)
	if err != nil {
		return codec.Reply{}, err
	}
	return decoded.(codec.Reply), nil
}

// run has all clients ask until ctx ends.
func (l *load) run(ctx context.Context, g *gate) {
	var wg sync.WaitGroup
	for n := range l.cfg.Clients {
		wg.Go(func() { l.client(ctx, g, n, rand.New(rand.NewPCG(uint64(l.seed), purposeLoad<<32|uint64(n)))) })
	}
	wg.Wait()
}

// client asks one request after the other.
func (l *load) client(ctx context.Context, g *gate, n int, r *rand.Rand) {
	pause := time.Duration(float64(l.cfg.Clients) / l.cfg.Rate * float64(time.Second))
	for i := 0; ctx.Err() == nil; i++ {
		g.wait(ctx)
		began := time.Now()
		l.request(ctx, l.draw(r, n, i), r)
		wait := time.NewTimer(time.Duration(float64(pause)*(0.5+r.Float64())) - time.Since(began))
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// draft is a request before it is sent. The slot is the one it was drawn for.
type draft struct {
	Sending
	slot     *slot
	attempts int // guarded by load.mu
}

// draw makes the next request of a client.
func (l *load) draw(r *rand.Rand, client, i int) *draft {
	category := categories[r.IntN(len(categories))]
	number, kind, amount, count := r.IntN(l.cfg.Slots), KindWrite, r.Int64N(9)+1, 1
	if category == project.Account {
		kind, count = KindMove, 1+r.IntN(3)
		if r.Float64() < shareOverdraft {
			amount = -amount * 4
		}
	} else if r.Float64() < shareAppend {
		kind, count = KindAppend, 2+r.IntN(3)
	}
	if r.Float64() < sharePoison {
		kind = KindPoison
	}
	which := r.Float64()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.slots[category][number]
	if s.requests++; s.requests > l.cfg.StreamRequests {
		s.generation, s.requests, s.seen, s.accepted = s.generation+1, 1, 0, nil
	}
	expected := "any"
	switch {
	case which < shareExact:
		expected = strconv.FormatInt(s.seen, 10)
		if s.seen == 0 {
			expected = "none"
		}
	case which < shareExact+shareNone:
		expected = "none"
	case which < shareExact+shareNone+shareExists:
		expected = "exists"
	}
	return &draft{slot: s, Sending: Sending{
		ID: fmt.Sprintf("%s-%d-%d", s.stream(), client, i), Client: client, Kind: kind, Category: category, Stream: s.stream(),
		Expected: expected, Amount: amount, Count: count,
	}}
}

// request sends a draft until it has a final answer, or too often; then, sometimes, once more.
func (l *load) request(ctx context.Context, d *draft, r *rand.Rand) {
	l.inFlight.Add(1)
	defer l.inFlight.Add(-1)
	if old := l.old(d, r); old != nil {
		l.ask(ctx, old, r)
		return
	}
	for n := 0; n < l.cfg.AttemptsMax && ctx.Err() == nil; n++ {
		answer, answered := l.ask(ctx, d, r)
		if !answered || answer.Outcome == Unknown {
			continue
		}
		l.learn(d, answer)
		if answer.Stands() && r.Float64() < shareRepeat {
			l.ask(ctx, d, r)
		}
		return
	}
}

// old draws, sometimes, an earlier request of a draft's stream.
func (l *load) old(d *draft, r *rand.Rand) *draft {
	if r.Float64() >= shareOld {
		return nil
	}
	which := r.IntN(1 << 30)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(d.slot.accepted) == 0 || d.slot.stream() != d.Stream {
		return nil
	}
	return d.slot.accepted[which%len(d.slot.accepted)]
}

// learn remembers the version that an answer tells of.
func (l *load) learn(d *draft, answer Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.slot.stream() != d.Stream {
		return
	}
	d.slot.seen = max(d.slot.seen, answer.Last, answer.Actual)
	if answer.Stands() {
		d.slot.accepted = append(d.slot.accepted, d)
	}
}

// ask sends one more attempt of a draft and waits for its answer.
func (l *load) ask(ctx context.Context, d *draft, r *rand.Rand) (Reply, bool) {
	l.mu.Lock()
	d.attempts++
	s := d.Sending
	s.Attempt = d.attempts
	l.mu.Unlock()
	s.Partition = topics.Partition([]byte(s.Stream), l.partitions)
	if l.cfg.Direct > 0 && r.Float64() < l.cfg.Direct && s.Kind != KindPoison {
		return l.submit(ctx, &s, l.cfg.AnswerTimeout, r.IntN(1<<16))
	}
	if l.cfg.Misroute > 0 && r.Float64() < l.cfg.Misroute {
		s.Partition = (s.Partition + 1 + r.Int32N(l.partitions-1)) % l.partitions
	}
	return l.send(ctx, &s, l.cfg.AnswerTimeout)
}

// send sends one attempt as it stands and waits for its answer, at most so long.
func (l *load) send(ctx context.Context, s *Sending, timeout time.Duration) (Reply, bool) {
	s.Offset = -1
	rec, err := l.record(s)
	if err != nil {
		l.stray("request %s does not encode: %v", s.ID, err)
		return Reply{}, false
	}
	key, answer := attemptKey{s.ID, s.Attempt}, make(chan Reply, 1)
	l.mu.Lock()
	s.Called = l.now()
	l.sendings = append(l.sendings, s)
	l.byKey[key], l.waiting[key] = s, answer
	l.mu.Unlock()
	// Not by ctx: a record that is under way when the load ends has a fate that must be known.
	l.producer.TryProduce(context.Background(), rec, func(rec *kgo.Record, err error) { l.stored(s, rec, err) })
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case reply := <-answer:
		return reply, true
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, key)
	return Reply{}, false
}

func (l *load) stored(s *Sending, rec *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		s.Fault = err.Error()
		return
	}
	s.Stored, s.Offset = true, rec.Offset
}

func (l *load) stray(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strays = append(l.strays, fmt.Sprintf(format, args...))
}

// record is a sending on the wire.
func (l *load) record(s *Sending) (*kgo.Record, error) {
	typ, value, err := l.payload(s)
	if err != nil {
		return nil, err
	}
	rec := &kgo.Record{Topic: topics.Commands(l.namespace, s.Category), Key: []byte(s.Stream), Value: value, Partition: s.Partition}
	for _, h := range [][2]string{
		{event.HeaderID, s.ID}, {event.HeaderType, typ}, {event.HeaderSource, "/faults"}, {event.HeaderSpecVersion, event.SpecVersion},
		{event.HeaderTime, event.FormatTime(loadEpoch)}, {event.HeaderExpectedVersion, s.Expected},
		{event.HeaderReplyTo, topics.Replies(l.namespace)}, {event.HeaderAttempt, strconv.Itoa(s.Attempt)},
	} {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return rec, nil
}

// loadEpoch is every request's business time: equal for all sendings of a request.
var loadEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (l *load) payload(s *Sending) (typ string, value []byte, err error) {
	switch s.Kind {
	case KindPoison:
		typ = project.TypeWritten
		if s.Category == project.Account {
			typ = project.TypeMove
		}
		return typ, s.poison(), nil
	case KindMove:
		value, err = l.move.Append(nil, project.Move{Op: s.op(0), Amount: s.Amount, Parts: int64(s.Count)})
		return project.TypeMove, value, err
	case KindWrite:
		value, err = l.written.Append(nil, project.Written{Op: s.op(0), Amount: s.Amount})
		return project.TypeWritten, value, err
	}
	envelope := codec.AppendEnvelope{}
	for i := range s.Count {
		framed, err := l.written.Append(nil, project.Written{Op: s.op(i), Amount: s.Amount})
		if err != nil {
			return "", nil, err
		}
		envelope.Events = append(envelope.Events, codec.AppendItem{Type: project.TypeWritten, SchemaID: l.written.Registered().ID, Data: framed[5:]})
	}
	value, err = l.envelope.Append(nil, envelope)
	return codec.TypeAppend, value, err
}

// settle waits until each sending's fate with the broker is known.
func (l *load) settle(ctx context.Context) error {
	if err := l.producer.Flush(ctx); err != nil {
		return fmt.Errorf("wait for the clients' records: %w", err)
	}
	return nil
}

// owed counts the stored sendings without an answer.
func (l *load) owed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, s := range l.sendings {
		if s.Stored && len(s.Replies) == 0 {
			n++
		}
	}
	return n
}

// untilAnswered waits until as many answers came in all.
func (l *load) untilAnswered(ctx context.Context, answers int64) error {
	for {
		l.mu.Lock()
		changed := l.answered
		l.mu.Unlock()
		if l.answers.Load() >= answers {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(errors.New("too few answers"), ctx.Err())
		}
	}
}
