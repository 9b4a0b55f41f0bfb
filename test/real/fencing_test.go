//go:build unix

package real

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/workflow"
	"github.com/foldstream/foldstream/internal/importer"
	"github.com/foldstream/foldstream/internal/processlog"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

const (
	fencingCases = 12000           // about 110,000 commands, more than is ever sent
	fencingRate  = 1500 / slowdown // commands per second
	// fencingGoOn is how many commands the new owner answers before the old one continues, and how
	// many are answered after that before the next step.
	fencingGoOn = 1500 / slowdown
	// fencingAttemptsMax bounds the attempts to stop an owner at work.
	fencingAttemptsMax = 200
	// fencingDelayMax bounds the random delay before each attempt.
	fencingDelayMax = 50 * time.Millisecond
)

// TestStoppedOwnerIsFenced stops an ingest by SIGSTOP past its session time-out, under load. The
// other takes all partitions over and goes on; then the first continues, with all that it had in
// its memory and its sockets. Nothing of it may count, and it must come back as a member. Then the
// same with the two in each other's place.
func TestStoppedOwnerIsFenced(t *testing.T) {
	t.Run(testkit.JVM, func(t *testing.T) { testStoppedOwner(t, realKafka(t)) })
	t.Run(testkit.Kfake, func(t *testing.T) {
		cluster := testkit.StartKfake(t, kfake.GroupMinSessionTimeout(time.Second))
		late := watchProduces(cluster)
		testStoppedOwner(t, testkit.WrapKfake(cluster))
		figure("%s: %d batches of superseded epochs came to the broker", t.Name(), late.Load())
	})
}

// watchProduces counts the batches that come to an embedded broker under an epoch below the highest
// that their producer id was seen with.
func watchProduces(cluster *kfake.Cluster) *atomic.Int64 {
	// Where a record batch has its producer's id and epoch.
	const idAt, epochAt, headerBytes = 43, 51, 61
	var late atomic.Int64
	highest := map[uint64]uint16{} // the broker calls us from one goroutine
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		for _, topic := range request.(*kmsg.ProduceRequest).Topics {
			for _, partition := range topic.Partitions {
				batch := partition.Records
				if len(batch) < headerBytes {
					continue
				}
				id, epoch := binary.BigEndian.Uint64(batch[idAt:]), binary.BigEndian.Uint16(batch[epochAt:])
				if epoch < highest[id] {
					late.Add(1)
				}
				highest[id] = max(highest[id], epoch)
			}
		}
		return nil, nil, false
	})
	return &late
}

