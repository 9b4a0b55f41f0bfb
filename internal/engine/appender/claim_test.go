package appender

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

var compacted = map[string]string{"cleanup.policy": "compact"}

func TestW1ClaimFirstAndAlone(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		at := time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.UTC)
		writer := w.claim(w.appender(func(c *Config) { c.Clock = func() time.Time { return at } }))
		mustWrite(t, writer, "a", 1)

		log := w.log()
		if len(log) != 2 || len(log[0].Records) != 1 {
			t.Fatalf("log: got %d batches, the first with %d records; want the claim alone and one more", len(log), len(log[0].Records))
		}
		claim := log[0]
		if claim.Claim != writer.Held() || claim.Seq != 0 || claim.Base != writer.ClaimOffset() {
			t.Errorf("claim batch: got %+v, want producer %+v, sequence 0, offset %d", claim, writer.Held(), writer.ClaimOffset())
		}
		r := claim.Records[0]
		if r.Key != nil || r.Value != nil {
			t.Errorf("claim record: got key %q, value %q, want null for both", r.Key, r.Value)
		}
		want := []kmsg.Header{
			{Key: "fs-control", Value: []byte("claim")},
			{Key: "fs-group", Value: []byte("test.ingest")},
			{Key: "fs-instance", Value: []byte("one")},
			{Key: "fs-commands-topic-id", Value: []byte("01020300000000000000000000000000")},
			{Key: "fs-events-topic-id", Value: []byte(event.FormatTopicID(w.part.TopicID))},
			{Key: "fs-last-event-id", Value: []byte("event-9")},
			{Key: "fs-time", Value: []byte("2026-03-04T05:06:07.89Z")},
		}
		if got := fmt.Sprintf("%s", r.Headers); got != fmt.Sprintf("%s", want) {
			t.Errorf("claim headers: got %s, want %s", got, want)
		}
	})
}

func TestW1ClaimOnACompactedTopicHasAKeyOfItsOwnAndAValue(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, compacted)
		keys := map[string]bool{}
		for range 2 {
			writer := w.claim(w.appender())
			f := newFates(t)
			writer.AppendKeepalive(f.done)
			writer.Flush()
			if r := f.next(); r.Err != nil {
				t.Fatalf("keep-alive: %v", r.Err)
			}
		}
		for _, b := range w.log() {
			r := b.Records[0]
			if len(r.Key) == 0 || len(r.Value) == 0 {
				t.Errorf("record at %d: got key %q, value %q, want both", b.Base, r.Key, r.Value)
			}
			if control(r.Headers) == event.ControlClaim {
				keys[string(r.Key)] = true
			}
		}
		if len(keys) != 2 {
			t.Errorf("keys of two claims: got %v, want two different ones", keys)
		}
	})
}

func TestW1NewOwnerFencesTheFormerOne(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		one := w.claim(w.appender())
		mustWrite(t, one, "a", 1)
		two := w.claim(w.appender())
		if two.Held().ProducerID != one.Held().ProducerID || two.Held().Epoch != one.Held().Epoch+1 {
			t.Errorf("second owner: got %+v, want the same producer and the epoch after %+v", two.Held(), one.Held())
		}
		if two.ClaimOffset() != 2 || two.NextOffset() != 3 {
			t.Errorf("second claim: got offset %d and next %d, want 2 and 3", two.ClaimOffset(), two.NextOffset())
		}
		r := write(t, one, "void")
		if !errors.Is(r.Err, ErrFenced) || r.Offset != -1 {
			t.Errorf("append of the fenced owner: got %+v, want ErrFenced and offset -1", r)
		}
		select {
		case <-one.Dead():
		case <-time.After(deadline):
			t.Fatal("the fenced writer is not dead")
		}
		if !errors.Is(one.Err(), ErrFenced) {
			t.Errorf("Err of the fenced writer: got %v, want ErrFenced", one.Err())
		}
		mustWrite(t, two, "b", 3)
		wantLog(t, w, "<claim>", "a", "<claim>", "b")
	})
}

