package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// Faults that are interleavings: an embedded broker holds requests, so that what luck would bring
// about once in a thousand runs happens in each.

// scriptTimeout bounds each wait within a script. A script that waits in vain did not hit.
const scriptTimeout = 8 * time.Second

// control answers the produce requests that concern a script, in the broker's goroutine. It ends by
// itself once over is set.
type control struct {
	mu   sync.Mutex
	over bool
}

func (c *control) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
}

// watch calls visit for each request of a key until the control ends. visit runs under the lock and
// may return a function to sleep on, after which answer, if any, decides.
func (c *control) watch(cluster *kfake.Cluster, key kmsg.Key, visit func(kmsg.Request) (sleep func(), answer func() (kmsg.Response, error))) {
	cluster.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
		c.mu.Lock()
		cluster.KeepControl()
		if c.over {
			cluster.DropControl()
			c.mu.Unlock()
			return nil, nil, false
		}
		sleep, answer := visit(request)
		c.mu.Unlock()
		if sleep != nil {
			cluster.SleepControl(sleep)
		}
		if answer == nil {
			return nil, nil, false
		}
		response, err := answer()
		return response, err, true
	})
}

var errDropped = errors.New("dropped by the harness")

func dropped() (kmsg.Response, error) { return nil, errDropped }

// holdAndKill holds every produce request to the events topics, or to the replies, waits until
// answers had time to leave without them and group offsets to be committed, kills the owner and
// forgets what was held:
//
//	an owner that answers before the acknowledgement has answered for events that will never be
//	an owner that commits past an answer that is not acknowledged leaves it unanswered
func (g *stage) holdAndKill(ctx context.Context, s Step) (bool, string, error) {
	victim, err := g.pick(ctx, "ingest", s.Target)
	if err != nil {
		return false, "", err
	}
	hit, note := g.atWork(ctx, victim)
	names := g.st.eventsTopics()
	if s.Value == "replies" {
		names = []string{topics.Replies(g.st.run.Namespace)}
	}
	ids := g.topicIDs(ctx, names)
	release, held, c := make(chan struct{}), 0, &control{}
	c.watch(g.st.broker.fake, kmsg.Produce, func(request kmsg.Request) (func(), func() (kmsg.Response, error)) {
		if !writesTo(request, ids) {
			return nil, nil
		}
		held++
		return func() { <-release }, dropped
	})
	err = errors.Join(sleep(ctx, s.For), victim.kill())
	c.end()
	close(release)
	return hit && held > 0, fmt.Sprintf("%s, %d produce requests held", note, held), errors.Join(err, victim.start())
}

// zombie holds an owner's heartbeats until its session is over:
//
//	A serves, and does not know that it was given up
//	B is given A's partitions, reads the log, claims
//	A appends until B's claim fences it: B must have read all of that
func (g *stage) zombie(ctx context.Context, s Step) (bool, string, error) {
	victim, err := g.pick(ctx, "ingest", s.Target)
	if err != nil {
		return false, "", err
	}
	hit, note := g.atWork(ctx, victim)
	held, ctl := 0, &control{}
	ctl.watch(g.st.broker.fake, kmsg.Heartbeat, func(request kmsg.Request) (func(), func() (kmsg.Response, error)) {
		if !strings.HasPrefix(request.(*kmsg.HeartbeatRequest).MemberID, victim.name+"-") {
			return nil, nil
		}
		held++
		return func() { _ = sleep(ctx, s.For) }, nil
	})
	err = sleep(ctx, s.For)
	ctl.end()
	return hit && held > 0, fmt.Sprintf("%s, %d heartbeats held", note, held), err
}

// forgetOffsets has the group's offsets deleted, as when they expire. All commands come again;
// none may be decided again.
func (g *stage) forgetOffsets(ctx context.Context, s Step) (bool, string, error) {
	g.pause(true)
	defer g.pause(false)
	// Long enough for snapshots of all streams and a checkpoint behind them.
	if err := sleep(ctx, s.For); err != nil {
		return false, "", err
	}
	var faults []error
	for _, i := range g.st.named("ingest") {
		faults = append(faults, i.stop())
	}
	group := topics.Group(g.st.run.Namespace, topics.ConsumerIngest)
	deleted, err := g.st.admin.DeleteGroup(ctx, group)
	if err == nil {
		err = deleted.Err
	}
	for _, i := range g.st.named("ingest") {
		faults = append(faults, i.start())
	}
	return err == nil, "group " + group, errors.Join(append(faults, err, g.st.untilServed(ctx))...)
}

// request makes a sending of a script.
func (g *stage) request(stream, name, expected string) *Sending {
	return &Sending{
		ID: stream + "-" + name, Attempt: 1, Client: scriptClient, Kind: KindWrite, Category: project.Log, Stream: stream, Expected: expected,
		Amount: 1, Count: 1, Partition: topics.Partition([]byte(stream), g.st.run.Partitions),
	}
}

