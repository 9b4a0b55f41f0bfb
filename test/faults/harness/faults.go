package harness

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// Kinds of faults.
const (
	faultKillIngest    = "kill-ingest"
	faultStopIngest    = "stop-ingest" // SIGSTOP, then SIGCONT
	faultKillProjector = "kill-projector"
	faultStopProjector = "stop-projector"
	faultCutPostgres   = "cut-postgres"
	faultKillBroker    = "kill-broker"
	faultCut           = "cut"     // all connections closed, new ones refused
	faultReset         = "reset"   // all connections reset, new ones welcome
	faultDelay         = "delay"   // in both directions
	faultSwallow       = "swallow" // nothing gets through, connections stay open
	faultInject        = "inject"  // an embedded broker answers with an error
	faultDrop          = "drop"    // an embedded broker drops produce requests: value says before or after the append
	faultMoveLeader    = "move-leader"
	faultJoin          = "join" // one more instance for a while
	faultForeign       = "foreign-write"
	faultIdle          = "idle" // no requests for a while
	faultRecreate      = "recreate-topic"
	faultTruncate      = "truncate-commands"
	faultRetain        = "truncate-events"
	faultHoldAndKill   = "hold-and-kill"  // value: events or replies; see stage.holdAndKill
	faultRefuse        = "refuse"         // see stage.refuse
	faultRerouteTwice  = "reroute-twice"  // see stage.rerouteTwice
	faultSteal         = "steal"          // see stage.steal
	faultZombie        = "zombie"         // see stage.zombie
	faultForgetOffsets = "forget-offsets" // see stage.forgetOffsets
)

// stage is a run while faults strike.
type stage struct {
	st    *stack
	load  *load
	pause func(bool) // holds the clients back, or lets them go on

	mu       sync.Mutex
	extras   int
	expected map[string]bool // category/partition that must stop
	gone     []EventRecord   // of events topics that were deleted
	goneCmds []CommandRecord
}

