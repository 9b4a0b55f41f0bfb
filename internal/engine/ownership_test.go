package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Rules W1 to W9: owning a partition.

func TestW1ClaimStandsFirstAndNamesItsOwner(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		named := func(c *Config) { c.Instance = "first" }
		first := w.start(named).serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 5)), 1, 1)
		if err := first.stop(); err != nil {
			t.Fatalf("Run: %v", err)
		}
		w.start().serving(4)
		wantVersions(t, w.ask(w.deposit(stream, 5)), 2, 2)

		log := w.log(topics.Events(w.ns, "account"))
		ids := w.topicIDs(topics.Commands(w.ns, "account"), topics.Events(w.ns, "account"))
		claims := w.controls("account", 0, event.ControlClaim)
		if len(claims) != 2 {
			t.Fatalf("claims: got %d, want one for each owner", len(claims))
		}
		for n, claim := range claims {
			if claim.Key != nil || claim.Value != nil {
				t.Errorf("claim %d has key %q and value %q, want neither", n, claim.Key, claim.Value)
			}
			for name, want := range map[string]string{
				event.HeaderGroup:           topics.Group(w.ns, topics.ConsumerIngest),
				event.HeaderCommandsTopicID: event.FormatTopicID(ids[topics.Commands(w.ns, "account")]),
				event.HeaderEventsTopicID:   event.FormatTopicID(ids[topics.Events(w.ns, "account")]),
			} {
				if got := headerText(claim, name); got != want {
					t.Errorf("claim %d: header %s: got %q, want %q", n, name, got, want)
				}
			}
		}
		if got := headerText(claims[0], event.HeaderInstance); got != "first" {
			t.Errorf("instance: got %q, want first", got)
		}
		if claims[0].Offset != 0 {
			t.Errorf("the first claim stands at offset %d, want 0: nothing may go before it", claims[0].Offset)
		}
		if claims[0].ProducerID != claims[1].ProducerID || claims[1].ProducerEpoch <= claims[0].ProducerEpoch {
			t.Errorf("claims are of producer %d epoch %d and %d epoch %d, want one producer and a later epoch",
				claims[0].ProducerID, claims[0].ProducerEpoch, claims[1].ProducerID, claims[1].ProducerEpoch)
		}
		var lastBefore *kgo.Record
		for _, rec := range log {
			if rec.Partition == 0 && rec.Offset < claims[1].Offset && event.Control(rec.Headers) == "" {
				lastBefore = rec
			}
		}
		if got, want := headerText(claims[1], event.HeaderLastEventID), headerText(lastBefore, event.HeaderID); got != want {
			t.Errorf("last event id in the second claim: got %q, want %q", got, want)
		}
		w.events("account")
	})
}

func TestW2AnotherProducersClaimIsFencedBeforeOurs(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		// As after the transactional id expired: a claim of our group under another producer id.
		ids := w.topicIDs(topics.Commands(w.ns, "account"))
		claim := &kgo.Record{Topic: topics.Events(w.ns, "account"), Headers: []event.Header{
			{Key: event.HeaderControl, Value: []byte(event.ControlClaim)},
			{Key: event.HeaderGroup, Value: []byte(topics.Group(w.ns, topics.ConsumerIngest))},
			{Key: event.HeaderCommandsTopicID, Value: []byte(event.FormatTopicID(ids[topics.Commands(w.ns, "account")]))},
		}}
		old := w.foreign(claim)
		w.start().serving(4)
		before := len(w.log(claim.Topic))
		if err := old.ProduceSync(t.Context(), &kgo.Record{Topic: claim.Topic, Value: []byte("late")}).FirstErr(); err == nil {
			t.Errorf("the other producer's late write was accepted, want it refused")
		}
		if got := len(w.log(claim.Topic)); got != before {
			t.Errorf("the log grew from %d to %d records by the late write", before, got)
		}
		if got := len(w.controls("account", 0, event.ControlFence)); got != 1 {
			t.Errorf("fence batches: got %d, want 1", got)
		}
	})
}

func TestW3AnOwnerRenewsItsClaim(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var c clock
		i := w.start(clocked(&c)).serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		c.advance(15 * time.Minute) // a quarter of the transactional id's expiration
		w.eventually("a second claim", func() bool { return len(w.controls("account", 0, event.ControlClaim)) == 2 })
		wantVersions(t, w.ask(w.deposit(stream, 1)), 2, 2)
		claims := w.controls("account", 0, event.ControlClaim)
		if len(claims) != 2 || claims[0].ProducerID != claims[1].ProducerID || claims[0].ProducerEpoch >= claims[1].ProducerEpoch {
			t.Errorf("claims: got %d, want a second one under the same producer id and a later epoch", len(claims))
		}
		if got, want := headerText(claims[1], event.HeaderLastEventID), w.events("account")[stream][0].ID; got != want {
			t.Errorf("last event id in the renewed claim: got %q, want %q", got, want)
		}
		i.wantFencings(0, 0)
	})
}