func testStoppedOwner(t *testing.T, kafka *testkit.Kafka) {
	w := newWorld(t, kafka, nil)
	figure("%s: seed %d (%s)", t.Name(), w.seed, envSeed)
	d := &duel{w: w, journal: w.follow(), sample: w.newSample(fencingCases), a: w.mustStart("ingest"), ctx: w.ctx, random: w.random(3)}
	if err := d.untilOwnsAll(d.a); err != nil {
		t.Fatalf("the first ingest takes all partitions: %v", err)
	}
	d.b = w.mustStart("ingest")
	stopLoad := d.startLoad()
	for _, round := range []struct{ stopped, other *child }{{d.a, d.b}, {d.b, d.a}} {
		if err := d.round(round.stopped, round.other); err != nil {
			t.Fatal(err)
		}
	}
	report, err := stopLoad()
	if err != nil {
		t.Fatalf("the load ends with an answer to each command: %v", err)
	}
	for _, c := range []*child{d.a, d.b} {
		figure("%s: %s found %.0f of its ownerships ended by another's claim", t.Name(), c.name, c.metric(t, "foldstream_ingest_fencings_total"))
	}
	w.mustStop(d.a, d.b)
	took := slices.Sorted(slices.Values(append(d.a.takeOvers(), d.b.takeOvers()...)))
	if len(took) == 0 {
		t.Fatal("the services' logs tell of no take-over")
	}
	figure("%s: %d take-overs, from assignment to serving: half within %s, all within %s", t.Name(), len(took),
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	d.check(report)
}

// duel is two ingest processes under load.
type duel struct {
	w       *world
	journal *journal
	sample  *sample
	a, b    *child
	stops   []stop
	sent    map[string]processlog.Command
	ctx     context.Context // ends with the load, if that ends before it is told to
	random  *rand.Rand
}

// stop is one SIGSTOP that hit an owner at work.
type stop struct {
	name     string
	attempts int
	pairs    map[place]event.Claim // what it held, by partition
	underWay int                   // commands in these partitions without an answer
}

// owns says whether the last claim of a partition is of this process. Under the journal's lock.
func (d *duel) owns(c *child, p place) bool {
	return strings.HasSuffix(d.journal.owners[p], fmt.Sprintf("/%d", c.pid()))
}

// owned lists a process's partitions with the pairs that it writes under. Under the journal's lock.
func (d *duel) owned(c *child) map[place]event.Claim {
	all := map[place]event.Claim{}
	for p := range d.journal.owners {
		if d.owns(c, p) {
			all[p] = d.journal.lineages[p].Claim
		}
	}
	return all
}

// partitions counts those of all events topics.
func (d *duel) partitions() int {
	n := 0
	for p := range d.journal.position {
		if slices.Contains(d.w.eventsTopics(), p.topic) {
			n++
		}
	}
	return n
}

func (d *duel) untilOwnsAll(c *child) error {
	return d.journal.until(d.ctx, c, func() bool { return len(d.owned(c)) == d.partitions() })
}

// untilAnswered waits for so many more replies.
func (d *duel) untilAnswered(more int) error {
	want := d.journal.repliesSeen() + more
	return d.journal.until(d.ctx, nil, func() bool { return d.journal.replies >= want })
}

// round stops one owner, lets the other take over, and lets the first continue.
func (d *duel) round(stopped, other *child) error {
	err := d.journal.until(d.ctx, other, func() bool { return len(d.owned(stopped)) > 0 && len(d.owned(other)) > 0 })
	if err != nil {
		return fmt.Errorf("both ingests own partitions: %w", err)
	}
	if err := d.untilAnswered(fencingGoOn); err != nil {
		return fmt.Errorf("both ingests work: %w", err)
	}
	s, err := d.stopAtWork(stopped)
	if err != nil {
		return fmt.Errorf("stop %s: %w", stopped.name, err)
	}
	d.stops = append(d.stops, s)
	if err := d.untilOwnsAll(other); err != nil {
		return fmt.Errorf("%s takes over from %s: %w", other.name, stopped.name, err)
	}
	if err := d.untilAnswered(fencingGoOn); err != nil {
		return fmt.Errorf("%s goes on alone: %w", other.name, err)
	}
	stopped.signal(syscall.SIGCONT)
	// It comes back as a member and is given partitions again.
	err = d.journal.until(d.ctx, stopped, func() bool { return len(d.owned(stopped)) > 0 })
	if err != nil {
		return fmt.Errorf("%s comes back as a member: %w", stopped.name, err)
	}
	if err := d.untilAnswered(fencingGoOn); err != nil {
		return fmt.Errorf("both ingests work again: %w", err)
	}
	return nil
}

func (d *duel) wait(delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
}

// stopAtWork stops an owner at a random moment, with commands in its partitions that it has not
// answered. When it happened to have none, it goes on at once and is stopped again.
func (d *duel) stopAtWork(c *child) (stop, error) {
	s := stop{name: c.name}
	for s.attempts < fencingAttemptsMax {
		s.attempts++
		if err := d.wait(time.Duration(d.random.Int64N(int64(fencingDelayMax)))); err != nil {
			return s, err
		}
		c.signal(syscall.SIGSTOP)
		d.journal.mu.Lock()
		s.pairs = d.owned(c)
		d.journal.mu.Unlock()
		at, err := d.w.endsOf(d.ctx, append(d.w.commandsTopics(), d.w.repliesTopic())...)
		if err != nil {
			return s, err
		}
		if err := d.journal.reach(d.ctx, at); err != nil {
			return s, err
		}
		if s.underWay = d.journal.unanswered(d.commandsOf(s, at)); s.underWay > 0 {
			return s, nil
		}
		c.signal(syscall.SIGCONT)
		if err := d.journal.until(d.ctx, c, func() bool { return len(d.owned(c)) > 0 }); err != nil {
			return s, err
		}
	}
	return s, fmt.Errorf("it had no work in %d attempts", s.attempts)
}

// commandsOf leaves the commands partitions of a stopped owner.
func (d *duel) commandsOf(s stop, at ends) ends {
	its := ends{}
	for p, end := range at {
		if p.topic == d.w.repliesTopic() {
			continue
		}
		if _, owned := s.pairs[place{topics.Events(d.w.namespace, categoryOf(p.topic)), p.partition}]; owned {
			its[p] = end
		}
	}
	return its
}

// startLoad sends the sample's commands at a steady rate and waits for each answer, until the
// returned function is called.
func (d *duel) startLoad() func() (importer.Report, error) {
	d.w.t.Helper()
	log, err := d.sample.parsed("fencing")
	if err != nil {
		d.w.t.Fatalf("read the sample: %v", err)
	}
	d.sent = map[string]processlog.Command{}
	payloads := d.w.codec()
	var enough atomic.Bool
	var report importer.Report
	done := make(chan error, 1)
	ctx, ended := context.WithCancelCause(d.w.ctx)
	d.ctx = ctx
	go func() {
		var err error
		report, err = importer.Run(ctx, importer.Config{
			Namespace: d.w.namespace, Kafka: []kgo.Opt{kgo.SeedBrokers(d.w.kafka.Seeds()...)}, Codec: payloads,
			Types:       slices.Concat([]codec.TypeDef(workflow.Types), []codec.TypeDef(execution.Types)),
			InFlightMax: 50_000, RatePerSecond: fencingRate, AnswerTimeout: 3 * time.Second,
		}, func(yield func(importer.Command) bool) {
			for c := range log.Commands() {
				if enough.Load() {
					return
				}
				d.sent[c.ID] = c
				if !yield(importCommand(c)) {
					return
				}
			}
		})
		done <- err
		ended(fmt.Errorf("the load ended after %d commands: %w", report.Commands, cmp.Or(err, errors.New("the sample is too small"))))
	}()
	d.w.t.Cleanup(func() { ended(nil) })
	return func() (importer.Report, error) {
		enough.Store(true)
		err := <-done
		return report, err
	}
}

func importCommand(c processlog.Command) importer.Command {
	return importer.Command{
		Category: c.Category, StreamID: c.StreamID, Type: c.Type, ID: c.ID, Time: c.Time,
		Expected: c.Expected, CorrelationID: c.CorrelationID, Data: c.Data,
	}
}

// check reads the log and the replies and demands that nothing of a superseded owner counts.
func (d *duel) check(report importer.Report) {
	w, name := d.w, d.w.t.Name()
	log := w.readLog()
	streams, f := log.streamFaults()
	late := log.claimFaults()
	w.demand(f, log.acceptedFaults(d.sent), late)
	for _, s := range d.stops {
		taken, after := log.afterTakeOver(s)
		figure("%s: %s stopped with %d commands under way (attempt %d): %d of its %d partitions claimed by the other, %d records of its epochs after the claims",
			name, s.name, s.underWay, s.attempts, taken, len(s.pairs), after)
		if taken != len(s.pairs) || after != 0 {
			w.t.Errorf("%s: %d of %d partitions were claimed by the other, and %d records of the stopped owner stand after the claims; want all, and none", s.name, taken, len(s.pairs), after)
		}
	}
	figure("%s: %d events in %d streams, %d claims, %d records of superseded epochs after a claim, %d void", name, log.events, streams, log.claims, late.count, log.voids)
	checked := d.checkReplies(log)
	figure("%s: %d replies checked: %s; %d commands sent, %d sendings repeated", name, checked.total(), checked, report.Commands, report.SentAgain)
}

// claimFaults demands that no record of a superseded (producer id, epoch) stands after the claim
// that superseded it.
func (l *eventLog) claimFaults() *faults {
	f := &faults{what: "claims"}
	for p, entries := range l.partitions {
		superseded := map[event.Claim]int64{} // by which claim's offset
		var current event.Claim
		for _, e := range entries {
			pair := pairOf(e.record)
			if event.Control(e.record.Headers) == event.ControlClaim && pair != current {
				if current != (event.Claim{}) {
					superseded[current] = e.record.Offset
				}
				current = pair
			}
			if claim, old := superseded[pair]; old {
				f.add("%s: offset %d is of producer %d epoch %d, superseded by the claim at %d", p, e.record.Offset, pair.ProducerID, pair.Epoch, claim)
			}
		}
	}
	return f
}

// afterTakeOver counts the partitions of a stopped owner in which another pair's claim follows, and
// the records of the stopped owner's pair behind that claim.
func (l *eventLog) afterTakeOver(s stop) (taken, after int) {
	for p, pair := range s.pairs {
		had, over := false, false
		for _, e := range l.partitions[p] {
			switch {
			case pairOf(e.record) == pair:
				had = true
				if over {
					after++
				}
			case had && !over && event.Control(e.record.Headers) == event.ControlClaim:
				over = true
				taken++
			}
		}
	}
	return taken, after
}

func pairOf(rec *kgo.Record) event.Claim {
	return event.Claim{ProducerID: rec.ProducerID, Epoch: rec.ProducerEpoch}
}

// outcomes counts replies by outcome.
type outcomes map[string]int

func (o outcomes) total() int {
	n := 0
	for _, count := range o {
		n += count
	}
	return n
}

func (o outcomes) String() string {
	var parts []string
	for _, name := range append(importer.OutcomesInOrder(), importer.OutcomeUnknown) {
		parts = append(parts, fmt.Sprintf("%d %s", o[name], name))
	}
	return strings.Join(parts, ", ")
}

// checkReplies demands of each accepted or duplicate reply, of whoever wrote it, that the log has
// at its partition and offset a valid event of its command, with its version; so that an answer
// beyond a claim, of a batch that is void or was never stored, would be found.
func (d *duel) checkReplies(l *eventLog) outcomes {
	w := d.w
	w.t.Helper()
	c := w.codec()
	binding, err := c.Bind(w.ctx, codec.ReplyDef())
	if err != nil {
		w.t.Fatalf("bind the reply: %v", err)
	}
	f := &faults{what: "replies"}
	counts := outcomes{}
	first := map[string]codec.Reply{}
	w.readAll([]string{w.repliesTopic()}, func(rec *kgo.Record) {
		payload, err := c.Inspect(w.ctx, codec.TypeReply, rec.Value)
		if err != nil {
			f.add("the reply at %d is not readable: %v", rec.Offset, err)
			return
		}
		value, err := binding.Decode(payload)
		if err != nil {
			f.add("the reply at %d is not readable: %v", rec.Offset, err)
			return
		}
		reply := value.(codec.Reply)
		counts[reply.Outcome]++
		switch reply.Outcome {
		case importer.OutcomeAccepted, importer.OutcomeDuplicate:
			l.checkReply(w.namespace, f, reply)
			before, again := first[reply.RequestID]
			if again && (before.FirstVersion != reply.FirstVersion || before.LastVersion != reply.LastVersion || before.Offset != reply.Offset) {
				f.add("request %s was answered %s version %d offset %d, and %s version %d offset %d", reply.RequestID,
					before.Outcome, before.LastVersion, before.Offset, reply.Outcome, reply.LastVersion, reply.Offset)
			}
			first[reply.RequestID] = reply
		case importer.OutcomeUnknown:
		default:
			f.add("request %s was answered %s (%s %s); every command of the load is acceptable", reply.RequestID, reply.Outcome, reply.Code, reply.Message)
		}
	})
	w.demand(f)
	return counts
}

func (l *eventLog) checkReply(namespace string, f *faults, reply codec.Reply) {
	p := place{topics.Events(namespace, reply.Category), reply.Partition}
	e, there := l.at(p, reply.Offset)
	switch {
	case !there:
		f.add("request %s was answered %s at %s offset %d, where the log has nothing", reply.RequestID, reply.Outcome, p, reply.Offset)
	case e.verdict != event.VerdictEvent:
		f.add("request %s was answered %s at %s offset %d, which is void", reply.RequestID, reply.Outcome, p, reply.Offset)
	case e.recorded.CommandID != reply.RequestID:
		f.add("request %s was answered %s at %s offset %d, which is of command %s", reply.RequestID, reply.Outcome, p, reply.Offset, e.recorded.CommandID)
	case int64(e.recorded.Version) != reply.LastVersion:
		f.add("request %s was answered %s with version %d, the log has %d", reply.RequestID, reply.Outcome, reply.LastVersion, e.recorded.Version)
	}
}