// strike performs a step and undoes it. It reports whether the fault had an effect that was seen.
func (g *stage) strike(ctx context.Context, s Step) (hit bool, note string, err error) {
	switch s.Kind {
	case faultKillIngest:
		return g.killService(ctx, "ingest", s)
	case faultStopIngest:
		return g.stopService(ctx, "ingest", s)
	case faultKillProjector:
		return g.killService(ctx, "projector", s)
	case faultStopProjector:
		return g.stopService(ctx, "projector", s)
	case faultCutPostgres:
		return g.cutPostgres(ctx)
	case faultKillBroker:
		return g.killBroker(ctx, s)
	case faultCut, faultReset, faultDelay, faultSwallow:
		return g.hurtConnections(ctx, s)
	case faultInject:
		return g.inject(ctx, s)
	case faultDrop:
		return g.drop(ctx, s)
	case faultMoveLeader:
		return g.moveLeader(ctx, s)
	case faultJoin:
		return g.join(ctx, s)
	case faultForeign:
		return g.foreignWrite(ctx, s)
	case faultIdle:
		g.pause(true)
		defer g.pause(false)
		return true, "", sleep(ctx, s.For)
	case faultRecreate:
		return g.recreate(ctx, s)
	case faultRetain:
		return g.retain(ctx, s)
	case faultTruncate:
		return g.truncate(ctx, s)
	case faultHoldAndKill:
		return g.holdAndKill(ctx, s)
	case faultRefuse:
		return g.refuse(ctx, s)
	case faultRerouteTwice:
		return g.rerouteTwice(ctx, s)
	case faultSteal:
		return g.steal(ctx, s)
	case faultZombie:
		return g.zombie(ctx, s)
	case faultForgetOffsets:
		return g.forgetOffsets(ctx, s)
	}
	return false, "", fmt.Errorf("no fault is named %s", s.Kind)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// atWork waits a moment for a service to serve while clients wait, and says whether it does.
func (g *stage) atWork(ctx context.Context, s *service) (bool, string) {
	ctx, cancel := context.WithTimeout(ctx, atWorkWait)
	defer cancel()
	served, waiting := 0, int64(0)
	err := poll(ctx, 10*time.Millisecond, "work", func() (bool, error) {
		waiting = g.load.inFlight.Load()
		if strings.HasPrefix(s.name, "projector") {
			status, _, _ := s.get(ctx, "/livez")
			return status == http.StatusOK, nil
		}
		served = s.serving(ctx)
		return served > 0 && waiting > 0, nil
	})
	return err == nil, fmt.Sprintf("%s, %d partitions served, %d requests in flight", s.name, served, waiting)
}

const atWorkWait = time.Second

// pick chooses a service by a step's target: one that serves, if there is one.
func (g *stage) pick(ctx context.Context, prefix string, target int) (*service, error) {
	all := g.st.named(prefix)
	if len(all) == 0 {
		return nil, fmt.Errorf("no %s runs", prefix)
	}
	g.untilStable(ctx)
	var serving []*service
	for _, s := range all {
		if s.serving(ctx) > 0 {
			serving = append(serving, s)
		}
	}
	if len(serving) > 0 {
		all = serving
	}
	return all[target%len(all)], nil
}

// untilStable waits until an embedded broker's group is at rest with all that live. A member that
// dies while it waits in a join has no session there that could end (its timer begins with an
// answer that cannot be delivered): it would own partitions for good, which Apache Kafka prevents.
func (g *stage) untilStable(ctx context.Context) {
	if g.st.broker.fake == nil {
		return
	}
	living := 0
	for _, s := range g.st.named("ingest") {
		if s.alive() {
			living++
		}
	}
	ctx, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()
	_, _ = g.st.broker.fake.WaitGroupStable(ctx, topics.Group(g.st.run.Namespace, topics.ConsumerIngest), living)
}

func (g *stage) killService(ctx context.Context, prefix string, s Step) (bool, string, error) {
	victim, err := g.pick(ctx, prefix, s.Target)
	if err != nil {
		return false, "", err
	}
	hit, note := g.atWork(ctx, victim)
	if err := victim.kill(); err != nil {
		return false, note, err
	}
	return hit, note, errors.Join(sleep(ctx, s.For), victim.start())
}

func (g *stage) stopService(ctx context.Context, prefix string, s Step) (bool, string, error) {
	victim, err := g.pick(ctx, prefix, s.Target)
	if err != nil {
		return false, "", err
	}
	hit, note := g.atWork(ctx, victim)
	if err := victim.pause(); err != nil {
		return false, note, err
	}
	return hit, note, errors.Join(sleep(ctx, s.For), victim.resume())
}

// cutPostgres ends the services' connections to the database.
func (g *stage) cutPostgres(ctx context.Context) (bool, string, error) {
	var n int
	err := g.st.pool.QueryRow(ctx, "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and application_name <> $1", harnessName).Scan(&n)
	return n > 0, fmt.Sprintf("%d connections", n), err
}

const harnessName = "faults-harness"

func (g *stage) killBroker(ctx context.Context, s Step) (bool, string, error) {
	waiting := g.load.inFlight.Load()
	if err := g.st.broker.jvm.Kill(); err != nil {
		return false, "", err
	}
	err := sleep(ctx, s.For)
	return waiting > 0, fmt.Sprintf("%d requests in flight", waiting), errors.Join(err, g.st.broker.jvm.Restart(context.WithoutCancel(ctx)))
}

func (g *stage) hurtConnections(ctx context.Context, s Step) (bool, string, error) {
	p := g.st.broker.proxy
	waiting, before := g.load.inFlight.Load(), g.load.answers.Load()
	var err error
	switch s.Kind {
	case faultCut:
		p.cut()
		err = errors.Join(sleep(ctx, s.For), p.mend())
	case faultReset:
		err = errors.Join(p.poison("reset_peer", "downstream", map[string]int{"timeout": 0}), sleep(ctx, s.For), p.cure(context.WithoutCancel(ctx)))
	case faultDelay:
		delay := map[string]int{"latency": int(s.For.Milliseconds() / 10), "jitter": int(s.For.Milliseconds() / 20)}
		err = errors.Join(p.poison("latency", "upstream", delay), p.poison("latency", "downstream", delay), sleep(ctx, s.For), p.cure(context.WithoutCancel(ctx)))
	case faultSwallow:
		swallow := map[string]int{"timeout": 0}
		err = errors.Join(p.poison("timeout", s.Value, swallow), sleep(ctx, s.For), p.cure(context.WithoutCancel(ctx)))
		p.cut() // what was swallowed is lost: the connections are of no more use
		err = errors.Join(err, p.mend())
	}
	answers := g.load.answers.Load() - before
	return waiting > 0, fmt.Sprintf("%d requests in flight, %d answers meanwhile", waiting, answers), err
}

// injections are the errors that an embedded broker can be told to answer with. All but the
// time-outs are answered instead of doing the work.
var injections = map[string]func(ns string, category string) kfake.Fault{
	"produce not-leader":      onEvents(kmsg.Produce, kerr.NotLeaderForPartition),
	"produce timed-out-after": onEvents(kmsg.Produce, kerr.RequestTimedOut),
	"produce after-append":    onEvents(kmsg.Produce, kerr.NotEnoughReplicasAfterAppend),
	"produce out-of-order":    onEvents(kmsg.Produce, kerr.OutOfOrderSequenceNumber),
	"produce epoch":           onEvents(kmsg.Produce, kerr.InvalidProducerEpoch),
	"produce topic-id":        onEvents(kmsg.Produce, kerr.UnknownTopicID),
	"produce unknown-pid":     onEvents(kmsg.Produce, kerr.UnknownProducerID),
	"produce not-enough":      onEvents(kmsg.Produce, kerr.NotEnoughReplicas),
	"produce storage":         onEvents(kmsg.Produce, kerr.KafkaStorageError),
	"produce too-large":       onEvents(kmsg.Produce, kerr.MessageTooLarge),
	"produce timestamp":       onEvents(kmsg.Produce, kerr.InvalidTimestamp),
	"replies not-leader": func(ns, _ string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Replies(ns), Err: kerr.NotLeaderForPartition}
	},
	"replies timed-out-after": func(ns, _ string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topics.Replies(ns), Err: kerr.RequestTimedOut}
	},
	"init concurrent": func(ns, category string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.ConcurrentTransactions}
	},
	"init not-coordinator": func(ns, category string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.NotCoordinator}
	},
	"init fenced": func(ns, category string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, TopLevel: true, Err: kerr.ProducerFenced}
	},
	"heartbeat unknown-member": func(ns, _ string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: topics.Group(ns, topics.ConsumerIngest), TopLevel: true, Err: kerr.UnknownMemberID}
	},
	"commit rebalance": func(ns, _ string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: topics.Group(ns, topics.ConsumerIngest), Err: kerr.RebalanceInProgress}
	},
	"fetch not-leader":     onEvents(kmsg.Fetch, kerr.NotLeaderForPartition),
	"list not-leader":      onEvents(kmsg.ListOffsets, kerr.NotLeaderForPartition),
	"fetch offset-storage": onEvents(kmsg.Fetch, kerr.KafkaStorageError),
}

