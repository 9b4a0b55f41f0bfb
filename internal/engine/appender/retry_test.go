package appender

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fault makes the broker answer the next requests to the world's topic so.
func (w *world) fault(err *kerr.Error, count int) *kfake.FaultHandle {
	w.t.Helper()
	return w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.part.Topic, Err: err, Count: count})
}

// A stored batch whose answer was lost is sent again as it is, and stored once.
func TestUnknownOutcomeIsStoredOnce(t *testing.T) {
	t.Parallel()
	for _, answer := range []*kerr.Error{
		kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, // these the broker stores all the same
		kerr.NotLeaderForPartition, kerr.NotEnoughReplicas, kerr.UnknownServerError, kerr.KafkaStorageError,
		kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable, kerr.TopicAuthorizationFailed,
	} {
		t.Run(answer.Message, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, onKfake(t), nil)
			seen := &retries{}
			writer := w.claim(w.appender(func(c *Config) { c.Observe = seen }))
			fault := w.fault(answer, 3)
			mustWrite(t, writer, "a", 1)
			mustWrite(t, writer, "b", 2)
			if fault.Hits() != 3 || seen.count.Load() != 3 {
				t.Errorf("answers %s: got %d, retries %d, want 3 of each", answer.Message, fault.Hits(), seen.count.Load())
			}
			wantLog(t, w, "<claim>", "a", "b")
		})
	}
}

// retries observes.
type retries struct{ count, acked atomic.Int64 }

func (r *retries) BatchAcked(Partition, int, int, time.Duration) { r.acked.Add(1) }
func (r *retries) BatchRetried(Partition, string)                { r.count.Add(1) }

// The broker stores the batch and the connection breaks before its answer.
func TestLostConnectionIsStoredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	cluster := w.k.Cluster()
	writer := w.claim(w.appender())
	var lost atomic.Int64
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		if lost.Add(1) > 4 {
			cluster.DropControl()
			return nil, nil, false
		}
		cluster.KeepControl()
		return nil, io.ErrClosedPipe, true
	})
	mustWrite(t, writer, "a", 1)
	mustWrite(t, writer, "b", 2)
	if got := lost.Load(); got < 4 {
		t.Errorf("lost connections: got %d, want 4", got)
	}
	wantLog(t, w, "<claim>", "a", "b")
}

func TestUnknownOutcomeOfTheClaimIsStoredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	w.fault(kerr.RequestTimedOut, 2)
	mustWrite(t, w.claim(w.appender()), "a", 1)
	wantLog(t, w, "<claim>", "a")
}

// What the broker's answers do to the writer, and what is then known of the entry under way and
// of the one behind it.
func TestW16W17AnswersThatEndTheWriter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answers []*kerr.Error
		want    error
	}{
		{[]*kerr.Error{kerr.InvalidProducerEpoch}, ErrFenced},
		{[]*kerr.Error{kerr.ProducerFenced}, ErrFenced},
		{[]*kerr.Error{kerr.OutOfOrderSequenceNumber}, ErrLost},
		{[]*kerr.Error{kerr.UnknownProducerID}, ErrLost},
		{[]*kerr.Error{kerr.DuplicateSequenceNumber}, ErrLost},
		{[]*kerr.Error{kerr.UnknownTopicID}, ErrLost},
		// Refused, but an attempt before may have been stored.
		{[]*kerr.Error{kerr.RequestTimedOut, kerr.MessageTooLarge}, ErrLost},
		{[]*kerr.Error{kerr.NotLeaderForPartition, kerr.InvalidTimestamp}, ErrLost},
	} {
		t.Run(fmt.Sprint(c.answers), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, onKfake(t), nil)
			writer := w.claim(w.appender())
			for _, answer := range c.answers {
				w.fault(answer, 1)
			}
			release := w.holdProduce()
			f := newFates(t)
			writer.Append(eventOf("sent"), f.done)
			writer.Flush()
			<-release.arrived
			writer.Append(eventOf("waiting"), f.done)
			writer.Flush()
			close(release.open)
			for i, wantNotSent := range []bool{false, true} {
				r := f.next()
				var fate *FateError
				if !errors.Is(r.Err, c.want) || !errors.As(r.Err, &fate) || fate.NotSent != wantNotSent {
					t.Errorf("entry %d: got %v, want %v with NotSent %v", i, r.Err, c.want, wantNotSent)
				}
			}
			<-writer.Dead()
		})
	}
}

func TestRefusalAfterACertainFailureIsARefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender())
	w.fault(kerr.NotEnoughReplicas, 2)
	w.fault(kerr.InvalidTimestamp, 1)
	if r := write(t, writer, "a"); !errors.Is(r.Err, ErrRefused) {
		t.Errorf("got %v, want ErrRefused", r.Err)
	}
}

type gate struct{ arrived, open chan struct{} }

// holdProduce has the next produce request wait at the broker.
func (w *world) holdProduce() gate {
	h := gate{make(chan struct{}), make(chan struct{})}
	cluster := w.k.Cluster()
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.DropControl()
		cluster.SleepControl(func() {
			close(h.arrived)
			<-h.open
		})
		return nil, nil, false
	})
	return h
}

// A proof must have been sent after it was asked for: the batch under way is none.
func TestW15BatchUnderWayIsNoProof(t *testing.T) {
	t.Parallel()
	for _, list := range []bool{false, true} {
		w := newWorld(t, onKfake(t), nil)
		writer := w.claim(w.appender(func(c *Config) { c.ProveByListOffsets = list }))
		hold := w.holdProduce()
		f, proofs := newFates(t), newFates(t)
		writer.Append(eventOf("a"), f.done)
		writer.Flush()
		<-hold.arrived
		writer.Prove(proofs.proof)
		writer.Flush()
		refuse := w.k.Cluster().Fault(
			kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.part.Topic, Err: kerr.OutOfOrderSequenceNumber, Count: -1, When: fromSequence(2)},
			kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: w.part.Topic, Err: kerr.UnknownTopicID, Count: -1},
		)
		close(hold.open)
		if r := f.next(); r.Err != nil {
			t.Errorf("batch under way: got %v, want none", r.Err)
		}
		if list {
			// The leader's word is refused for now: there is no proof until it is given.
			waitFor(t, "a refused ListOffsets", func() bool { return refuse.Hits() > 0 })
			if n := len(proofs.ch); n != 0 {
				t.Errorf("proofs before the leader's word: got %d, want 0", n)
			}
			refuse.Remove()
			if r := proofs.next(); r.Err != nil {
				t.Errorf("proof: got %v, want none", r.Err)
			}
			continue
		}
		if r := proofs.next(); !errors.Is(r.Err, ErrLost) {
			t.Errorf("proof: got %v, want ErrLost by the keep-alive", r.Err)
		}
	}
}

// fromSequence matches produce requests whose batch begins at that sequence or later.
func fromSequence(seq uint32) func(kmsg.Request) bool {
	return func(req kmsg.Request) bool {
		produce, ok := req.(*kmsg.ProduceRequest)
		return ok && binary.BigEndian.Uint32(produce.Topics[0].Partitions[0].Records[atSequence:]) >= seq
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > deadline {
			t.Fatalf("%s: not within %s", what, deadline)
		}
	}
}

func TestW15ListOffsetsAtAnotherEndIsLost(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender(func(c *Config) { c.ProveByListOffsets = true }))
		other := w.mustInitID(w.part.TransactionalID + "-other")
		if _, err := w.put(other, 0, eventOf("other")...); err != nil {
			t.Fatalf("other producer: %v", err)
		}
		f := newFates(t)
		writer.Prove(f.proof)
		writer.Flush()
		if r := f.next(); !errors.Is(r.Err, ErrLost) || !strings.Contains(r.Err.Error(), "offset 2, expected 1") {
			t.Errorf("proof: got %v, want ErrLost that names offsets 2 and 1", r.Err)
		}
	})
}

