package engine

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// W13 once more, against a model that forgets nothing and looks at all: an id is remembered while
// it is among the last idsMax and not older than ageMax, or its dedupe-until is ahead.
func TestW13WindowRemembersWhatTheModelSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limits := windowLimits{idsMax: rapid.IntRange(1, 300).Draw(t, "idsMax"), ageMax: time.Minute, idsHardMax: 1000}
		now := time.Unix(1_700_000_000, 0)
		var w window
		var model []remembered
		lookUp := func(key commandKey) *remembered {
			for i := len(model) - 1; i >= 0; i-- {
				if r := &model[i]; r.key == key {
					beyond := len(model)-i > limits.idsMax || r.at < now.Add(-limits.ageMax).Unix()
					if beyond && r.dedupeUntil < now.Unix() {
						return nil
					}
					return r
				}
			}
			return nil
		}
		drawKey := func() commandKey { return keyOf(fmt.Sprint(rapid.IntRange(0, 600).Draw(t, "id"))) }
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1: // commands that are appended, and acknowledged or refused as a batch
				n := rapid.IntRange(1, 40).Draw(t, "commands")
				stored := rapid.IntRange(0, 3).Draw(t, "stored") > 0
				added := 0
				for range n {
					r := remembered{key: drawKey(), first: event.Version(len(model) + added + 1), count: 1, offset: -1, at: now.Unix()}
					if rapid.IntRange(0, 4).Draw(t, "held") == 0 {
						r.dedupeUntil = now.Unix() + int64(rapid.IntRange(-10, 300).Draw(t, "until"))
					}
					if w.find(r.key, limits, now) != nil {
						continue // a repetition is not appended
					}
					w.add(r)
					added++
					if stored {
						model = append(model, r)
					}
				}
				for range added {
					if !stored {
						w.undoLast()
					}
				}
				for i := range w.entries {
					w.entries[i].offset = 1
				}
			case 2:
				w.evict(limits, now)
			case 3:
				if w.due(limits) {
					w.evict(limits, now)
				}
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			}
			for range 20 {
				key := drawKey()
				got, want := w.find(key, limits, now), lookUp(key)
				if (got == nil) != (want == nil) {
					t.Fatalf("id remembered: got %t, want %t", got != nil, want != nil)
				}
				if got != nil && (got.first != want.first || got.at != want.at) {
					t.Fatalf("entry: got %+v, want %+v", *got, *want)
				}
			}
		}
	})
}

func TestWindowEvictionKeepsWhatIsUnderWay(t *testing.T) {
	limits := windowLimits{idsMax: 1, ageMax: time.Minute, idsHardMax: 10}
	var w window
	now := time.Unix(1000, 0)
	for n := range 5 {
		w.add(remembered{key: keyOf(itoa(n)), first: event.Version(n + 1), count: 1, offset: -1, at: now.Unix()})
	}
	if got := w.evict(limits, now); got != 0 {
		t.Errorf("evicted: got %d, want 0: their offsets are not known yet", got)
	}
	for i := range w.entries {
		w.entries[i].offset = int64(i)
	}
	if got := w.evict(limits, now); got != 4 || w.len() != 1 {
		t.Errorf("evicted: got %d of 5, want all but the newest", got)
	}
}

func TestStreamTableAccountsForEveryByte(t *testing.T) {
	table := newStreamTable()
	s := table.obtain("a")
	table.setState(s, make([]byte, 100))
	table.setState(s, make([]byte, 30))
	s.window.add(remembered{})
	table.bytes += rememberedBytesFixed
	if table.obtain("a") != s || table.get("b") != nil {
		t.Error("a stream is found by another id, or not by its own")
	}
	if want := int64(streamBytesFixed + 1 + 30 + rememberedBytesFixed); table.bytes != want {
		t.Errorf("bytes: got %d, want %d", table.bytes, want)
	}
	table.sweep(windowLimits{idsMax: 10, ageMax: time.Second}, time.Unix(100, 0))
	if want := int64(streamBytesFixed + 1 + 30); table.bytes != want {
		t.Errorf("bytes after the sweep: got %d, want %d", table.bytes, want)
	}
	table.drop("a")
	table.drop("a")
	if table.bytes != 0 || table.get("a") != nil {
		t.Errorf("bytes after the drop: got %d, want 0", table.bytes)
	}
}

