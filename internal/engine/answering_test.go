package engine

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Rules W10 to W17: deciding and answering.

// deciding replaces the account decider's Decide in one instance.
func deciding(decide func(s account, c decider.Message) (decider.Decision, error)) func(*Config) {
	return func(c *Config) {
		spec := accounts
		spec.Decide = decide
		def := spec.Definition()
		c.Categories = []Category{{Name: "account", Decider: &def}, {Name: "note"}}
	}
}

// gate holds the decisions of commands with a note in an instance until it is opened.
type gate struct {
	note    string
	entered chan struct{} // closed when the first of them is being decided
	open    chan struct{}
	once    sync.Once
}

func newGate(note string) *gate {
	return &gate{note: note, entered: make(chan struct{}), open: make(chan struct{})}
}

func (g *gate) decide(s account, c decider.Message) (decider.Decision, error) {
	if c.Data.(deposit).Note == g.note {
		g.once.Do(func() { close(g.entered) })
		<-g.open
	}
	return accounts.Decide(s, c)
}

func (w *world) awaitSignal(what string, signal <-chan struct{}) {
	w.t.Helper()
	select {
	case <-signal:
	case <-time.After(waitMax):
		w.t.Fatalf("waited %s in vain for: %s", waitMax, what)
	}
}

func (w *world) noted(stream string, amount int64, note string) request {
	r := w.deposit(stream, amount)
	r.data = deposit{Amount: amount, Note: note}
	return r
}

// A command that cannot be decided yet holds back those behind it, also of other streams; the
// other partitions go on. Afterwards the log has them in the order in which they were asked.
func TestW10CommandsAreDecidedInOffsetOrder(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var broken atomic.Bool
		broken.Store(true)
		i := w.start(deciding(func(s account, c decider.Message) (decider.Decision, error) {
			if broken.Load() && c.Data.(deposit).Note == "hard" {
				return decider.Decision{}, errors.New("the price list is away")
			}
			return accounts.Decide(s, c)
		})).serving(4)
		first, second, elsewhere := w.streamOn(0, 0), w.streamOn(0, 1), w.streamOn(1, 0)
		before, hard, behind := w.deposit(first, 1), w.noted(first, 1, "hard"), w.deposit(second, 1)
		w.send(before, hard, behind)
		wantOutcome(t, w.await(before.id, 1)[0], OutcomeAccepted, "")
		w.wantReady(i, "account.commands[0]", "the price list is away", "stream account/"+first)
		wantOutcome(t, w.ask(w.deposit(elsewhere, 1)), OutcomeAccepted, "")
		if got := w.repliesOf(behind.id); len(got) != 0 {
			t.Errorf("a command behind one that waits was answered: %+v", got)
		}
		broken.Store(false)
		wantVersions(t, w.await(hard.id, 1)[0], 2, 2)
		wantVersions(t, w.await(behind.id, 1)[0], 1, 1)
		w.eventually("readiness", func() bool { return i.engine.Ready() == nil })
		w.wantOffsetOrder("account")
	})
}

// wantOffsetOrder checks that each partition's events follow the order of their commands.
func (w *world) wantOffsetOrder(category string) {
	w.t.Helper()
	last := map[int32]int64{}
	for _, rec := range w.log(topics.Events(w.ns, category)) {
		if event.Control(rec.Headers) != "" {
			continue
		}
		e, err := event.ParseRecorded(category, rec)
		if err != nil {
			w.t.Fatal(err)
		}
		if e.CommandOffset < last[rec.Partition] {
			w.t.Errorf("partition %d: the event of command %d stands after that of %d", rec.Partition, e.CommandOffset, last[rec.Partition])
		}
		last[rec.Partition] = e.CommandOffset
	}
}