// Beyond the age at which the broker may have forgotten the producer, a retry could be stored twice.
func TestW3OldBatchIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	writer := w.claim(w.appender(func(c *Config) {
		c.Clock = func() time.Time { return time.Unix(0, now.Load()) }
		c.RetryAgeMax = time.Hour
	}))
	fault := w.fault(kerr.RequestTimedOut, -1)
	f := newFates(t)
	writer.Append(eventOf("a"), f.done)
	writer.Flush()
	waitFor(t, "three attempts", func() bool { return fault.Hits() >= 3 })
	if n := len(f.ch); n != 0 {
		t.Fatalf("answers while it is retried: got %d, want 0", n)
	}
	now.Add(int64(time.Hour + time.Second))
	if r := f.next(); !errors.Is(r.Err, ErrLost) || !strings.Contains(r.Err.Error(), "REQUEST_TIMED_OUT") {
		t.Errorf("old batch: got %v, want ErrLost with the last answer", r.Err)
	}
}

// Leaders move while every partition is written to: nothing is lost, doubled or reordered.
func TestLeaderMovesKeepEverySequence(t *testing.T) {
	t.Parallel()
	cluster := testkit.StartKfake(t, kfake.NumBrokers(3))
	w := newWorld(t, testkit.WrapKfake(cluster), nil)
	a := w.appender()
	const partitions, entries = 6, 400
	topic := w.part.Topic + ".many"
	w.k.CreateTopic(t, topic, partitions, nil)
	id := topicID(t, w.client, topic)
	stop := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		for n := int32(0); ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				_ = cluster.MoveTopicPartition(topic, n%partitions, (n/partitions)%3)
			}
		}
	})
	var all sync.WaitGroup
	for p := range int32(partitions) {
		all.Go(func() {
			part := Partition{Topic: topic, TopicID: id, Partition: p, TransactionalID: fmt.Sprint(topic, p)}
			writer, err := a.Claim(w.ctx, part, w.info, LastClaim{}, nil)
			if err != nil {
				t.Errorf("Claim: %v", err)
				return
			}
			f := newFates(t)
			for n := range entries {
				writer.Append(eventOf(fmt.Sprint(n)), f.done)
				writer.Flush()
				if n%7 == 0 {
					time.Sleep(time.Millisecond) // spread over the moves
				}
			}
			for n := range entries {
				if r := f.next(); r.Err != nil || r.Offset != int64(n+1) {
					t.Errorf("partition %d entry %d: got %+v, want offset %d", p, n, r, n+1)
					return
				}
			}
		})
	}
	all.Wait()
	close(stop)
	moving.Wait()
	for p := range int32(partitions) {
		w.part = Partition{Topic: topic, TopicID: id, Partition: p}
		got := w.values()
		if len(got) != entries+1 {
			t.Errorf("partition %d: got %d records, want %d", p, len(got), entries+1)
			continue
		}
		for n, v := range got[1:] {
			if v != fmt.Sprint(n) {
				t.Errorf("partition %d at %d: got %q, want %d", p, n+1, v, n)
				break
			}
		}
	}
}