func TestW3AnIdleOwnerKeepsItsProducerAliveAndRenewsAfterwards(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var c clock
		i := w.start(clocked(&c)).serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		c.advance(6 * time.Minute) // a quarter of the producer id's expiration, and no renewal yet
		w.eventually("a keep-alive", func() bool { return len(w.controls("account", 0, event.ControlKeepalive)) == 1 })
		if got := len(w.controls("account", 0, event.ControlClaim)); got != 1 {
			t.Fatalf("claims: got %d, want 1", got)
		}
		c.advance(10 * time.Minute)
		w.eventually("a renewal", func() bool { return len(w.controls("account", 0, event.ControlClaim)) == 2 })
		wantVersions(t, w.ask(w.deposit(stream, 1)), 2, 2)
		i.wantFencings(0, 0)
		if got := len(w.controls("account", 0, event.ControlClaim)); got != 2 {
			t.Errorf("claims: got %d, want 2: a keep-alive is our own record, no sign of another writer", got)
		}
	})
}

// A stream of commands that leaves no idle moment must not put the renewal off.
func TestW3ABusyOwnerRenewsToo(t *testing.T) {
	w := onKfake(t)
	// A broker that takes its time, and far more commands waiting than may be under way: whenever the
	// owner looks up from deciding, something is under way.
	cluster := w.kafka.Cluster()
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if produces(r, "account.Deposited") {
			cluster.SleepControl(func() { time.Sleep(20 * time.Millisecond) })
		}
		return nil, nil, false
	})
	var c clock
	i := w.start(clocked(&c), func(c *Config) { c.InFlightMax = 50 }).serving(4)
	stream := w.streamOn(0, 0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	sent := 0
	go func() {
		defer close(stopped)
		for {
			batch := make([]*kgo.Record, 300)
			for n := range batch {
				r := w.deposit(stream, 1)
				r.noReply = true
				batch[n] = w.record(r)
			}
			if err := w.client.ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
				t.Errorf("send: %v", err)
				return
			}
			sent += len(batch)
			for { // some always wait
				told, changed := i.told.list()
				if sent-len(told) <= 2*len(batch) {
					break
				}
				select {
				case <-changed:
				case <-stop:
					return
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	i.tells(100)
	c.advance(15 * time.Minute)
	w.eventually("renewals of the busy partition and of the idle one", func() bool {
		return valueOf(i.engine.metrics.renewals.WithLabelValues("account")) == 2
	})
	close(stop)
	<-stopped
	for _, o := range i.tells(sent) {
		if o.Kind != OutcomeAccepted {
			t.Fatalf("outcome of command offset %d: got %+v, want accepted", o.offset, o.Outcome)
		}
	}
	i.wantFencings(0, 0)
	if got := len(w.events("account")[stream]); got != sent {
		t.Errorf("events: got %d, want %d", got, sent)
	}
}

// W4 and W7: an owner that was fenced finds out at its renewal, takes nothing for granted, and,
// being a member of the group, takes over anew.
func TestW4ARenewalNeverStealsFromAnotherOwner(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var c clock
		w.start(clocked(&c)).serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		in.append(w.eventRecord(stream, 2, "intruder-command", -1))
		c.advance(15 * time.Minute)
		w.eventually("a claim after the intruder's", func() bool { return len(w.controls("account", 0, event.ControlClaim)) >= 3 })
		wantVersions(t, w.ask(w.deposit(stream, 1)), 3, 3)
		if got := len(w.events("account")[stream]); got != 3 {
			t.Errorf("events: got %d, want 3", got)
		}
	})
}

// A record that somebody else put between two of ours: the next append stands one further than
// expected, the owner drops what it knows and recovers in full; nothing is lost or doubled.
func TestW5ABreakOfContiguityIsNoticedAndRecoveredFrom(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start().serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		w.foreign(w.strayEvent(stream, 2))
		r := w.deposit(stream, 1)
		reply := w.ask(r)
		wantOutcome(t, reply, OutcomeAccepted, "")
		wantVersions(t, reply, 2, 2)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 3, 3)
		i.wantFencings(0, 1)
		if got := len(w.events("account")[stream]); got != 3 {
			t.Errorf("events: got %d, want 3", got)
		}
		if got := len(w.repliesOf(r.id)); got != 1 {
			t.Errorf("answers to the command in between: got %d, want 1", got)
		}
	})
}