// What leaves a command: its reply, its letter, its re-route. The group offset stays below a
// command whose outgoing record is not acknowledged, however many behind it are done.
func TestW11TheGroupOffsetWaitsForWhatIsNotSent(t *testing.T) {
	for name, c := range map[string]struct {
		refusedTopic func(w *world) string
		partitions   []int32
		change       func(w *world, r *request)
	}{
		"reply": {
			refusedTopic: func(w *world) string { return topics.Replies(w.ns) },
			change:       func(*world, *request) {},
		},
		"letter": {
			refusedTopic: func(w *world) string { return topics.DeadLetters(w.ns, topics.ConsumerIngest) },
			change:       func(_ *world, r *request) { r.data, r.value, r.noReply = nil, []byte("?"), true },
		},
		"re-route": {
			refusedTopic: func(w *world) string { return topics.Commands(w.ns, "account") },
			partitions:   []int32{1},
			change:       func(w *world, r *request) { r.stream, r.partition, r.noReply = w.streamOn(1, 0), 0, true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := onKfake(t)
			w.start().serving(4)
			held, quick, note := w.deposit(w.streamOn(0, 0), 1), w.deposit(w.streamOn(0, 0), 1), w.note(w.streamOn(0, 0), "n")
			c.change(w, &held)
			quick.noReply, note.noReply = true, true
			records := []*kgo.Record{w.record(held), w.record(quick)}
			fault := w.kafka.Cluster().Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: c.refusedTopic(w), Partitions: c.partitions, Err: kerr.NotEnoughReplicas, Count: -1,
			})
			if err := w.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := fault.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			// Commits go on meanwhile: another category's offset moves twice.
			for n := range int64(2) {
				w.send(note)
				w.eventually("a commit of the other category", func() bool { return w.committed("note", 0) == n+1 })
			}
			if got := w.committed("account", 0); got > 0 {
				t.Errorf("group offset: got %d, want none beyond 0: what command 0 sends is not acknowledged", got)
			}
			fault.Remove()
			w.eventually("the group offset beyond both commands", func() bool { return w.committed("account", 0) == 2 })
		})
	}
}

func TestW11AReplyThatNobodyTakesIsGivenUp(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start().serving(4)
		nowhere, beyond := w.deposit(w.streamOn(0, 0), 1), w.deposit(w.streamOn(0, 0), 1)
		for r, to := range map[*request]string{&nowhere: topics.Replies(w.ns) + ".nobody", &beyond: topics.Replies(w.ns) + "/4711"} {
			r.noReply = true
			r.headers = []event.Header{{Key: event.HeaderReplyTo, Value: []byte(to)}}
		}
		w.send(nowhere, beyond)
		w.eventually("the group offset beyond both", func() bool { return w.committed("account", 0) == 2 })
		if got := valueOf(i.engine.metrics.repliesGivenUp.WithLabelValues("account")); got != 2 {
			t.Errorf("replies given up: got %v, want 2", got)
		}
	})
}

func TestW11ARepliesPartitionAndKeyAreTheAskers(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		own := topics.Replies(w.ns) + ".own"
		w.kafka.CreateTopic(t, own, 3, map[string]string{"retention.ms": "-1"})
		w.led(own, 3)
		r := w.deposit(w.streamOn(0, 0), 1)
		r.noReply = true
		r.headers = []event.Header{
			{Key: event.HeaderReplyTo, Value: []byte(own + "/2")}, {Key: event.HeaderReplyKey, Value: []byte("my-key")},
			{Key: event.HeaderAttempt, Value: []byte("3")}, {Key: event.HeaderCorrelationID, Value: []byte("talk")},
		}
		w.send(r)
		var replies []*kgo.Record
		w.eventually("the reply", func() bool { replies = w.log(own); return len(replies) == 1 })
		got := replies[0]
		if got.Partition != 2 || string(got.Key) != "my-key" {
			t.Errorf("reply: got partition %d key %q, want 2 and my-key", got.Partition, got.Key)
		}
		for name, want := range map[string]string{
			event.HeaderID: event.ReplyID(r.id), event.HeaderType: codec.TypeReply, event.HeaderCorrelationID: "talk",
			event.HeaderCausationID: r.id, event.HeaderAttempt: "3",
		} {
			if text := headerText(got, name); text != want {
				t.Errorf("reply header %s: got %q, want %q", name, text, want)
			}
		}
	})
}

// neverCommits keeps an instance from committing group offsets within a test.
func neverCommits(c *Config) { c.CommitInterval = time.Hour }

