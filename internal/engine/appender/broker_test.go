package appender

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The tests of this file hold what the protocol takes for granted of a broker. They send batches
// by hand, so that a broker that behaves otherwise is found here, not in the writer.

func TestBrokerGivesTheSameProducerTheNextEpoch(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		one := w.mustInitID(w.part.TransactionalID)
		two := w.mustInitID(w.part.TransactionalID)
		if two.ProducerID != one.ProducerID || two.Epoch != one.Epoch+1 {
			t.Errorf("second InitProducerID: got %+v after %+v, want the next epoch of the same producer", two, one)
		}
	})
}

// The leader learns of an epoch from its first batch. The embedded broker keeps it with the
// producer id, so it refuses the former owner a little earlier.
func TestBrokerFencesFromTheFirstBatchOfANewEpoch(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		one := w.mustInitID(w.part.TransactionalID)
		w.mustPut(one, 0, "a1", 0)
		two := w.mustInitID(w.part.TransactionalID)
		_, err := w.put(one, 1, eventOf("a2")...)
		switch {
		case k.Name == testkit.Kfake && !errors.Is(err, kerr.InvalidProducerEpoch):
			t.Errorf("former epoch before the claim: got %v, want INVALID_PRODUCER_EPOCH from this broker", err)
		case k.Name != testkit.Kfake && err != nil:
			t.Errorf("former epoch before the claim: got %v, want it taken", err)
		}
		if _, err := w.put(two, 0, eventOf("b1")...); err != nil {
			t.Fatalf("new epoch: %v", err)
		}
		for _, seq := range []int32{0, 1, 2} {
			if _, err := w.put(one, seq, eventOf("void")...); !errors.Is(err, kerr.InvalidProducerEpoch) {
				t.Errorf("former epoch, sequence %d: got %v, want INVALID_PRODUCER_EPOCH", seq, err)
			}
		}
	})
}

func TestBrokerStoresARepeatedBatchOnce(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		id := w.mustInitID(w.part.TransactionalID)
		for range 3 {
			w.mustPut(id, 0, "claim", 0)
		}
		for seq := int32(1); seq <= 4; seq++ {
			w.mustPut(id, seq, "x", int64(seq))
		}
		w.mustPut(id, 0, "claim", 0) // one of the last five
		wantLog(t, w, "claim", "x", "x", "x", "x")
	})
}

func TestBrokerRefusesAGapInTheSequence(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		id := w.mustInitID(w.part.TransactionalID)
		w.mustPut(id, 0, "a", 0)
		if _, err := w.put(id, 2, eventOf("gap")...); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
			t.Errorf("sequence 2 after 0: got %v, want OUT_OF_ORDER_SEQUENCE_NUMBER", err)
		}
		w.mustPut(id, 1, "b", 1)
	})
}

// That is why the claim is the first batch, alone: on a fresh partition its loss would go unseen.
func TestBrokerTakesAnyFirstSequenceOfAnUnknownProducer(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		w.mustPut(w.mustInitID(w.part.TransactionalID+"-other"), 0, "other", 0)
		w.mustPut(w.mustInitID(w.part.TransactionalID), 7, "seventh", 1)
	})
}

func TestBrokerWantsANewEpochToBeginAtSequenceZero(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		w.mustPut(w.mustInitID(w.part.TransactionalID), 0, "a", 0)
		next := w.mustInitID(w.part.TransactionalID)
		if _, err := w.put(next, 1, eventOf("gap")...); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
			t.Errorf("new epoch at sequence 1: got %v, want OUT_OF_ORDER_SEQUENCE_NUMBER", err)
		}
		w.mustPut(next, 0, "b", 1)
	})
}

func TestBrokerLetsTheHigherOfSkippedEpochsWin(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		w.mustPut(w.mustInitID(w.part.TransactionalID), 0, "a", 0)
		late := w.mustInitID(w.part.TransactionalID)
		w.mustInitID(w.part.TransactionalID) // this contender never writes
		winner := w.mustInitID(w.part.TransactionalID)
		w.mustPut(winner, 0, "b", 1)
		if _, err := w.put(late, 0, eventOf("late")...); !errors.Is(err, kerr.InvalidProducerEpoch) {
			t.Errorf("late contender: got %v, want INVALID_PRODUCER_EPOCH", err)
		}
	})
}