func TestW6VoidRecordsAreSkipped(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		first := w.start().serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 7)), 1, 1)
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		garbage := &kgo.Record{Topic: topics.Events(w.ns, "account"), Partition: 0, Key: []byte(stream), Value: []byte("garbage")}
		w.foreign(w.strayEvent(stream, 2), garbage, w.strayEvent(stream, 2))
		second := w.start().serving(4)
		reply := w.ask(w.deposit(stream, -8))
		wantOutcome(t, reply, OutcomeRejected, "overdrawn") // a void deposit is not in the balance
		wantVersions(t, w.ask(w.deposit(stream, -7)), 2, 2)
		if got := valueOf(second.engine.metrics.voids.WithLabelValues("account")); got != 3 {
			t.Errorf("void records counted: got %v, want 3", got)
		}
		if got := len(w.events("account")[stream]); got != 2 {
			t.Errorf("events: got %d, want 2", got)
		}
	})
}

func TestW7AForeignGroupsClaimStopsTheService(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.intrude("account", 1, "somebody.else")
		i := w.start()
		select {
		case err := <-i.done:
			i.done <- err
			var foreign *ForeignGroupError
			if !errors.As(err, &foreign) || foreign.Group != "somebody.else" || !strings.Contains(err.Error(), `"somebody.else"`) {
				t.Errorf("Run: got %v, want a ForeignGroupError that names the group", err)
			}
		case <-time.After(waitMax):
			t.Fatal("the service goes on beside a foreign group")
		}
		if got := len(w.controls("account", 1, event.ControlClaim)); got != 1 {
			t.Errorf("claims: got %d, want only the foreign one", got)
		}
	})
}

func TestW7AFencedMemberTakesOverAnew(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		i := w.start().serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		in.append(w.eventRecord(stream, 2, "intruder-command", -1))
		r := w.deposit(stream, 1)
		wantVersions(t, w.ask(r), 3, 3)
		i.wantFencings(1, 0)
		if got := len(w.repliesOf(r.id)); got != 1 {
			t.Errorf("answers: got %d, want 1", got)
		}
	})
}

// The old owner's session is over, but it has not heard of it yet: its next heartbeat is seconds
// away. Fenced, it must not claim the partition back from its successor.
func TestW7AFencedOwnerThatIsNoMemberStaysAway(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		beats := make(heartbeats, 16)
		i := w.start(func(c *Config) {
			c.HeartbeatInterval, c.SessionTimeout = 10*time.Second, 30*time.Second
			c.CommitInterval = time.Hour // a commit that fails would tell it too
			c.Kafka = append(c.Kafka, kgo.WithHooks(beats))
		}).serving(4)
		stream := w.streamOn(0, 0)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 1, 1)
		for range 4 + 1 { // one proof for each partition, and the early one after a join
			<-beats
		}
		i.expel()
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		w.send(w.deposit(stream, 1))
		w.eventually("the old owner fails to prove its membership", func() bool {
			err := i.engine.Ready()
			return err != nil && strings.Contains(err.Error(), "proving membership")
		})
		claims := w.controls("account", 0, event.ControlClaim)
		if got := headerText(claims[len(claims)-1], event.HeaderInstance); got != "intruder" {
			t.Errorf("the last claim is of %q, want the successor's to stand", got)
		}
		in.append(w.eventRecord(stream, 2, "of-the-successor", -1))
	})
}

func TestW8PartitionsMoveToANewInstanceWithoutALoss(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start(func(c *Config) { c.Instance = "a" }).serving(4)
		var requests []request
		for n := range 200 {
			requests = append(requests, w.deposit(w.streamOn(int32(n%2), n%5), 1))
		}
		w.send(requests[:100]...)
		second := w.start(func(c *Config) { c.Instance = "b" })
		for n := 100; n < 200; n += 10 {
			w.send(requests[n : n+10]...)
		}
		second.serving(2)
		for _, r := range requests {
			for _, reply := range w.await(r.id, 1) {
				wantOutcome(t, reply, OutcomeAccepted, "")
			}
		}
		w.wantEventsOnce(requests)
	})
}