// An owner dies with everything answered and nothing committed: the next one answers all again,
// from the log, as far as the log knows.
func TestW12CommandsUpToHAreAnsweredFromTheLog(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first, _ := w.startLinked(neverCommits)
		first.serving(4)
		stream, other := w.streamOn(0, 0), w.streamOn(0, 1)
		accepted, rejected := w.deposit(stream, 5), w.deposit(stream, -50)
		garbage := w.deposit(stream, 1)
		garbage.data, garbage.value = nil, []byte("garbage")
		astray := w.deposit(w.streamOn(1, 0), 3)
		astray.partition = 0
		last, above := w.deposit(other, 1), w.deposit(other, -50)
		w.send(accepted, rejected, garbage, astray, last, above)
		before := map[string]codec.Reply{}
		for _, r := range []request{accepted, rejected, garbage, astray, last, above} {
			before[r.id] = w.await(r.id, 1)[0]
		}
		first.crash()
		w.start().serving(4)

		for name, c := range map[string]struct {
			request request
			outcome OutcomeKind
			code    string
		}{
			"accepted: its event is in the log":             {accepted, OutcomeAccepted, ""},
			"rejected: left no event and lies below H":      {rejected, OutcomeUnknown, ""},
			"undecodable: handled again":                    {garbage, OutcomeInvalid, CodeFrame},
			"the highest":                                   {last, OutcomeAccepted, ""},
			"rejected above H: decided again":               {above, OutcomeRejected, "overdrawn"},
			"mis-routed: its owner answers it from the log": {astray, OutcomeAccepted, ""},
		} {
			again := w.await(c.request.id, 2)[1]
			if again.Outcome != string(c.outcome) || again.Code != c.code {
				t.Errorf("%s: got %s %q (%s), want %s %q", name, again.Outcome, again.Code, again.Message, c.outcome, c.code)
			}
			if c.outcome == OutcomeAccepted && (again.FirstVersion != before[c.request.id].FirstVersion || again.Offset != before[c.request.id].Offset) {
				t.Errorf("%s: got %+v, first answered %+v", name, again, before[c.request.id])
			}
		}
		w.wantEventsOnce([]request{accepted, astray, last})
		w.eventually("everything committed", func() bool { return w.committed("account", 0) == 6 })
		letters := w.log(topics.DeadLetters(w.ns, topics.ConsumerIngest))
		if len(letters) != 2 || headerText(letters[0], deadletter.HeaderID) != headerText(letters[1], deadletter.HeaderID) {
			t.Errorf("letters: got %d, want the same one twice", len(letters))
		}
	})
}

// The owner dies with commands at every stage.
func TestW12EveryCommandIsAnsweredAfterACrash(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first, _ := w.startLinked()
		first.serving(4)
		var requests []request
		for n := range 500 {
			requests = append(requests, w.deposit(w.streamOn(int32(n%2), n%7), 1))
		}
		w.send(requests...)
		first.tells(20)
		first.crash()
		w.start().serving(4)
		for _, r := range requests {
			for _, reply := range w.await(r.id, 1) {
				wantOutcome(t, reply, OutcomeAccepted, "")
			}
		}
		w.wantEventsOnce(requests)
	})
}

func TestW13AWindowForgetsByCountAndAgeButNotBeforeDedupeUntil(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var c clock
		w.allowStampsAhead(topics.Snapshots(w.ns, "account"), 24*time.Hour)
		windowed := func(cfg *Config) {
			cfg.Clock = c.now
			cfg.Categories[0].DedupeIDsMax, cfg.Categories[0].DedupeAgeMax = 3, 10*time.Minute
		}
		first := w.start(windowed).serving(4)
		counted, aged, kept := w.streamOn(0, 0), w.streamOn(0, 1), w.streamOn(1, 0)
		old := w.deposit(counted, 1)
		rest := []request{w.deposit(counted, 1), w.deposit(counted, 1), w.deposit(counted, 1)}
		young := w.deposit(aged, 1)
		held := w.deposit(kept, 1)
		held.headers = []event.Header{{Key: event.HeaderDedupeUntil, Value: []byte(event.FormatTime(time.Now().Add(2 * time.Hour)))}}
		w.ask(old)
		for n := range 3 {
			w.ask(rest[n])
		}
		w.ask(young)
		w.ask(held)
		for range 5 {
			w.ask(w.deposit(kept, 1))
		}
		check := func(when string) {
			t.Helper()
			for name, r := range map[string]request{"one of the last 3 ids": rest[0], "young": young, "dedupe-until ahead": held} {
				if got := w.ask(r); got.Outcome != string(OutcomeDuplicate) {
					t.Errorf("%s, %s: got %s, want duplicate", when, name, got.Outcome)
				}
			}
		}
		check("live")
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		second := w.start(windowed).serving(4)
		check("rebuilt from the log")
		wantOutcome(t, w.ask(old), OutcomeAccepted, "") // 4 ids ago: forgotten

		c.advance(11 * time.Minute)
		if got := w.ask(held); got.Outcome != string(OutcomeDuplicate) {
			t.Errorf("older than the age, dedupe-until ahead: got %s, want duplicate", got.Outcome)
		}
		wantOutcome(t, w.ask(young), OutcomeAccepted, "")
		if err := second.stop(); err != nil {
			t.Fatal(err)
		}
		w.start(windowed).serving(4)
		if got := w.ask(held); got.Outcome != string(OutcomeDuplicate) {
			t.Errorf("rebuilt, older than the age, dedupe-until ahead: got %s, want duplicate", got.Outcome)
		}
		c.advance(3 * time.Hour) // on a broker that stamps, an age counts by its clock, which the test cannot advance
		wantOutcome(t, w.ask(held), OutcomeAccepted, "")
	})
}