// Two owners contend under load; every acknowledgement stands in the log where it was told, under
// the claim of its owner, and nothing of an owner follows the next claim.
func TestW1TakeoversUnderLoad(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		type ack struct {
			claim event.Claim
			value string
		}
		acked := map[int64]ack{}
		var mu sync.Mutex
		const owners, entries = 8, 300
		var all sync.WaitGroup
		for o := range owners {
			a := w.appender()
			writer := w.claim(a)
			all.Go(func() {
				f := newFates(t)
				for n := range entries {
					writer.Append(eventOf(fmt.Sprintf("%d-%d", o, n)), f.done)
					writer.Flush()
				}
				for n := range entries {
					r := f.next()
					if r.Err != nil {
						if !errors.Is(r.Err, ErrFenced) {
							t.Errorf("owner %d: got %v, want ErrFenced", o, r.Err)
						}
						continue
					}
					mu.Lock()
					acked[r.Offset] = ack{writer.Held(), fmt.Sprintf("%d-%d", o, n)}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		var current event.Claim
		found := map[string]bool{}
		for _, b := range w.log() {
			if control(b.Records[0].Headers) == event.ControlClaim {
				current = b.Claim
				continue
			}
			if b.Claim != current {
				t.Errorf("batch at %d: got producer %+v under the claim %+v", b.Base, b.Claim, current)
			}
			for i, r := range b.Records {
				if found[string(r.Value)] {
					t.Errorf("%s is stored twice", r.Value)
				}
				found[string(r.Value)] = true
				at := b.Base + int64(i)
				if a, there := acked[at]; there && (a.value != string(r.Value) || a.claim != b.Claim) {
					t.Errorf("offset %d: got %s under %+v, acknowledged was %+v", at, r.Value, b.Claim, a)
				}
				delete(acked, at)
			}
		}
		if len(acked) != 0 {
			t.Errorf("%d acknowledged entries are not in the log", len(acked))
		}
	})
}

func TestCloseTellsWhatIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	a := w.appender()
	writer := w.claim(a)
	hold := w.holdProduce()
	f := newFates(t)
	writer.Append(eventOf("sent"), f.done)
	writer.Flush()
	<-hold.arrived
	writer.Append(eventOf("flushed"), f.done)
	writer.Flush()
	writer.Append(eventOf("gathering"), f.done)
	writer.Prove(f.proof)
	writer.Close()
	writer.Close()
	close(hold.open)
	if r := f.next(); r.Err != nil || r.Offset != 1 {
		t.Errorf("request under way: got %+v, want its answer, offset 1", r)
	}
	writer.Append(eventOf("late"), f.done)
	for i := range 4 {
		var fate *FateError
		if r := f.next(); !errors.Is(r.Err, ErrClosed) || !errors.As(r.Err, &fate) || !fate.NotSent {
			t.Errorf("entry %d behind it: got %v, want ErrClosed, not sent", i, r.Err)
		}
	}
	if !errors.Is(writer.Err(), ErrClosed) {
		t.Errorf("Err: got %v, want ErrClosed", writer.Err())
	}
	wantLog(t, w, "<claim>", "sent")
}

func TestCloseEndsRetries(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender())
	fault := w.fault(kerr.NotLeaderForPartition, -1)
	f := newFates(t)
	writer.Append(eventOf("a"), f.done)
	writer.Flush()
	waitFor(t, "two attempts", func() bool { return fault.Hits() >= 2 })
	writer.Close()
	var fate *FateError
	if r := f.next(); !errors.As(r.Err, &fate) || fate.NotSent || !errors.Is(r.Err, ErrClosed) {
		t.Errorf("batch that was sent: got %v, want ErrClosed, outcome unknown", r.Err)
	}
}

// The router looks for a leader only once a minute here: Close does not wait for it.
func TestCloseIsNotHeldUpByTheSearchForALeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender(func(c *Config) { c.MetadataInterval = time.Minute }))
	fault := w.fault(kerr.NotLeaderForPartition, -1)
	f := newFates(t)
	writer.Append(eventOf("a"), f.done)
	writer.Flush()
	waitFor(t, "an attempt", func() bool { return fault.Hits() >= 1 })
	writer.Close()
	if r := f.next(); !errors.Is(r.Err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", r.Err)
	}
}

// While a batch is under way the next gathers; its acknowledgement does not send what was not
// flushed, so that a poll is handed over whole.
func TestAcknowledgementDoesNotFlush(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender())
	hold := w.holdProduce()
	f := newFates(t)
	writer.Append(eventOf("a"), f.done)
	writer.Flush()
	<-hold.arrived
	writer.Append(eventOf("b"), f.done)
	close(hold.open)
	f.next()
	mustWrite(t, w.claimOther(writer.a), "other", 1) // the sender has passed
	if entries, _ := writer.Waiting(); entries != 1 {
		t.Errorf("Waiting: got %d entries, want the one that was not flushed", entries)
	}
	writer.Flush()
	if r := f.next(); r.Err != nil || r.Offset != 2 {
		t.Errorf("after Flush: got %+v, want offset 2", r)
	}
}