func TestW8StoppingFinishesWhatIsUnderWay(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		var requests []request
		for n := range 300 {
			requests = append(requests, w.deposit(w.streamOn(int32(n%2), n%3), 1))
		}
		i := w.start().serving(4)
		w.send(requests...)
		i.tells(1)
		if err := i.stop(); err != nil {
			t.Fatalf("Run: %v", err)
		}
		handled, _ := i.told.list()
		next := map[int32]int64{0: 0, 1: 0}
		for _, o := range handled {
			next[o.partition] = max(next[o.partition], o.offset+1)
		}
		for partition, want := range next {
			if got := max(0, w.committed("account", partition)); got != want {
				t.Errorf("group offset of partition %d: got %d, want %d: all that was decided is answered and committed", partition, got, want)
			}
		}
		w.start().serving(4)
		for _, r := range requests {
			for _, reply := range w.await(r.id, 1) {
				wantOutcome(t, reply, OutcomeAccepted, "")
			}
			if got := len(w.repliesOf(r.id)); got != 1 {
				t.Errorf("answers to %s: got %d, want 1: a clean stop leaves nothing to answer again", r.id, got)
			}
		}
		w.wantEventsOnce(requests)
	})
}

func TestW8MembersAreNotStatic(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		w.start().serving(4)
		groups, err := kadm.NewClient(w.client).DescribeGroups(t.Context(), topics.Group(w.ns, topics.ConsumerIngest))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			for _, m := range g.Members {
				if m.InstanceID != nil {
					t.Errorf("member %s has the instance id %q: a stopped one would keep its partitions", m.MemberID, *m.InstanceID)
				}
			}
		}
	})
}

func TestD8CommandsDeletedBeforeTheyWereHandledStopThePartitionLoudly(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		stream, other := w.streamOn(0, 0), w.streamOn(1, 0)
		first := w.start().serving(4)
		w.ask(w.deposit(stream, 1))
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		w.send(w.deposit(stream, 1), w.deposit(stream, 1), w.deposit(stream, 1))
		w.deleteRecords(topics.Commands(w.ns, "account"), 0, 3)
		i := w.start().serving(3)
		w.wantReady(i, "account.commands[0] is stopped", "begins at offset 3", "from 1 on", "--reset-offsets", "--to-offset 3")
		wantVersions(t, w.ask(w.deposit(other, 1)), 1, 1)
	})
}

// Nothing was ever committed and no event is there: whatever retention took was never handled.
func TestD8CommandsDeletedBeforeTheFirstStartStopThePartitionLoudly(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		stream := w.streamOn(0, 0)
		w.send(w.deposit(stream, 1), w.deposit(stream, 1))
		w.deleteRecords(topics.Commands(w.ns, "account"), 0, 1)
		i := w.start().serving(3)
		w.wantReady(i, "account.commands[0] is stopped", "begins at offset 1", "--reset-offsets")
	})
}

func TestW9AHighestCommandOffsetBeyondTheTopicsEndStopsThePartitionLoudly(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		stream := w.streamOn(0, 0)
		in := w.intrude("account", 0, topics.Group(w.ns, topics.ConsumerIngest))
		in.append(w.eventRecord(stream, 1, "from-a-longer-topic", 1000))
		i := w.start().serving(3)
		w.wantReady(i, "account.commands[0] is stopped", "command offset 1000", "ends at 0", "truncated or restored")
		if got := valueOf(i.engine.metrics.stopped.WithLabelValues("account")); got != 1 {
			t.Errorf("stopped partitions in the metrics: got %v, want 1", got)
		}
	})
}

func TestW9OffsetsOfARecreatedCommandsTopicAreNotTakenForItsPredecessors(t *testing.T) {
	onBrokers(t, func(t *testing.T, w *world) {
		stream := w.streamOn(0, 0)
		first := w.start().serving(4)
		for range 5 {
			w.ask(w.deposit(stream, 1))
		}
		if err := first.stop(); err != nil {
			t.Fatal(err)
		}
		w.recreate(topics.Commands(w.ns, "account"))
		i := w.start().serving(4)
		for n := range int64(3) { // offsets 0 to 2, all below the old topic's H
			reply := w.ask(w.deposit(stream, 1))
			wantOutcome(t, reply, OutcomeAccepted, "")
			wantVersions(t, reply, 6+n, 6+n)
		}
		if err := i.stop(); err != nil {
			t.Fatal(err)
		}
		w.start().serving(4)
		wantVersions(t, w.ask(w.deposit(stream, 1)), 9, 9)
	})
}

// heartbeats hears of every heartbeat that a client has sent.
type heartbeats chan struct{}

func (h heartbeats) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, _ kgo.BrokerE2E) {
	if kmsg.Key(key) == kmsg.Heartbeat {
		select {
		case h <- struct{}{}:
		default:
		}
	}
}