func TestW13TheSameIDWithOtherContentIsInvalidAlsoAfterARestart(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start().serving(4)
		r := w.deposit("a", 1)
		w.ask(r)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		w.start().serving(4)
		otherContent, otherCondition := r, r
		otherContent.data = deposit{Amount: 2}
		otherCondition.expected = "exists"
		wantOutcome(t, w.ask(otherContent), OutcomeInvalid, CodeIDReused)
		wantOutcome(t, w.ask(otherCondition), OutcomeInvalid, CodeIDReused)
		wantOutcome(t, w.ask(r), OutcomeDuplicate, "")
		elsewhere := otherContent // D5: the scope is the stream
		elsewhere.stream = "b"
		wantOutcome(t, w.ask(elsewhere), OutcomeAccepted, "")
	})
}

func TestW14MisroutedCommandsAreSentOnInOrder(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start().serving(4)
		stream := w.streamOn(1, 0)
		var requests []request
		for range 50 {
			r := w.deposit(stream, 1)
			r.partition = 0
			requests = append(requests, r)
		}
		w.send(requests...)
		for n, r := range requests {
			reply := w.await(r.id, 1)[0]
			wantOutcome(t, reply, OutcomeAccepted, "")
			wantVersions(t, reply, int64(n+1), int64(n+1))
		}
		for n, e := range w.events("account")[stream] {
			want := event.Origin{TopicID: w.topicIDs(topics.Commands(w.ns, "account"))[topics.Commands(w.ns, "account")], Partition: 0, Offset: int64(n)}
			if e.Origin == nil || *e.Origin != want {
				t.Errorf("origin of event %d: got %v, want %v", n, e.Origin, want)
			}
		}
		if got := valueOf(i.engine.metrics.reroutes.WithLabelValues("account")); got != 50 {
			t.Errorf("re-routes counted: got %v, want 50", got)
		}
	})
}

// The re-router died before its group offset passed the command, so that it comes twice. The id
// itself is forgotten by then: only the origin tells.
func TestW14ARepeatedRerouteIsDroppedAlsoAfterARestart(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		forgetful := func(c *Config) { c.Categories[0].DedupeIDsMax = 1 }
		first, _ := w.startLinked(neverCommits, forgetful)
		first.serving(4)
		stream := w.streamOn(1, 0)
		astray, next := w.deposit(stream, 1), w.deposit(stream, 1)
		astray.partition = 0
		w.ask(astray)
		w.ask(next)
		first.crash()
		i := w.start(forgetful).serving(4)
		w.eventually("the second re-route's end", func() bool { return w.committed("account", 1) == 3 })
		w.wantEventsOnce([]request{astray, next})
		if got := valueOf(i.engine.metrics.repeated.WithLabelValues("account")); got != 1 {
			t.Errorf("repeated re-routes: got %v, want 1", got)
		}
	})
}

// Two re-routes of one partition, the first rejected, the second accepted; their owner dies before
// its answers are sent. The first lies below an origin that was seen, yet it is no repetition: it
// is owed an answer.
func TestW14AReroutedCommandWithoutEventIsAnsweredAfterACrash(t *testing.T) {
	w := onKfake(t)
	hold := w.kafka.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Replies(w.ns), Err: kerr.NotEnoughReplicas, Count: -1})
	first, _ := w.startLinked()
	first.serving(4)
	refused, taken := w.deposit(w.streamOn(1, 0), -5), w.deposit(w.streamOn(1, 0), 5)
	refused.partition, taken.partition = 0, 0
	w.send(refused, taken)
	first.tells(2)
	first.crash()
	hold.Remove()
	w.start().serving(4)
	wantOutcome(t, w.await(taken.id, 1)[0], OutcomeAccepted, "")
	wantOutcome(t, w.await(refused.id, 1)[0], OutcomeUnknown, "")
}