func TestStateBudgetIsSharedByOwners(t *testing.T) {
	b := &stateBudget{bytesMax: 100}
	var one, other owner
	b.set(&one, 60)
	if b.exceeded() {
		t.Error("exceeded at 60 of 100")
	}
	b.set(&other, 40)
	if !b.exceeded() {
		t.Error("not exceeded at 100 of 100")
	}
	b.set(&one, 0)
	b.set(&one, 0)
	if got := b.used.Load(); got != 40 || b.exceeded() {
		t.Errorf("used after one owner left: got %d, want 40", got)
	}
}

// D4: the hash is over type, expected version, fingerprint and payload, each told from the next.
func TestD4ContentHashTellsContentsApart(t *testing.T) {
	base := func() (string, string, codec.Fingerprint, []byte) { return "account.Deposit", "any", 7, []byte{1, 2} }
	hash := func(typ, expected string, f codec.Fingerprint, payload []byte) [16]byte {
		h, _ := contentHash(make([]byte, 3), typ, expected, f, payload)
		return h
	}
	typ, expected, fingerprint, payload := base()
	want := hash(base())
	if got := hash(base()); got != want {
		t.Error("the same content has two hashes")
	}
	for name, got := range map[string][16]byte{
		"type":        hash("account.Withdraw", expected, fingerprint, payload),
		"expected":    hash(typ, "none", fingerprint, payload),
		"fingerprint": hash(typ, expected, 8, payload),
		"payload":     hash(typ, expected, fingerprint, []byte{1, 3}),
		"no payload":  hash(typ, expected, fingerprint, nil),
		"a boundary":  hash(typ+"a", expected[1:], fingerprint, payload),
	} {
		if got == want {
			t.Errorf("another %s has the same hash", name)
		}
	}
}

// D4 on a broker: the framing id, which differs between registries, is not in the hash.
func TestD4TheFramingIDIsNoContent(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		reg, err := w.registry.ByID(t.Context(), idDeposit)
		if err != nil {
			t.Fatal(err)
		}
		twin := *reg
		twin.ID = 77
		both := w.registry.With(&twin)
		w.start(func(c *Config) { c.Registry = both }).serving(4)
		r := w.deposit("s", 1)
		r.data, r.value = nil, confluent(idDeposit, 2, 0)
		wantOutcome(t, w.ask(r), OutcomeAccepted, "")
		r.value = confluent(77, 2, 0)
		wantOutcome(t, w.ask(r), OutcomeDuplicate, "")
	})
}

func TestFifoKeepsOrderAndMemory(t *testing.T) {
	var f fifo[int]
	next, taken := 0, 0
	for round := range 50 {
		for range 100 * (round%3 + 1) {
			f.push(next)
			next++
		}
		for range min(f.len(), 190) {
			if f.at(0) != taken {
				t.Fatalf("first: got %d, want %d", f.at(0), taken)
			}
			if got := f.pop(); got != taken {
				t.Fatalf("popped: got %d, want %d", got, taken)
			}
			taken++
		}
	}
	if got, want := f.len(), next-taken; got != want {
		t.Errorf("length: got %d, want %d", got, want)
	}
	if f.head > 1024 && f.head > len(f.items)/2 {
		t.Errorf("%d of %d places are kept for what was taken", f.head, len(f.items))
	}
	f.clear()
	if f.len() != 0 {
		t.Errorf("length after clear: got %d, want 0", f.len())
	}
}

func TestFaultTextsListsEachFault(t *testing.T) {
	_, err := event.ParseRequest([]event.Header{header(event.HeaderExpectedVersion, "x")})
	got := invalid(CodeHeader, err).Errors
	if len(got) != 3 { // expected version, no id, no type
		t.Errorf("errors: got %q, want 3", got)
	}
}