// clocked gives an instance a clock and expirations of 20 min (producer ids) and 1 h
// (transactional ids).
func clocked(c *clock) func(*Config) {
	return func(cfg *Config) {
		cfg.Clock = c.now
		cfg.ProducerIDExpiration, cfg.TransactionalIDExpiration = 20*time.Minute, time.Hour
	}
}

// wantFencings compares the ownerships that the account category lost, by cause.
func (i *instance) wantFencings(claim, lost float64) {
	i.w.t.Helper()
	for cause, want := range map[string]float64{"claim": claim, "lost": lost} {
		if got := valueOf(i.engine.metrics.fencings.WithLabelValues("account", cause)); got != want {
			i.w.t.Errorf("ownerships lost by cause %q: got %v, want %v", cause, got, want)
		}
	}
}

// wantReady waits until readiness says each of the texts.
func (w *world) wantReady(i *instance, texts ...string) {
	w.t.Helper()
	missing := func() string {
		err := fmt.Sprint(i.engine.Ready())
		for _, text := range texts {
			if !strings.Contains(err, text) {
				return fmt.Sprintf("%q in %s", text, err)
			}
		}
		return ""
	}
	deadline := time.Now().Add(waitMax)
	for ; missing() != ""; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("readiness lacks %s", missing())
		}
	}
}

// wantEventsOnce checks that each request left exactly one event, and that there are no others.
func (w *world) wantEventsOnce(requests []request) {
	w.t.Helper()
	count := map[string]int{}
	total := 0
	for _, events := range w.events("account") {
		for _, e := range events {
			count[e.CommandID]++
			total++
		}
	}
	for _, r := range requests {
		if count[r.id] != 1 {
			w.t.Errorf("events of command %s: got %d, want 1", r.id, count[r.id])
		}
	}
	if total != len(requests) {
		w.t.Errorf("events: got %d, want %d", total, len(requests))
	}
}

func (w *world) deleteRecords(topic string, partition int32, before int64) {
	w.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: before})
	deleted, err := kadm.NewClient(w.client).DeleteRecords(w.t.Context(), offsets)
	if err != nil || deleted.Error() != nil {
		w.t.Fatalf("delete records: %v %v", err, deleted.Error())
	}
}

// recreate deletes a topic and makes it anew, under another id.
func (w *world) recreate(topic string) {
	w.t.Helper()
	adm := kadm.NewClient(w.client)
	before := w.topicIDs(topic)[topic]
	if _, err := adm.DeleteTopic(w.t.Context(), topic); err != nil {
		w.t.Fatalf("delete %s: %v", topic, err)
	}
	w.eventually("topic "+topic+" anew", func() bool {
		_, err := adm.CreateTopic(w.t.Context(), w.partitions, 1, map[string]*string{"retention.ms": kadm.StringPtr("-1")}, topic)
		return err == nil
	})
	w.eventually("the new topic", func() bool {
		infos, err := topics.IDs(w.t.Context(), adm, topic)
		return err == nil && infos[topic].ID != before
	})
	w.led(topic, int(w.partitions))
	w.client.PurgeTopicsFromClient(topic)
}

// led waits until every partition of a new topic has a leader.
func (w *world) led(topic string, partitions int) {
	w.t.Helper()
	w.eventually("leaders of "+topic, func() bool {
		ends, err := kadm.NewClient(w.client).ListEndOffsets(w.t.Context(), topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == partitions
	})
}

// A member that dies while it joins holds the others up for as long as it said: the client's own
// minute would be a minute's pause.
func TestAJoinSaysHowLongARebalanceMayTake(t *testing.T) {
	w := onKfake(t)
	said := make(chan time.Duration, 100)
	w.kafka.Cluster().ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.Cluster().KeepControl()
		select {
		case said <- time.Duration(r.(*kmsg.JoinGroupRequest).RebalanceTimeoutMillis) * time.Millisecond:
		default:
		}
		return nil, nil, false
	})
	w.start(func(c *Config) { c.SessionTimeout, c.RevokeDrainMax = 3*time.Second, time.Second }).serving(4)
	if got, want := <-said, 6*time.Second; got != want {
		t.Errorf("rebalance timeout: got %s, want %s", got, want)
	}
}

func TestARebalanceMustOutlastTheDrain(t *testing.T) {
	t.Parallel()
	err := Config{RevokeDrainMax: 5 * time.Second, RebalanceTimeout: 5 * time.Second}.withDefaults().validate()
	if err == nil || !strings.Contains(err.Error(), "RebalanceTimeout 5s must be above RevokeDrainMax 5s") {
		t.Errorf("got %v, want a fault of RebalanceTimeout", err)
	}
}