// As before, but the first of the two repeats a request that was accepted: its id is known, and it
// is owed an answer all the same.
func TestW14AReroutedRepetitionOfAnAcceptedRequestIsAnsweredAfterACrash(t *testing.T) {
	w := onKfake(t)
	first, _ := w.startLinked()
	first.serving(4)
	done, taken := w.deposit(w.streamOn(1, 0), 5), w.deposit(w.streamOn(1, 0), 5)
	wantOutcome(t, w.ask(done), OutcomeAccepted, "")
	hold := w.kafka.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Replies(w.ns), Err: kerr.NotEnoughReplicas, Count: -1})
	done.partition, taken.partition = 0, 0
	w.send(done, taken)
	first.tells(3)
	first.crash()
	hold.Remove()
	w.start().serving(4)
	wantOutcome(t, w.await(taken.id, 1)[0], OutcomeAccepted, "")
	w.eventually("an answer to the repetition", func() bool {
		return slices.ContainsFunc(w.repliesOf(done.id), func(r codec.Reply) bool { return r.Outcome == string(OutcomeUnknown) })
	})
}

// An owner decides on what it knows, but meanwhile somebody else has claimed and appended: it must
// learn of that before it answers anything that leaves no event.
func TestW15AnswersWithoutAnEventWaitForAProof(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		held := newGate("gate")
		i := w.start(deciding(held.decide)).serving(4)
		stream := w.streamOn(0, 0)
		gate := w.noted(w.streamOn(0, 1), 0, "gate") // leaves no event: no append finds out either
		rejected, conflict, conditional := w.deposit(stream, -1), w.deposit(stream, 1), w.deposit(stream, 1)
		conflict.expected, conditional.expected = "0", "1"
		w.send(gate)
		w.awaitSignal("the owner is busy", held.entered)
		w.send(conditional, rejected, conflict)
		i.fetched("account", 0, 3)
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		in.append(w.eventRecord(stream, 1, "by-the-fast-path", -1))
		close(held.open)

		// Decided before the take-over: a conflict at version 0, a rejection, an acceptance.
		wantVersions(t, w.await(conditional.id, 1)[0], 2, 2)
		wantVersions(t, w.await(rejected.id, 1)[0], 3, 3)
		wantOutcome(t, w.await(conflict.id, 1)[0], OutcomeConflict, "")
		for offset, want := range []OutcomeKind{OutcomeAccepted, OutcomeAccepted, OutcomeAccepted, OutcomeConflict} {
			told, _ := i.told.list()
			var kinds []OutcomeKind
			for _, o := range told {
				if o.partition == 0 && o.offset == int64(offset) {
					kinds = append(kinds, o.Kind)
				}
			}
			if len(kinds) != 1 || kinds[0] != want {
				t.Errorf("command %d: told %v, want %s once", offset, kinds, want)
			}
		}
	})
}

// A duplicate of a command that is under way is none before that is acknowledged.
func TestW15ADuplicateWaitsForItsOriginal(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		held := newGate("gate")
		i := w.start(deciding(held.decide)).serving(4)
		stream := w.streamOn(0, 0)
		original := w.noted(stream, 5, "gate")
		w.send(original)
		w.awaitSignal("the owner is busy", held.entered)
		w.send(original)
		i.fetched("account", 0, 1)
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		in.append(w.eventRecord(stream, 1, "by-the-fast-path", -1))
		close(held.open)
		replies := w.await(original.id, 2)
		wantOutcome(t, replies[0], OutcomeAccepted, "")
		wantVersions(t, replies[0], 2, 2)
		wantOutcome(t, replies[1], OutcomeDuplicate, "")
		wantVersions(t, replies[1], 2, 2)
		if replies[1].Offset != replies[0].Offset {
			t.Errorf("duplicate's offset: got %d, want the original's, %d", replies[1].Offset, replies[0].Offset)
		}
		if told, _ := i.told.list(); len(told) != 2 {
			t.Errorf("told: got %+v, want one outcome for each command", told)
		}
	})
}