func onEvents(key kmsg.Key, err *kerr.Error) func(ns, category string) kfake.Fault {
	return func(ns, category string) kfake.Fault {
		return kfake.Fault{Keys: []kmsg.Key{key}, Topic: topics.Events(ns, category), Err: err}
	}
}

// inject has the broker answer some requests with an error. Errors at a claim need one: an owner
// leaves for it.
func (g *stage) inject(ctx context.Context, s Step) (bool, string, error) {
	injection, known := injections[s.Value]
	if !known {
		return false, "", fmt.Errorf("no injection is named %q", s.Value)
	}
	fault := injection(g.st.run.Namespace, categories[s.Target%len(categories)])
	fault.Count = 1 + s.Target%3
	handle := g.st.broker.fake.Fault(fault)
	defer handle.Remove()
	wait, cancel := context.WithTimeout(ctx, s.For)
	if slices.Contains([]string{"init", "fetch"}, strings.Fields(s.Value)[0]) {
		victim, err := g.pick(ctx, "ingest", s.Target)
		if err == nil {
			err = errors.Join(victim.stop(), victim.start())
		}
		if err != nil {
			cancel()
			return false, "", err
		}
		wait, cancel = context.WithTimeout(ctx, 5*s.For)
	}
	defer cancel()
	_ = handle.Wait(wait, fault.Count)
	hits := handle.Hits()
	return hits > 0, fmt.Sprintf("%d answers", hits), ctx.Err()
}

// drop closes the connections of produce requests to the events topics: before the append, or after
// it, so that the sender cannot know.
func (g *stage) drop(ctx context.Context, s Step) (bool, string, error) {
	dropped := 0
	var mu sync.Mutex
	over := false
	events := g.topicIDs(ctx, g.st.eventsTopics())
	g.st.broker.fake.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		g.st.broker.fake.KeepControl()
		switch {
		case over:
			g.st.broker.fake.DropControl()
			return nil, nil, false
		case !writesTo(request, events):
			return nil, nil, false
		}
		dropped++
		return nil, errors.New("dropped by the harness"), true
	})
	err := sleep(ctx, s.For)
	mu.Lock()
	defer mu.Unlock()
	over = true
	return dropped > 0, fmt.Sprintf("%d requests dropped", dropped), err
}