const scriptClient = 1000

// refuse has the broker refuse a command's batch for good, while another command was decided on it:
//
//	D is decided, its batch is held at the broker
//	C, which demands an empty stream, is decided on D's event: a conflict
//	D's batch is refused; D left nothing, so C's conflict would be false
//	E is decided on what is left
//
// An owner that answers C before D is acknowledged has told what never was; one that takes D's
// event for stored leaves a gap before E's.
func (g *stage) refuse(ctx context.Context, s Step) (bool, string, error) {
	stream := fmt.Sprintf("refused-%d-%d", s.Target, g.load.now().Milliseconds())
	d, c, e := g.request(stream, "d", "any"), g.request(stream, "c", "none"), g.request(stream, "e", "any")
	d.Refused = true
	release, arrived, once, ctl := make(chan struct{}), make(chan struct{}), sync.Once{}, &control{}
	ids := g.topicIDs(ctx, g.st.eventsTopics())
	ctl.watch(g.st.broker.fake, kmsg.Produce, func(request kmsg.Request) (func(), func() (kmsg.Response, error)) {
		if !writesTo(request, ids) || !holdsText(request, d.ID) {
			return nil, nil
		}
		once.Do(func() { close(arrived) })
		return func() { <-release }, func() (kmsg.Response, error) { return refusal(request.(*kmsg.ProduceRequest), d.ID), nil }
	})
	defer ctl.end()
	type answer struct {
		Reply
		ok bool
	}
	ask := func(s *Sending) <-chan answer {
		answered := make(chan answer, 1)
		go func() {
			reply, ok := g.load.send(ctx, s, scriptTimeout)
			answered <- answer{reply, ok}
		}()
		return answered
	}
	dAnswered := ask(d)
	select {
	case <-arrived:
	case <-time.After(scriptTimeout):
		close(release)
		return false, "the batch never came", ctx.Err()
	}
	cAnswered := ask(c)
	err := sleep(ctx, s.For)
	close(release)
	first, second := <-dAnswered, <-cAnswered
	ctl.end()
	third := <-ask(e)
	hit := first.Outcome == Invalid && second.ok && third.ok
	return hit, fmt.Sprintf("%s: answered %q, then %q, then %q", stream, first.Outcome, second.Outcome, third.Outcome), err
}

// holdsText says whether some batch of a produce request holds a text; ours are not compressed.
func holdsText(request kmsg.Request, text string) bool {
	for _, t := range request.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			if bytes.Contains(p.Records, []byte(text)) {
				return true
			}
		}
	}
	return false
}

// refusal refuses the batches that hold a text for good, and stores none of the others, which are
// sent again.
func refusal(request *kmsg.ProduceRequest, text string) kmsg.Response {
	response := request.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range request.Topics {
		answered := kmsg.NewProduceResponseTopic()
		answered.Topic, answered.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			partition := kmsg.NewProduceResponseTopicPartition()
			partition.Partition, partition.ErrorCode = p.Partition, kerr.NotEnoughReplicas.Code
			if bytes.Contains(p.Records, []byte(text)) {
				partition.ErrorCode = kerr.MessageTooLarge.Code
			}
			answered.Partitions = append(answered.Partitions, partition)
		}
		response.Topics = append(response.Topics, answered)
	}
	return response
}

// owners says which service claimed each partition of a category last.
func (g *stage) owners(ctx context.Context, category string) (map[int32]*service, error) {
	run := &Run{Namespace: g.st.run.Namespace}
	if err := g.st.readAll(ctx, run); err != nil {
		return nil, err
	}
	byPID := map[string]*service{}
	for _, s := range g.st.named("ingest") {
		if s.alive() {
			byPID[fmt.Sprintf("/%d", s.pid())] = s
		}
	}
	owners := map[int32]*service{}
	for _, e := range run.Events {
		if e.Category == category && e.Control == "claim" {
			owners[e.Partition] = byPID[e.Instance[max(0, strings.LastIndex(e.Instance, "/")):]]
		}
	}
	return owners, nil
}