func TestW2FencesTheProducerOfTheLastClaim(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		old := w.claim(w.appender())
		mustWrite(t, old, "a", 1)

		// The coordinator has forgotten the transactional id: the next owner gets another producer id.
		w.part.TransactionalID += "-anew"
		last := LastClaim{Claim: old.Held(), Known: true}
		writer, err := w.appender().Claim(w.ctx, w.part, w.info, last, nil)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		if writer.Held().ProducerID == old.Held().ProducerID {
			t.Fatal("the test needs two producer ids")
		}
		if r := write(t, old, "void"); !errors.Is(r.Err, ErrFenced) {
			t.Errorf("append under the old producer id: got %+v, want ErrFenced", r)
		}
		mustWrite(t, writer, "b", writer.ClaimOffset()+1)
		wantLog(t, w, "<claim>", "a", "<fence>", "<claim>", "b")
		fence := w.log()[2]
		if fence.Claim != (event.Claim{ProducerID: old.Held().ProducerID, Epoch: math.MaxInt16}) || fence.Seq != 0 || fence.Records[0].Key != nil || fence.Records[0].Value != nil {
			t.Errorf("fence batch: got %+v, want epoch 32767, sequence 0, null key and value", fence)
		}
	})
}

// What fenced once stays fenced: later claims add no fence batch, and what they send again is
// stored once.
func TestW2FencingAgainStoresNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		old := w.claim(w.appender())
		w.part.TransactionalID += "-anew"
		last := LastClaim{Claim: old.Held(), Known: true}
		for range 3 {
			if _, err := w.appender().Claim(w.ctx, w.part, w.info, last, nil); err != nil {
				t.Fatalf("Claim: %v", err)
			}
		}
		wantLog(t, w, "<claim>", "<fence>", "<claim>", "<claim>", "<claim>")
	})
}

// Somebody has written under the highest epoch already; the id is ended, whatever stands there.
func TestW2ProducerAtTheHighestEpochIsFencedAlready(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		id := w.mustInitID(w.part.TransactionalID + "-other")
		ended := event.Claim{ProducerID: id.ProducerID, Epoch: math.MaxInt16}
		for seq := range int32(7) {
			w.mustPut(ended, seq, "x", int64(seq))
		}
		writer, err := w.appender().Claim(w.ctx, w.part, w.info, LastClaim{Claim: id, Known: true}, nil)
		if err != nil || writer.ClaimOffset() != 7 {
			t.Errorf("Claim: got %v, want the claim at offset 7", err)
		}
	})
}

// Nobody told of the other producer: DescribeProducers did. The embedded broker shows only
// producers inside a transaction, so there the last claim alone decides.
func TestW2FencesForeignProducer(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		if k.Name == testkit.Kfake {
			t.Log("not shown by this broker")
			return
		}
		w := newWorld(t, k, nil)
		foreign := w.mustInitID(w.part.TransactionalID + "-foreign")
		if _, err := w.put(foreign, 0, eventOf("foreign")...); err != nil {
			t.Fatalf("foreign append: %v", err)
		}
		writer := w.claim(w.appender())
		if _, err := w.put(foreign, 1, eventOf("void")...); !errors.Is(err, kerr.InvalidProducerEpoch) {
			t.Errorf("foreign append after the claim: got %v, want INVALID_PRODUCER_EPOCH", err)
		}
		mustWrite(t, writer, "a", 3)
		wantLog(t, w, "foreign", "<fence>", "<claim>", "a")

		// The foreign program claims by its own id: it is told that this id is spent.
		w.part.TransactionalID += "-foreign"
		_, err := w.appender().Claim(w.ctx, w.part, w.info, LastClaim{}, nil)
		if !errors.Is(err, ErrFenced) || !strings.Contains(err.Error(), "fenced for good") {
			t.Errorf("claim under a producer id that was fenced for good: got %v, want ErrFenced that says so", err)
		}
	})
}