func TestBrokerNeverFencesOrdinaryIdempotentProducers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		one, two := k.Client(t), k.Client(t)
		for i := range 6 {
			client := one
			if i%2 == 1 {
				client = two
			}
			r := &kgo.Record{Topic: w.part.Topic, Value: []byte("x")}
			if err := client.ProduceSync(w.ctx, r).FirstErr(); err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		}
	})
}

func TestBrokerDoesNotFenceByAnEmptyTransaction(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		if k.Name == testkit.Kfake {
			t.Log("this broker fences from InitProducerID on")
			return
		}
		w := newWorld(t, k, nil)
		one := w.mustInitID(w.part.TransactionalID)
		w.mustPut(one, 0, "a", 0)
		txn := k.Client(t, kgo.TransactionalID(w.part.TransactionalID), kgo.DefaultProduceTopic(w.part.Topic))
		if err := txn.BeginTransaction(); err != nil {
			t.Fatalf("begin: %v", err)
		}
		if err := txn.EndTransaction(w.ctx, kgo.TryCommit); err != nil {
			t.Fatalf("commit: %v", err)
		}
		w.mustPut(one, 1, "b", 1)
	})
}

func TestBrokerEndsAProducerAtTheHighestEpoch(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		id := w.mustInitID(w.part.TransactionalID)
		w.mustPut(id, 0, "a", 0)
		w.mustPut(event.Claim{ProducerID: id.ProducerID, Epoch: math.MaxInt16}, 0, "fence", 1)
		if _, err := w.put(id, 1, eventOf("void")...); !errors.Is(err, kerr.InvalidProducerEpoch) {
			t.Errorf("after the fence: got %v, want INVALID_PRODUCER_EPOCH", err)
		}
		w.mustPut(event.Claim{ProducerID: id.ProducerID, Epoch: math.MaxInt16}, 0, "fence", 1)
	})
}

// With the held (pid, epoch) a superseded owner is refused, and the living owner's repeat does not
// fence itself. The embedded broker takes any epoch that it has given, and refuses only higher ones.
func TestBrokerRefusesTheHeldEpochOfASupersededOwner(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		one := w.mustInitID(w.part.TransactionalID)
		two := w.mustInitID(w.part.TransactionalID)
		_, err := w.initID(w.part.TransactionalID, &one)
		if k.Name == testkit.Kfake {
			if err != nil {
				t.Errorf("stale epoch: got %v, want it taken by this broker", err)
			}
			high := event.Claim{ProducerID: two.ProducerID, Epoch: two.Epoch + 9}
			if _, err := w.initID(w.part.TransactionalID, &high); !errors.Is(err, kerr.ProducerFenced) {
				t.Errorf("epoch never given: got %v, want PRODUCER_FENCED", err)
			}
			return
		}
		if !errors.Is(err, kerr.ProducerFenced) {
			t.Errorf("stale epoch: got %v, want PRODUCER_FENCED", err)
		}
		three, err := w.initID(w.part.TransactionalID, &two)
		if err != nil {
			t.Fatalf("held epoch: %v", err)
		}
		again, err := w.initID(w.part.TransactionalID, &two)
		if err != nil || again != three {
			t.Errorf("the same request again: got %+v, %v, want %+v as before", again, err, three)
		}
	})
}

func TestBrokerAnswersRacingInitProducerIDsWithDifferentEpochs(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		var mu sync.Mutex
		given := map[event.Claim]int{}
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				claim := w.mustInitID(w.part.TransactionalID)
				mu.Lock()
				given[claim]++
				mu.Unlock()
			})
		}
		all.Wait()
		if len(given) != 16 {
			t.Errorf("different answers to 16 requests: got %d, want 16: %v", len(given), given)
		}
	})
}

func TestBrokerUsesNoSequenceForATooLargeBatch(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, map[string]string{"max.message.bytes": "1000"})
		id := w.mustInitID(w.part.TransactionalID)
		w.mustPut(id, 0, "a", 0)
		if _, err := w.put(id, 1, Record{Value: make([]byte, 2000)}); !errors.Is(err, kerr.MessageTooLarge) {
			t.Errorf("large batch: got %v, want MESSAGE_TOO_LARGE", err)
		}
		w.mustPut(id, 1, "b", 1)
	})
}