// rerouteTwice has a command re-routed again, after its first copy was answered:
//
//	R comes to partition s, belongs to t, demands version 2; A owns s, B owns t
//	A sends R on to t; B answers: conflict, the stream is empty. Group offsets cannot be committed
//	two more events are appended: the stream is at version 2 now
//	A dies; its successor reads R at s again and sends it on to t again
//
// Decided again, R would be accepted, though it was answered with a conflict.
func (g *stage) rerouteTwice(ctx context.Context, s Step) (bool, string, error) {
	source, target, err := g.twoOwners(ctx, s)
	if err != nil || source < 0 {
		return false, "no two partitions with different owners", err
	}
	owners, err := g.owners(ctx, project.Log)
	if err != nil {
		return false, "", err
	}
	stream := g.streamOn(fmt.Sprintf("rerouted-%d-%d", s.Target, g.load.now().Milliseconds()), target)
	commits := g.st.broker.fake.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: topics.Group(g.st.run.Namespace, topics.ConsumerIngest), Err: kerr.UnknownServerError, Count: -1,
	})
	defer commits.Remove()
	r := g.request(stream, "r", "2")
	r.Partition = source
	first, ok := g.load.send(ctx, r, scriptTimeout)
	for i := 0; ok && i < 2; i++ {
		_, ok = g.load.send(ctx, g.request(stream, fmt.Sprint(i), "any"), scriptTimeout)
	}
	g.untilStable(ctx)
	victim := owners[source]
	if !ok || victim == nil {
		return false, fmt.Sprintf("%s: first answer %q, the script could not go on", stream, first.Outcome), nil
	}
	if err := victim.kill(); err != nil {
		return false, "", err
	}
	wait, cancel := context.WithTimeout(ctx, scriptTimeout)
	defer cancel()
	copies := 0
	err = poll(wait, 100*time.Millisecond, "the second copy", func() (bool, error) {
		copies = 0
		err := g.st.readTopic(ctx, topics.Commands(g.st.run.Namespace, project.Log), func(rec *kgo.Record) {
			if c := commandRecord(project.Log, rec); c.ID == r.ID && c.Rerouted {
				copies++
			}
		})
		return copies >= 2, err
	})
	// What comes behind the second copy is answered when the copy was taken up.
	_, answered := g.load.send(ctx, g.request(stream, "behind", "any"), scriptTimeout)
	note := fmt.Sprintf("%s: from %d to %d, first answer %q, %d copies", stream, source, target, first.Outcome, copies)
	return err == nil && answered, note, victim.start()
}

// twoOwners finds two partitions of logs that different services own; -1 without.
func (g *stage) twoOwners(ctx context.Context, s Step) (source, target int32, err error) {
	owners, err := g.owners(ctx, project.Log)
	if err != nil {
		return -1, -1, err
	}
	n := g.st.run.Partitions
	for i := range n {
		source = (int32(s.Target%int(n)) + i) % n
		for target = range n {
			if owners[source] != nil && owners[target] != nil && owners[source] != owners[target] {
				return source, target, nil
			}
		}
	}
	return -1, -1, nil
}

// streamOn names a stream whose key belongs to a partition.
func (g *stage) streamOn(name string, partition int32) string {
	for i := 0; ; i++ {
		stream := fmt.Sprintf("%s-%d", name, i)
		if topics.Partition([]byte(stream), g.st.run.Partitions) == partition {
			return stream
		}
	}
}

// steal has a renewal overtaken by a take-over:
//
//	A, which owns p, renews its claim: its InitProducerID is held, its heartbeats too
//	A's session ends; B takes p over and decides on
//	A's InitProducerID goes on
//
// A's renewed claim stands behind events that A has not seen. Unless A finds that out and drops
// what it knows, it decides the commands in its memory a second time.
func (g *stage) steal(ctx context.Context, s Step) (bool, string, error) {
	owners, err := g.owners(ctx, project.Log)
	if err != nil {
		return false, "", err
	}
	p := int32(s.Target) % g.st.run.Partitions
	a := owners[p]
	if a == nil {
		return false, "the partition has no owner", nil
	}
	id := topics.TransactionalID(g.st.run.Namespace, project.Log, p)
	release, arrived, taken, ctl := make(chan struct{}), make(chan struct{}), make(chan struct{}), &control{}
	inits := 0
	ctl.watch(g.st.broker.fake, kmsg.InitProducerID, func(request kmsg.Request) (func(), func() (kmsg.Response, error)) {
		init := request.(*kmsg.InitProducerIDRequest)
		if init.TransactionalID == nil || *init.TransactionalID != id {
			return nil, nil
		}
		switch inits++; inits {
		case 1: // A's renewal
			close(arrived)
			return func() { <-release }, nil
		case 2: // B's take-over
			close(taken)
		}
		return nil, nil
	})
	ctl.watch(g.st.broker.fake, kmsg.Heartbeat, func(request kmsg.Request) (func(), func() (kmsg.Response, error)) {
		if inits == 0 || !strings.HasPrefix(request.(*kmsg.HeartbeatRequest).MemberID, a.name+"-") {
			return nil, nil
		}
		return func() { <-release; _ = sleep(ctx, time.Second) }, nil
	})
	defer ctl.end()
	var once sync.Once
	letGo := func() { once.Do(func() { close(release) }) }
	defer letGo()
	for _, step := range []struct {
		what string
		done <-chan struct{}
	}{{"no renewal came", arrived}, {"nobody took over", taken}} {
		select {
		case <-step.done:
		case <-time.After(scriptTimeout):
			return false, step.what, ctx.Err()
		}
	}
	// B decides for a while.
	err = sleep(ctx, s.For)
	letGo()
	return err == nil, fmt.Sprintf("%s, partition %d", a.name, p), errors.Join(err, sleep(ctx, 1500*time.Millisecond))
}