// A coordinator that forgot the id may begin anew below the epochs that the log has seen.
func TestW2EpochGoesOnFromTheLastClaim(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		first := w.mustInitID(w.part.TransactionalID)
		last := event.Claim{ProducerID: first.ProducerID, Epoch: first.Epoch + 5}
		writer, err := w.appender().Claim(w.ctx, w.part, w.info, LastClaim{Claim: last, Known: true}, nil)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		if writer.Held().Epoch <= last.Epoch {
			t.Errorf("epoch: got %d, want more than the last claim's %d", writer.Held().Epoch, last.Epoch)
		}
	})
}

func TestW4ReclaimOfALivingOwnerStandsWhereItMust(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		a := w.appender()
		former := w.claim(a)
		mustWrite(t, former, "a", 1)
		former.Close()
		held := former.Held()
		writer, err := a.Claim(w.ctx, w.part, w.info, LastClaim{Claim: held, Known: true}, &held)
		if err != nil {
			t.Fatalf("re-claim: %v", err)
		}
		if writer.ClaimOffset() != former.NextOffset() {
			t.Errorf("re-claim: got offset %d, want %d", writer.ClaimOffset(), former.NextOffset())
		}
		if writer.Held().ProducerID != held.ProducerID || writer.Held().Epoch <= held.Epoch {
			t.Errorf("re-claim: got %+v, want a later epoch of %+v", writer.Held(), held)
		}
		mustWrite(t, writer, "b", 3)
		wantLog(t, w, "<claim>", "a", "<claim>", "b")
	})
}

// A sleeps; B takes over and writes; A wakes and renews its claim. Kafka refuses the renewal. The
// embedded broker does not, and there A learns it from the offset of its claim.
func TestW4ReclaimNeverSteals(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		a := w.appender()
		sleeper := w.claim(a)
		mustWrite(t, sleeper, "a", 1)
		owner := w.claim(w.appender())
		mustWrite(t, owner, "b", 3)

		held := sleeper.Held()
		writer, err := a.Claim(w.ctx, w.part, w.info, LastClaim{Claim: held, Known: true}, &held)
		if k.Name == testkit.Kfake {
			if err != nil {
				t.Fatalf("re-claim: %v", err)
			}
			if writer.ClaimOffset() == sleeper.NextOffset() {
				t.Errorf("re-claim: it stands at %d, where the sleeper expected it, though somebody else wrote", writer.ClaimOffset())
			}
			return
		}
		if !errors.Is(err, ErrFenced) {
			t.Fatalf("re-claim: got %v, want ErrFenced", err)
		}
		mustWrite(t, owner, "c", 4)
		wantLog(t, w, "<claim>", "a", "<claim>", "b", "c")
	})
}

// All contenders are served, one after the other; the last claim owns the partition.
func TestW7RacingClaimsLeaveOneOwner(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		const contenders = 16
		var all sync.WaitGroup
		writers := make(chan *Writer, contenders)
		for range contenders {
			a := w.appender()
			all.Go(func() {
				for {
					writer, err := a.Claim(w.ctx, w.part, w.info, LastClaim{}, nil)
					if errors.Is(err, ErrFenced) {
						continue // another one's claim came between the id and the claim
					}
					if err != nil {
						t.Errorf("Claim: %v", err)
						return
					}
					writers <- writer
					return
				}
			})
		}
		all.Wait()
		close(writers)
		alive := 0
		for writer := range writers {
			if r := write(t, writer, "x"); r.Err == nil {
				alive++
			} else if !errors.Is(r.Err, ErrFenced) {
				t.Errorf("append of a loser: got %v, want ErrFenced", r.Err)
			}
		}
		if alive != 1 {
			t.Errorf("owners after %d claims: got %d, want 1", contenders, alive)
		}
		epochs := int16(-1)
		for _, b := range w.log() {
			if control(b.Records[0].Headers) == event.ControlClaim {
				if b.Claim.Epoch <= epochs {
					t.Errorf("claim at %d: got epoch %d after %d, want a later one", b.Base, b.Claim.Epoch, epochs)
				}
				epochs = b.Claim.Epoch
			}
		}
	})
}

