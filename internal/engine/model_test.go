package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// modelStream is one account as a program without Kafka would keep it.
type modelStream struct {
	version  int64
	balance  int64
	commands []string                // ids of the accepted commands, by version
	answers  map[string]modelOutcome // of the ids that left an event
	contents map[string]modelContent
}

type modelContent struct {
	amount   int64
	expected string
}

type modelOutcome struct {
	kind          OutcomeKind
	code          string
	first, last   int64
	leavesNothing bool // no event, and nothing that is handled again: after a crash it may be unknown
}

// decide is the specification: the six outcomes, in the order in which they are checked.
func (s *modelStream) decide(id string, c modelContent) modelOutcome {
	if known, again := s.answers[id]; again {
		if s.contents[id] != c {
			return modelOutcome{kind: OutcomeInvalid, code: CodeIDReused, leavesNothing: true}
		}
		return modelOutcome{kind: OutcomeDuplicate, first: known.first, last: known.last, leavesNothing: true}
	}
	holds := map[string]bool{"": true, "exists": s.version > 0, "none": s.version == 0}
	met, named := holds[c.expected]
	if !named {
		met = c.expected == fmt.Sprint(s.version)
	}
	switch {
	case !met:
		return modelOutcome{kind: OutcomeConflict, leavesNothing: true}
	case c.amount == 0:
		return modelOutcome{kind: OutcomeAccepted, leavesNothing: true}
	case s.balance+c.amount < 0:
		return modelOutcome{kind: OutcomeRejected, code: "overdrawn", leavesNothing: true}
	}
	s.version++
	s.balance += c.amount
	s.commands = append(s.commands, id)
	s.contents[id] = c
	s.answers[id] = modelOutcome{kind: OutcomeAccepted, first: s.version, last: s.version}
	return s.answers[id]
}

// modelRun is a run of random commands, with restarts of all kinds in between.
type modelRun struct {
	w        *world
	random   *rand.Rand
	streams  map[string]*modelStream
	names    []string
	sent     []request
	expected map[topicPartition]map[int64]modelOutcome // by command offset
	allowed  map[string][]modelOutcome                 // by id
	running  []*instance
	ended    []*instance
}

// Whatever happens to the instances in between, the log is what the model says, and so is each
// answer, but that one without an event may have become unknown.
func TestTheLogIsWhatTheModelSays(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			onBrokers(t, func(t *testing.T, w *world) {
				run := &modelRun{
					w: w, random: rand.New(rand.NewPCG(seed, 0)), streams: map[string]*modelStream{},
					expected: map[topicPartition]map[int64]modelOutcome{}, allowed: map[string][]modelOutcome{},
				}
				for n := range 6 {
					name := w.streamOn(int32(n%2), n/2)
					run.names = append(run.names, name)
					run.streams[name] = &modelStream{answers: map[string]modelOutcome{}, contents: map[string]modelContent{}}
				}
				run.start()
				for range 10 {
					run.burst()
					run.disturb()
				}
				run.check()
			})
		})
	}
}

func (m *modelRun) start() {
	i, _ := m.w.startLinked()
	m.running = append(m.running, i)
}

// burst sends some commands, without waiting for any.
func (m *modelRun) burst() {
	var records []*kgo.Record
	var outcomes []modelOutcome
	for range 10 + m.random.IntN(30) {
		r, outcome := m.command()
		m.sent = append(m.sent, r)
		m.allowed[r.id] = append(m.allowed[r.id], outcome)
		records, outcomes = append(records, m.w.record(r)), append(outcomes, outcome)
	}
	if err := m.w.client.ProduceSync(m.w.t.Context(), records...).FirstErr(); err != nil {
		m.w.t.Fatalf("send: %v", err)
	}
	for n, rec := range records {
		at := topicPartition{rec.Topic, rec.Partition}
		if m.expected[at] == nil {
			m.expected[at] = map[int64]modelOutcome{}
		}
		m.expected[at][rec.Offset] = outcomes[n]
	}
}