// claimOther claims a partition of another topic.
func (w *world) claimOther(a *Appender) *Writer {
	w.t.Helper()
	topic := w.part.Topic + ".other"
	w.k.CreateTopic(w.t, topic, 1, nil)
	part := Partition{Topic: topic, TopicID: topicID(w.t, w.client, topic), TransactionalID: topic}
	writer, err := a.Claim(w.ctx, part, w.info, LastClaim{}, nil)
	if err != nil {
		w.t.Fatalf("Claim: %v", err)
	}
	return writer
}

func TestW17BatchesBehindARefusedOneAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender(func(c *Config) { c.BatchBytesMax = 1024 }))
	w.fault(kerr.InvalidRecord, 1)
	hold := w.holdProduce()
	f := newFates(t)
	writer.Append(eventOf("refused"), f.done)
	writer.Flush()
	<-hold.arrived
	for range 3 {
		writer.Append([]Record{{Value: make([]byte, 700)}}, f.done)
	}
	writer.Prove(f.proof)
	writer.Flush()
	close(hold.open)
	for i := range 5 {
		if r := f.next(); !errors.Is(r.Err, ErrRefused) {
			t.Errorf("answer %d: got %+v, want ErrRefused", i, r)
		}
	}
	writer.Resume()
	mustWrite(t, writer, "a", 1)
	wantLog(t, w, "<claim>", "a")
}

// A process may hold two writers of a partition for a moment, the fenced one and the new one. They
// never share a request, whose answers could not be told apart.
func TestTwoWritersOfAPartitionDoNotShareARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	a := w.appender()
	one, two := w.claim(a), w.claim(a)
	other := w.claimOther(a)
	hold := w.holdProduce()
	f, fenced := newFates(t), newFates(t)
	other.Append(eventOf("held"), f.done)
	other.Flush()
	<-hold.arrived
	one.Append(eventOf("void"), fenced.done)
	one.Flush()
	two.Append(eventOf("a"), f.done)
	two.Flush()
	close(hold.open)
	if r := fenced.next(); !errors.Is(r.Err, ErrFenced) {
		t.Errorf("fenced writer: got %+v, want ErrFenced", r)
	}
	for range 2 {
		if r := f.next(); r.Err != nil {
			t.Errorf("living writer: got %v, want none", r.Err)
		}
	}
	wantLog(t, w, "<claim>", "<claim>", "a")
}

func TestAppenderCloseAnswersEverything(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		a := w.appender()
		writer := w.claim(a)
		var told atomic.Int64
		var given int64
		stop := make(chan struct{})
		var appending sync.WaitGroup
		appending.Go(func() {
			for {
				writer.Append(eventOf("x"), func(Result) { told.Add(1) })
				writer.Flush()
				given++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
		waitFor(t, "some answers", func() bool { return told.Load() > 100 })
		a.Close()
		close(stop)
		appending.Wait()
		a.Close()
		waitFor(t, "all answers", func() bool { return told.Load() == given })
		if entries, bytes := writer.Waiting(); entries != 0 || bytes != 0 {
			t.Errorf("Waiting: got %d entries of %d bytes, want none", entries, bytes)
		}
		if _, err := a.Claim(w.ctx, w.part, w.info, LastClaim{}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Claim of a closed appender: got %v, want ErrClosed", err)
		}
	})
}

func TestAppenderCloseEndsClaimsUnderWay(t *testing.T) {
	t.Parallel()
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.DescribeProducers, kmsg.Produce, kmsg.Metadata} {
		t.Run(key.Name(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, onKfake(t), nil)
			a := w.appender()
			fault := w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{key}, Err: kerr.NotLeaderForPartition, Count: -1})
			ended := make(chan error, 1)
			go func() {
				_, err := a.Claim(context.Background(), w.part, w.info, LastClaim{}, nil)
				ended <- err
			}()
			waitFor(t, "an attempt", func() bool { return fault.Hits() > 0 })
			a.Close()
			if err := <-ended; err == nil {
				t.Error("Claim: got nil, want an error")
			}
		})
	}
}