// Owner A has taken up commands and is stopped (SIGSTOP) past its session; B takes over and answers
// them; A goes on, appends and is fenced. It says nothing: the answers are B's.
func TestW16AFencedOwnerIsSilent(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		held := newGate("gate")
		a, l := w.startLinked(deciding(held.decide), func(c *Config) { c.Instance = "a" })
		a.serving(4)
		stream := w.streamOn(0, 0)
		requests := []request{w.noted(stream, 1, "gate")}
		for range 20 {
			requests = append(requests, w.deposit(stream, 1))
		}
		w.send(requests[0])
		w.awaitSignal("A is busy", held.entered)
		w.send(requests[1:]...)
		a.fetched("account", 0, 20)
		l.hold()
		a.expel()
		b := w.start(func(c *Config) { c.Instance = "b" }).serving(4)
		for _, r := range requests {
			w.await(r.id, 1)
		}
		close(held.open) // A decides on, and its batch stands in the socket
		l.release()
		w.eventually("A is a member again and shares the partitions", func() bool {
			return a.served() > 0 && a.served()+b.served() == 4 && a.engine.Ready() == nil
		})
		if err := a.stop(); err != nil {
			t.Fatalf("Run: %v", err)
		}
		if told, _ := a.told.list(); len(told) != 0 {
			t.Errorf("the fenced owner told %+v, want nothing", told)
		}
		for n, r := range requests {
			replies := w.repliesOf(r.id)
			if len(replies) != 1 {
				t.Errorf("answers to command %d: got %+v, want one", n, replies)
			}
			wantVersions(t, replies[0], int64(n+1), int64(n+1))
		}
		w.wantEventsOnce(requests)
	})
}

// A batch of several commands that the broker refuses for one of them: that one is invalid, those
// around it are stored, wherever it stands in the batch.
func TestW17ARefusedBatchFailsTheCulpritAlone(t *testing.T) {
	for name, c := range map[string]struct {
		code     *kerr.Error
		culprit  int
		commands int
	}{
		"too large, the first":          {kerr.MessageTooLarge, 0, 8},
		"too large, in the middle":      {kerr.MessageTooLarge, 4, 8},
		"timestamp, the last":           {kerr.InvalidTimestamp, 7, 8},
		"invalid record, the only one":  {kerr.InvalidRecord, 0, 1},
		"invalid record, one of a poll": {kerr.InvalidRecord, 300, 600},
	} {
		t.Run(name, func(t *testing.T) {
			w := onKfake(t)
			w.kafka.Cluster().Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(w.ns, "account"), Err: c.code, Count: -1,
				When: func(r kmsg.Request) bool { return produces(r, "culprit") },
			})
			held := newGate("first")
			i := w.start(deciding(held.decide)).serving(4)
			stream := w.streamOn(0, 0)
			// All are decided in one go, behind the gate.
			requests := []request{w.noted(w.streamOn(0, 1), 1, "first")}
			for n := range c.commands {
				r := w.deposit(stream, 1)
				if n == c.culprit {
					r = w.noted(stream, 1, "culprit")
				}
				requests = append(requests, r)
			}
			w.send(requests[0])
			w.awaitSignal("the owner is busy", held.entered)
			w.send(requests[1:]...)
			i.fetched("account", 0, c.commands)
			close(held.open)
			// These come while the batch is on its way, or just after.
			for range 5 {
				more := w.deposit(stream, 1)
				requests = append(requests, more)
				w.send(more)
			}
			i.tells(len(requests))
			version := int64(0)
			for n, r := range requests[1:] {
				reply := w.await(r.id, 1)[0]
				if n == c.culprit {
					wantOutcome(t, reply, OutcomeInvalid, CodeRefused)
					continue
				}
				version++
				wantOutcome(t, reply, OutcomeAccepted, "")
				wantVersions(t, reply, version, version)
			}
			// The culprit is not remembered: it left nothing.
			again := requests[1+c.culprit]
			wantOutcome(t, w.ask(again), OutcomeInvalid, CodeRefused)
			i.wantFencings(0, 0)
			if got := int64(len(w.events("account")[stream])); got != version {
				t.Errorf("events: got %d, want %d", got, version)
			}
			w.wantOffsetOrder("account")
		})
	}
}