// topicIDs looks up the ids of topics, which produce requests name them by.
func (g *stage) topicIDs(ctx context.Context, names []string) map[[16]byte]string {
	ids := map[[16]byte]string{}
	listed, err := g.st.admin.ListTopics(ctx, names...)
	if err != nil {
		return ids
	}
	for name, d := range listed {
		ids[d.ID] = name
	}
	return ids
}

func writesTo(request kmsg.Request, ids map[[16]byte]string) bool {
	produce, ok := request.(*kmsg.ProduceRequest)
	if !ok {
		return false
	}
	for _, t := range produce.Topics {
		if _, ours := ids[t.TopicID]; ours {
			return true
		}
		for _, name := range ids {
			if t.Topic == name {
				return true
			}
		}
	}
	return false
}

func (g *stage) moveLeader(ctx context.Context, s Step) (bool, string, error) {
	topic := topics.Events(g.st.run.Namespace, categories[s.Target%len(categories)])
	partition := int32(s.Target) % g.st.run.Partitions
	from := g.st.broker.fake.LeaderFor(topic, partition)
	to := (from + 1) % fakeNodes
	if err := g.st.broker.fake.MoveTopicPartition(topic, partition, to); err != nil {
		return false, "", err
	}
	return true, fmt.Sprintf("%s[%d] from %d to %d", topic, partition, from, to), sleep(ctx, s.For)
}

// fakeNodes is how many nodes an embedded broker has.
const fakeNodes = 2

// join runs one more instance for a while.
func (g *stage) join(ctx context.Context, s Step) (bool, string, error) {
	g.mu.Lock()
	g.extras++
	extra := g.st.add(fmt.Sprintf("ingest-extra%d", g.extras), "ingest")
	g.mu.Unlock()
	if err := extra.start(); err != nil {
		return false, "", err
	}
	err := sleep(ctx, s.For)
	served := extra.serving(ctx)
	if s.Value == "kill" {
		return served > 0, fmt.Sprintf("%d partitions served, then killed", served), errors.Join(err, extra.kill())
	}
	return served > 0, fmt.Sprintf("%d partitions served, then left", served), errors.Join(err, extra.stop())
}

// foreignWrite puts a record into an events topic past the writer, under a producer id that no
// claim names, or under none. It looks like the first event of a stream. Then the stream's real
// first event is asked for: the owner, which finds its partition written to by somebody else,
// must recover, and not count the foreign record as an event.
func (g *stage) foreignWrite(ctx context.Context, s Step) (bool, string, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(g.st.broker.seeds()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0)}
	if s.Value == "plain" {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return false, "", err
	}
	defer client.Close()
	stream := fmt.Sprintf("foreign-%d-%d", s.Target, g.load.now().Milliseconds())
	value, err := g.load.written.Append(nil, project.Written{Op: "foreign", Amount: 1})
	if err != nil {
		return false, "", err
	}
	rec := &kgo.Record{
		Topic: topics.Events(g.st.run.Namespace, project.Log), Key: []byte(stream), Value: value,
		Partition: topics.Partition([]byte(stream), g.st.run.Partitions),
	}
	for _, h := range [][2]string{
		{event.HeaderID, uuid.NewString()}, {event.HeaderType, project.TypeWritten}, {event.HeaderSpecVersion, event.SpecVersion},
		{event.HeaderTime, event.FormatTime(loadEpoch)}, {event.HeaderSequence, "1"}, {event.HeaderCommandID, "foreign"},
		{event.HeaderCommandHash, "00000000000000000000000000000000"},
	} {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	if err := client.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return false, "", err
	}
	// The owner finds out by its next append, whosever that is.
	var outcomes []string
	for _, r := range []*Sending{g.request(g.streamOn("probe-"+stream, rec.Partition), "p", "any"), g.request(stream, "0", "any"), g.request(stream, "1", "any")} {
		answer, ok := g.load.send(ctx, r, scriptTimeout)
		outcomes = append(outcomes, fmt.Sprintf("%v %s %d", ok, answer.Outcome, answer.First))
	}
	return true, fmt.Sprintf("%s[%d]@%d, stream %s: then answered %q", rec.Topic, rec.Partition, rec.Offset, stream, outcomes), sleep(ctx, s.For)
}