// A fetch of an earlier read of the partition that is delivered late must not stand for the first
// fetch of the next one: what lies between would never be seen.
func TestLogReaderIgnoresALateFetchOfAnEarlierRead(t *testing.T) {
	w := onKfake(t)
	topic := w.ns + ".read"
	w.kafka.CreateTopic(t, topic, 1, map[string]string{"retention.ms": "-1"})
	for n := range 10 {
		if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte(itoa(n))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := newLogReader([]kgo.Opt{kgo.SeedBrokers(w.kafka.Seeds()...)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	tp := topicPartition{topic, 0}
	var got []int64
	done := make(chan error, 1)
	go func() {
		done <- r.read(ctx, tp, 3, 8, func(rec *kgo.Record) error { got = append(got, rec.Offset); return nil })
	}()
	w.eventually("the read is under way", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.reads[tp] != nil })
	r.deliver(tp, []*kgo.Record{{Topic: topic, Offset: 6}, {Topic: topic, Offset: 7}}, nil) // late
	r.deliver(tp, []*kgo.Record{{Topic: topic, Offset: 1}, {Topic: topic, Offset: 2}}, nil) // late too
	go func() { defer close(ended); r.run(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("read: %v", err)
		}
	case <-time.After(waitMax):
		t.Error("the read does not end")
	}
	cancel()
	<-ended
	r.close()
	if want := []int64{3, 4, 5, 6, 7, 8}; !slices.Equal(got, want) {
		t.Errorf("offsets: got %v, want %v", got, want)
	}
}

// An id that was forgotten by its age and came again is two commands, also where nothing stands
// between their events.
func TestW13AForgottenIDThatCameAgainIsRebuiltAsTwoCommands(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var c clock
		windowed := func(cfg *Config) { cfg.Clock, cfg.Categories[0].DedupeAgeMax = c.now, 2*time.Second }
		first := w.start(windowed).serving(4)
		r := w.deposit("s", 1)
		wantVersions(t, w.ask(r), 1, 1)
		c.advance(4 * time.Second)
		wantVersions(t, w.ask(r), 2, 2)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		c.ahead.Store(0) // the stamps of the broker's own clock are young again
		w.start(windowed, func(cfg *Config) { cfg.Categories[0].DedupeAgeMax = time.Hour }).serving(4)
		reply := w.ask(r)
		wantOutcome(t, reply, OutcomeDuplicate, "")
		wantVersions(t, reply, 2, 2)
	})
}

// W17: of a refused batch the proof may answer first, when it was asked for before the commands
// behind it. What is under way is taken back all the same.
func TestW17AProofThatIsRefusedFirstTakesBackWhatIsUnderWay(t *testing.T) {
	budget := &stateBudget{bytesMax: 1 << 20}
	all, err := newMetrics(prometheus.NewRegistry(), budget)
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{
		table: newStreamTable(), budget: budget, metrics: all.partition("account", "0"), log: quiet,
		category: &boundCategory{Category: Category{Name: "account"}}, proofs: 1,
	}
	commands := []*command{{}, {}}
	s := o.table.obtain("s")
	for n, c := range commands { // as append leaves them
		c.previous = undo{stream: s, id: "s", version: s.version, state: s.state}
		s.version++
		s.window.add(remembered{key: keyOf(itoa(n)), first: s.version, count: 1, offset: -1})
		o.table.bytes += rememberedBytesFixed
		o.appended.push(c)
	}
	if err := o.onProof(nil, appender.ErrRefused); err != nil {
		t.Fatal(err)
	}
	for range commands {
		if err := o.onAppended(appender.Result{Err: appender.ErrRefused}); err != nil {
			t.Fatal(err)
		}
	}
	if !o.refused || s.version != 0 || s.window.len() != 0 || o.table.get("s") != nil || o.table.bytes != 0 {
		t.Errorf("refused %t, version %d, ids %d, bytes %d: want all taken back", o.refused, s.version, s.window.len(), o.table.bytes)
	}
}