// The last command that is appended alone may be the culprit: what comes in meanwhile waits for it,
// or it would have been decided on events that are taken back.
func TestW17NothingIsDecidedBehindACommandThatIsAppendedAlone(t *testing.T) {
	w := onKfake(t)
	w.kafka.Cluster().Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(w.ns, "account"), Err: kerr.MessageTooLarge, Count: -1,
		When: func(r kmsg.Request) bool { return produces(r, "culprit") },
	})
	first, again := newGate("gate"), newGate("culprit")
	var decisions atomic.Int32
	i := w.start(deciding(func(s account, c decider.Message) (decider.Decision, error) {
		if c.Data.(deposit).Note == "culprit" && decisions.Add(1) == 2 {
			return again.decide(s, c)
		}
		return first.decide(s, c)
	})).serving(4)
	stream := w.streamOn(0, 0)
	requests := []request{w.noted(w.streamOn(0, 1), 0, "gate"), w.deposit(stream, 1), w.noted(stream, 1, "culprit")}
	w.send(requests[0])
	w.awaitSignal("the owner is busy", first.entered)
	w.send(requests[1:]...)
	i.fetched("account", 0, 2)
	close(first.open)
	w.awaitSignal("the culprit is decided again", again.entered)
	var more []request
	for range 5 {
		more = append(more, w.deposit(stream, 1))
	}
	w.send(more...)
	i.fetched("account", 0, 5)
	close(again.open)
	wantOutcome(t, w.await(requests[2].id, 1)[0], OutcomeInvalid, CodeRefused)
	for n, r := range more {
		reply := w.await(r.id, 1)[0]
		wantOutcome(t, reply, OutcomeAccepted, "")
		wantVersions(t, reply, int64(n+2), int64(n+2))
	}
	if got := len(w.events("account")[stream]); got != 6 {
		t.Errorf("events: got %d, want 6", got)
	}
}

// What was decided behind a refused batch without leaving an event is decided again too.
func TestW17AnswersThatWereDecidedBehindARefusedBatchAreDecidedAgain(t *testing.T) {
	w := onKfake(t)
	w.kafka.Cluster().Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(w.ns, "account"), Err: kerr.MessageTooLarge, Count: -1,
		When: func(r kmsg.Request) bool { return produces(r, "culprit") },
	})
	held := newGate("gate")
	i := w.start(deciding(held.decide)).serving(4)
	stream := w.streamOn(0, 0)
	gate, culprit := w.noted(w.streamOn(0, 1), 0, "gate"), w.noted(stream, 10, "culprit")
	spends, first, repeated := w.deposit(stream, -10), w.deposit(stream, 1), culprit
	first.expected = "none"
	w.send(gate)
	w.awaitSignal("the owner is busy", held.entered)
	w.send(culprit, spends, first, repeated)
	i.fetched("account", 0, 4)
	close(held.open)
	wantOutcome(t, w.await(culprit.id, 2)[0], OutcomeInvalid, CodeRefused)
	wantOutcome(t, w.await(culprit.id, 2)[1], OutcomeInvalid, CodeRefused)
	wantOutcome(t, w.await(spends.id, 1)[0], OutcomeRejected, "overdrawn")
	wantOutcome(t, w.await(first.id, 1)[0], OutcomeAccepted, "")
	wantVersions(t, w.await(first.id, 1)[0], 1, 1)
}

// A re-routed command in a refused batch is decided again: its own origin is no repetition.
func TestW17AReroutedCommandOfARefusedBatchIsNotDropped(t *testing.T) {
	w := onKfake(t)
	w.kafka.Cluster().Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(w.ns, "account"), Err: kerr.MessageTooLarge, Count: -1,
		When: func(r kmsg.Request) bool { return produces(r, "culprit") },
	})
	held := newGate("gate")
	i := w.start(deciding(held.decide)).serving(4)
	stream := w.streamOn(0, 0)
	gate := w.noted(w.streamOn(0, 1), 0, "gate")
	astray, culprit := w.deposit(stream, 1), w.noted(stream, 1, "culprit")
	astray.partition = 1
	w.send(gate)
	w.awaitSignal("the owner is busy", held.entered)
	w.send(astray)
	w.eventually("the re-route", func() bool { return w.committed("account", 1) == 1 })
	w.send(culprit)
	i.fetched("account", 0, 2)
	close(held.open)
	wantOutcome(t, w.await(culprit.id, 1)[0], OutcomeInvalid, CodeRefused)
	wantOutcome(t, w.await(astray.id, 1)[0], OutcomeAccepted, "")
	if got := valueOf(i.engine.metrics.repeated.WithLabelValues("account")); got != 0 {
		t.Errorf("repeated re-routes: got %v, want 0", got)
	}
}