// The embedded broker wraps one too early; a writer there loses its claim once in 2^31 records,
// and claims again.
func TestBrokerWrapsTheSequence(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		w.mustPut(w.mustInitID(w.part.TransactionalID+"-other"), 0, "other", 0)
		id := w.mustInitID(w.part.TransactionalID)
		last := int32(math.MaxInt32)
		if k.Name == testkit.Kfake {
			last--
		}
		w.mustPut(id, last, "last", 1)
		w.mustPut(id, 0, "first", 2)
	})
}

func TestBrokerAnswersUnknownTopicIDAfterRecreation(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		id := w.mustInitID(w.part.TransactionalID)
		w.mustPut(id, 0, "a", 0)
		w.recreate()
		if _, err := w.put(id, 1, eventOf("b")...); !errors.Is(err, kerr.UnknownTopicID) {
			t.Errorf("former topic id: got %v, want UNKNOWN_TOPIC_ID", err)
		}
	})
}

// mustPut sends one batch by hand, which must be at the offset.
func (w *world) mustPut(claim event.Claim, seq int32, value string, offset int64) {
	w.t.Helper()
	got, err := w.put(claim, seq, eventOf(value)...)
	if err != nil || got != offset {
		w.t.Fatalf("batch %q under %+v, sequence %d: got offset %d, error %v, want offset %d", value, claim, seq, got, err, offset)
	}
}

// A broker that was killed knows of each producer the last batch only, and still its epoch.
func TestBrokerAfterKillAndRestart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	k := testkit.StartKafkaJVM(t, testkit.ForCrashes())
	w := newWorld(t, k.Kafka, nil)
	one := w.mustInitID(w.part.TransactionalID)
	w.mustPut(one, 0, "a", 0)
	two := w.mustInitID(w.part.TransactionalID)
	for seq := range int32(3) {
		w.mustPut(two, seq, "b", int64(1+seq))
	}
	k.Kill()
	k.Restart()
	w.client = k.Client(t)
	var err error
	waitFor(t, "a leader after the restart", func() bool {
		_, err = w.put(one, 1, eventOf("void")...)
		return !kerr.IsRetriable(err)
	})
	if !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("former epoch after the restart: got %v, want INVALID_PRODUCER_EPOCH", err)
	}
	w.mustPut(two, 2, "b", 3) // the last one again
	if _, err := w.put(two, 1, eventOf("b")...); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Errorf("the last but one again: got %v, want OUT_OF_ORDER_SEQUENCE_NUMBER", err)
	}
	w.mustPut(two, 3, "c", 4)
	wantLog(t, w, "a", "b", "b", "b", "c")
}

// Once the broker has forgotten a producer, nothing protects the partition: hence keep-alives,
// renewals, and no retry beyond that age (PROTOCOL W3).
func TestBrokerAfterTheProducerStateExpired(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	k := testkit.StartKafkaJVM(t,
		testkit.WithProperty("producer.id.expiration.ms", "1000"),
		testkit.WithProperty("producer.id.expiration.check.interval.ms", "100"))
	w := newWorld(t, k.Kafka, nil)
	one := w.mustInitID(w.part.TransactionalID)
	two := w.mustInitID(w.part.TransactionalID)
	w.mustPut(two, 0, "a", 0)
	w.mustPut(two, 1, "b", 1)
	if _, err := w.put(one, 0, eventOf("void")...); !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Fatalf("former epoch: got %v, want INVALID_PRODUCER_EPOCH", err)
	}
	waitFor(t, "the producer to be forgotten", func() bool { return len(w.producers()) == 0 })
	w.mustPut(two, 1, "b", 2) // the retry is stored twice
	waitFor(t, "the producer to be forgotten again", func() bool { return len(w.producers()) == 0 })
	w.mustPut(one, 4, "zombie", 3) // and the zombie is taken

	// The owner learns it by its next batch.
	if _, err := w.put(two, 2, eventOf("c")...); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Errorf("owner behind the zombie: got %v, want OUT_OF_ORDER_SEQUENCE_NUMBER", err)
	}
}