// command draws a command and says what the model makes of it.
func (m *modelRun) command() (request, modelOutcome) {
	stream := m.names[m.random.IntN(len(m.names))]
	c := modelContent{amount: int64(m.random.IntN(14) - 5)}
	switch m.random.IntN(10) {
	case 0:
		c.expected = "none"
	case 1:
		c.expected = "exists"
	case 2, 3:
		c.expected = fmt.Sprint(max(1, m.streams[stream].version-int64(m.random.IntN(2))))
	}
	r := m.w.deposit(stream, c.amount)
	if len(m.sent) > 0 {
		old := m.sent[m.random.IntN(len(m.sent))]
		switch m.random.IntN(12) {
		case 0, 1: // again, the very same
			r = old
			if r.data == nil {
				return r, modelOutcome{kind: OutcomeInvalid, code: CodeFrame}
			}
			c = modelContent{amount: r.data.(deposit).Amount, expected: r.expected}
			return r, m.streams[r.stream].decide(r.id, c)
		case 2: // the id again, for something else
			r.stream, r.id = old.stream, old.id
		case 3:
			r.data, r.value = nil, []byte("garbage")
			return r, modelOutcome{kind: OutcomeInvalid, code: CodeFrame}
		}
	}
	r.expected = c.expected
	return r, m.streams[r.stream].decide(r.id, c)
}

// disturb lets instances come and go.
func (m *modelRun) disturb() {
	leave := func() *instance {
		n := m.random.IntN(len(m.running))
		i := m.running[n]
		m.running = append(m.running[:n], m.running[n+1:]...)
		m.ended = append(m.ended, i)
		return i
	}
	switch m.random.IntN(5) {
	case 0:
		m.stop(leave())
	case 1, 2:
		leave().crash()
	case 3:
		m.start()
	}
	if len(m.running) == 0 {
		m.start()
	}
	if len(m.running) == 3 {
		m.stop(leave())
	}
}

func (m *modelRun) stop(i *instance) {
	if err := i.stop(); err != nil {
		m.w.t.Errorf("Run: %v", err)
	}
}

func (m *modelRun) check() {
	t := m.w.t
	for at, commands := range m.expected {
		m.w.eventually(fmt.Sprintf("group offset %d of partition %d", len(commands), at.partition), func() bool {
			return m.w.committed("account", at.partition) == int64(len(commands))
		})
	}
	for _, i := range append(m.running, m.ended...) {
		told, _ := i.told.list()
		for _, o := range told {
			want := m.expected[topicPartition{topics.Commands(m.w.ns, o.category), o.partition}][o.offset]
			if !want.fits(string(o.Kind), o.Code, int64(o.First), int64(o.Last)) {
				t.Errorf("command %d of partition %d: told %+v, want %+v", o.offset, o.partition, o.Outcome, want)
			}
		}
	}
	for id, outcomes := range m.allowed {
		replies := m.w.await(id, len(outcomes))
		for _, r := range replies {
			if !anyFits(outcomes, r) {
				t.Errorf("command %s: answered %+v, want one of %+v", id, r, outcomes)
			}
		}
	}
	log := m.w.events("account")
	for name, s := range m.streams {
		var got []string
		var balance int64
		for _, e := range log[name] {
			got = append(got, e.CommandID)
			balance += m.amount(e)
		}
		if fmt.Sprint(got) != fmt.Sprint(s.commands) || balance != s.balance {
			t.Errorf("stream %s: got commands %v and balance %d, want %v and %d", name, got, balance, s.commands, s.balance)
		}
	}
	m.w.wantOffsetOrder("account")
}

func (m *modelRun) amount(e event.Recorded) int64 {
	payload, err := m.w.codec.Inspect(m.w.t.Context(), e.Type, e.Value)
	if err != nil {
		m.w.t.Fatal(err)
	}
	data, err := m.w.bindings[e.Type].Decode(payload)
	if err != nil {
		m.w.t.Fatal(err)
	}
	return data.(deposited).Amount
}

func (o modelOutcome) fits(kind, code string, first, last int64) bool {
	if kind == string(OutcomeUnknown) {
		return o.leavesNothing
	}
	return kind == string(o.kind) && code == o.code && first == o.first && last == o.last
}

func anyFits(outcomes []modelOutcome, r codec.Reply) bool {
	for _, o := range outcomes {
		if o.fits(r.Outcome, r.Code, r.FirstVersion, r.LastVersion) {
			return true
		}
	}
	return false
}