// The same on the real broker's own limit.
func TestW17ABatchAboveTheTopicsLimitFailsTheCulpritAlone(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		limit := "20000"
		_, err := kadm.NewClient(w.client).AlterTopicConfigs(t.Context(),
			[]kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, topics.Events(w.ns, "account"))
		if err != nil {
			t.Fatal(err)
		}
		w.eventually("the topic's limit", func() bool { return w.topicConfig(topics.Events(w.ns, "account"), "max.message.bytes") == limit })
		i := w.start().serving(4)
		stream := w.streamOn(0, 0)
		requests := []request{w.deposit(stream, 1), w.noted(stream, 1, strings.Repeat("x", 30_000)), w.deposit(stream, 1)}
		w.send(requests...)
		wantVersions(t, w.await(requests[0].id, 1)[0], 1, 1)
		wantOutcome(t, w.await(requests[1].id, 1)[0], OutcomeInvalid, CodeRefused)
		wantVersions(t, w.await(requests[2].id, 1)[0], 2, 2)
		i.wantFencings(0, 0)
	})
}

// An answer of the broker that does not tell whether the batch is stored: the same bytes are sent
// again until it does, and stand once.
func TestABatchOfUnknownOutcomeIsStoredOnce(t *testing.T) {
	w := onKfake(t)
	i := w.start().serving(4)
	stream := w.streamOn(0, 0)
	w.kafka.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Events(w.ns, "account"), Err: kerr.RequestTimedOut, Count: 2})
	wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
	wantVersions(t, w.ask(w.deposit(stream, 1)), 2, 2)
	i.wantFencings(0, 0)
	if got := len(w.events("account")[stream]); got != 2 {
		t.Errorf("events: got %d, want 2", got)
	}
}

// produces says whether a request carries a text in its records.
func produces(r kmsg.Request, text string) bool {
	p, ok := r.(*kmsg.ProduceRequest)
	if !ok {
		return false
	}
	for _, topic := range p.Topics {
		for _, partition := range topic.Partitions {
			if bytes.Contains(partition.Records, []byte(text)) {
				return true
			}
		}
	}
	return false
}

// fetched waits until n commands lie in an owner's inbox.
func (i *instance) fetched(category string, partition int32, n int) {
	i.w.t.Helper()
	i.w.eventually(itoa(n)+" commands fetched", func() bool {
		i.engine.mu.Lock()
		o := i.engine.owners[topicPartition{topics.Commands(i.w.ns, category), partition}]
		i.engine.mu.Unlock()
		if o == nil {
			return false
		}
		o.mailbox.mu.Lock()
		defer o.mailbox.mu.Unlock()
		return len(o.mailbox.records) >= n
	})
}

// served counts the partitions that an instance serves.
func (i *instance) served() int {
	n := 0
	for _, p := range i.engine.Owned() {
		n += len(p)
	}
	return n
}

// topicConfig is a topic's setting as the broker says it: a real one takes some time to heed a change.
func (w *world) topicConfig(topic, name string) string {
	w.t.Helper()
	all, err := kadm.NewClient(w.client).DescribeTopicConfigs(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, resource := range all {
		for _, c := range resource.Configs {
			if c.Key == name {
				return c.MaybeValue()
			}
		}
	}
	return ""
}

// allowStampsAhead has a topic take the records of a test whose clock runs ahead: a snapshot that is
// saved before the test is over would be refused. The embedded broker takes all stamps.
func (w *world) allowStampsAhead(topic string, ahead time.Duration) {
	w.t.Helper()
	if w.kafka.Cluster() != nil {
		return
	}
	text := strconv.FormatInt(ahead.Milliseconds(), 10)
	_, err := kadm.NewClient(w.client).AlterTopicConfigs(w.t.Context(), []kadm.AlterConfig{{Name: "message.timestamp.after.max.ms", Value: &text}}, topic)
	if err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the topic's bound of stamps", func() bool { return w.topicConfig(topic, "message.timestamp.after.max.ms") == text })
}