func TestW9ClaimOfARecreatedTopicIsLost(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		w.part.TopicID[3] ^= 0xff
		a := w.appender(func(c *Config) { c.TopicGrace = 50 * time.Millisecond })
		if _, err := a.Claim(w.ctx, w.part, w.info, LastClaim{}, nil); !errors.Is(err, ErrLost) {
			t.Errorf("claim with another topic id: got %v, want ErrLost", err)
		}
		w.part.Topic += ".none"
		if _, err := a.Claim(w.ctx, w.part, w.info, LastClaim{}, nil); !errors.Is(err, ErrLost) {
			t.Errorf("claim of a topic that does not exist: got %v, want ErrLost", err)
		}
	})
}

// Just after its creation a broker may not know a topic yet.
func TestClaimWaitsForATopicThatWasJustCreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	fault := w.k.Cluster().Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Topic: w.part.Topic, Err: kerr.UnknownTopicOrPartition, Count: 2},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.part.Topic, Err: kerr.UnknownTopicID, Count: 2},
	)
	writer := w.claim(w.appender())
	mustWrite(t, writer, "a", 1)
	if fault.Hits() != 4 {
		t.Errorf("answers that the topic is unknown: got %d, want 4", fault.Hits())
	}
}

func TestClaimRetriesConcurrentTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	fault := w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.ConcurrentTransactions, Count: 3})
	w.claim(w.appender())
	if fault.Hits() != 3 {
		t.Errorf("CONCURRENT_TRANSACTIONS: got %d, want 3", fault.Hits())
	}
}

func TestClaimNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key  kmsg.Key
		err  *kerr.Error
		want string
	}{
		{kmsg.InitProducerID, kerr.TransactionalIDAuthorizationFailed, "transactional id"},
		{kmsg.Metadata, kerr.TopicAuthorizationFailed, "grant Describe and Write"},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, onKfake(t), nil)
			w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err, Count: -1})
			_, err := w.appender().Claim(w.ctx, w.part, w.info, LastClaim{}, nil)
			if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Claim: got %v, want %v that names %q", err, c.err, c.want)
			}
		})
	}
}

// The right to ask who writes is Read, which a writer may lack: the last claim decides then.
func TestW2DescribeProducersMayBeForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	fault := w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeProducers}, Err: kerr.TopicAuthorizationFailed, Count: -1})
	mustWrite(t, w.claim(w.appender()), "a", 1)
	if fault.Hits() == 0 {
		t.Error("DescribeProducers was not asked")
	}
}

// Old brokers cannot say who writes, and are told the topic's name, not its id.
func TestOldBrokerWithoutDescribeProducers(t *testing.T) {
	t.Parallel()
	versions := kversion.V2_8_0()
	versions.SetMaxKeyVersion(int16(kmsg.DescribeProducers), -1)
	k := testkit.WrapKfake(testkit.StartKfake(t, kfake.MaxVersions(versions)))
	w := newWorld(t, k, nil)
	mustWrite(t, w.claim(w.appender()), "a", 1)
	wantLog(t, w, "<claim>", "a")
}

func TestClaimEndsWithItsContextAndSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	ctx, cancel := context.WithTimeout(w.ctx, 200*time.Millisecond)
	defer cancel()
	_, err := w.appender().Claim(ctx, w.part, w.info, LastClaim{}, nil)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "NOT_ENOUGH_REPLICAS") {
		t.Errorf("Claim: got %v, want the deadline, with the last answer NOT_ENOUGH_REPLICAS", err)
	}
}
