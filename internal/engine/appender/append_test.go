package appender

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestAppendGathersUntilFlush(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		f := newFates(t)
		writer.Append([]Record{{Value: []byte("a1")}, {Value: []byte("a2")}}, f.done)
		writer.Append(eventOf("b"), f.done)
		if entries, bytes := writer.Waiting(); entries != 2 || bytes == 0 {
			t.Errorf("Waiting: got %d entries of %d bytes, want 2 of more than 0", entries, bytes)
		}
		if end := w.end(); end != 1 {
			t.Errorf("end of the log before Flush: got %d, want 1", end)
		}
		writer.Flush()
		for i, want := range []int64{1, 3} {
			if r := f.next(); r.Err != nil || r.Offset != want {
				t.Errorf("entry %d: got %+v, want offset %d", i, r, want)
			}
		}
		if entries, bytes := writer.Waiting(); entries != 0 || bytes != 0 {
			t.Errorf("Waiting after the answers: got %d entries of %d bytes, want none", entries, bytes)
		}
		if log := w.log(); len(log) != 2 || len(log[1].Records) != 3 || log[1].Seq != 1 {
			t.Errorf("log: got %+v, want one batch of three records with sequence 1", log)
		}
	})
}

func TestEntryIsNeverSplit(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender(func(c *Config) { c.BatchBytesMax = 2048 }))
		f := newFates(t)
		const entries = 200
		records := 0
		for i := range entries {
			entry := make([]Record, 1+i%4)
			for r := range entry {
				entry[r] = Record{Key: fmt.Append(nil, i), Value: make([]byte, 30+i%100)}
			}
			records += len(entry)
			writer.Append(entry, f.done)
		}
		writer.Flush()
		next := int64(1)
		for i := range entries {
			if r := f.next(); r.Err != nil || r.Offset != next {
				t.Fatalf("entry %d: got %+v, want offset %d", i, r, next)
			}
			next += int64(1 + i%4)
		}
		seen := map[string]int{}
		seq := int32(0)
		log := w.log()
		for n, b := range log {
			if b.Seq != seq {
				t.Errorf("batch %d: got sequence %d, want %d", n, b.Seq, seq)
			}
			seq += int32(len(b.Records))
			for _, r := range b.Records {
				if at, there := seen[string(r.Key)]; r.Key != nil && there && at != n {
					t.Errorf("entry %s stands in batches %d and %d", r.Key, at, n)
				}
				seen[string(r.Key)] = n
			}
		}
		if len(log) < 5 || int(seq) != records+1 {
			t.Errorf("log: got %d batches of %d records, want more than 4 of %d", len(log), seq, records+1)
		}
	})
}

func TestFullAtWaitingBytesMax(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	writer := w.claim(w.appender(func(c *Config) { c.WaitingBytesMax = 1000 }))
	f := newFates(t)
	writer.Append([]Record{{Value: make([]byte, 900)}}, f.done)
	if writer.Full() {
		t.Error("Full at 900 of 1000 bytes: got true, want false")
	}
	writer.Append([]Record{{Value: make([]byte, 100)}}, f.done)
	if !writer.Full() {
		t.Error("Full above 1000 bytes: got false, want true")
	}
	writer.Flush()
	for range 2 {
		if r := f.next(); r.Err != nil {
			t.Errorf("got %v, want none", r.Err)
		}
	}
	if writer.Full() {
		t.Error("Full when all is answered: got true, want false")
	}
}

// While a request is under way everything else gathers; the next request carries all of it, and
// one ListOffsets all the proofs.
func TestOneRequestCarriesEveryPartition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	const partitions = 8
	topic := w.part.Topic + ".many"
	w.k.CreateTopic(t, topic, partitions, nil)
	id := topicID(t, w.client, topic)
	a := w.appender(func(c *Config) { c.ProveByListOffsets = true })
	first := w.claim(a)
	writers := make([]*Writer, partitions)
	for p := range writers {
		part := Partition{Topic: topic, TopicID: id, Partition: int32(p), TransactionalID: fmt.Sprint(topic, p)}
		var err error
		if writers[p], err = a.Claim(w.ctx, part, w.info, LastClaim{}, nil); err != nil {
			t.Fatalf("Claim: %v", err)
		}
	}
	count := w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce, kmsg.ListOffsets}, Topic: topic, Observe: true, Count: -1})
	hold := w.holdProduce()
	f := newFates(t)
	first.Append(eventOf("held"), f.done)
	first.Flush()
	<-hold.arrived
	for p, writer := range writers {
		if p%2 == 0 {
			writer.Append(eventOf("x"), f.done)
		} else {
			writer.Prove(f.proof)
		}
		writer.Flush()
	}
	close(hold.open)
	for range partitions + 1 {
		if r := f.next(); r.Err != nil {
			t.Errorf("got %v, want none", r.Err)
		}
	}
	if got := count.Hits(); got != 2 {
		t.Errorf("requests for %d partitions: got %d, want one Produce and one ListOffsets", partitions, got)
	}
}

func TestRequestBytesMaxSpreadsPartitionsOverRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onKfake(t), nil)
	const partitions = 6
	topic := w.part.Topic + ".many"
	w.k.CreateTopic(t, topic, partitions, nil)
	id := topicID(t, w.client, topic)
	a := w.appender(func(c *Config) { c.BatchBytesMax, c.RequestBytesMax = 10_000, 20_000 })
	f := newFates(t)
	first := w.claim(a)
	var writers []*Writer
	for p := range int32(partitions) {
		part := Partition{Topic: topic, TopicID: id, Partition: p, TransactionalID: fmt.Sprint(topic, p)}
		writer, err := a.Claim(w.ctx, part, w.info, LastClaim{}, nil)
		if err != nil {
			t.Fatalf("Claim: %v", err)
		}
		writers = append(writers, writer)
	}
	count := w.k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Observe: true, Count: -1})
	hold := w.holdProduce()
	first.Append(eventOf("held"), f.done)
	first.Flush()
	<-hold.arrived
	for _, writer := range writers {
		writer.Append([]Record{{Value: make([]byte, 9800)}}, f.done)
		writer.Flush()
	}
	close(hold.open)
	for range partitions + 1 {
		if r := f.next(); r.Err != nil {
			t.Errorf("got %v, want none", r.Err)
		}
	}
	if got := count.Hits(); got != 3 {
		t.Errorf("requests for 6 batches of 10 kB, 20 kB a request: got %d, want 3", got)
	}
}

func TestW3KeepaliveIsHeadersOnlyUnderTheOwnSequence(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		f := newFates(t)
		writer.AppendKeepalive(f.done)
		writer.Flush()
		if r := f.next(); r.Err != nil || r.Offset != 1 {
			t.Fatalf("keep-alive: got %+v, want offset 1", r)
		}
		mustWrite(t, writer, "a", 2)
		keepalive := w.log()[1]
		r := keepalive.Records[0]
		if keepalive.Claim != writer.Held() || keepalive.Seq != 1 || r.Key != nil || r.Value != nil || control(r.Headers) != event.ControlKeepalive {
			t.Errorf("keep-alive: got %+v, want the writer's producer, sequence 1, null key and value", keepalive)
		}
	})
}

func TestW5ContiguityLost(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		mustWrite(t, writer, "a", 1)
		stranger := k.Client(t, kgo.DisableIdempotentWrite(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err := stranger.ProduceSync(w.ctx, &kgo.Record{Topic: w.part.Topic, Value: []byte("stranger")}).FirstErr(); err != nil {
			t.Fatalf("stranger: %v", err)
		}
		r := write(t, writer, "b")
		if !errors.Is(r.Err, ErrLost) || !strings.Contains(r.Err.Error(), "offset 3, expected 2") {
			t.Errorf("append behind a stranger: got %v, want ErrLost that names offsets 3 and 2", r.Err)
		}
		if r := write(t, writer, "c"); !errors.Is(r.Err, ErrLost) {
			t.Errorf("append of a dead writer: got %v, want ErrLost", r.Err)
		}
		wantLog(t, w, "<claim>", "a", "stranger", "b")
	})
}

func TestW15ProofIsTheAcknowledgementOfWhatGathers(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		f := newFates(t)
		writer.Append(eventOf("a"), f.done)
		writer.Prove(f.proof)
		writer.Append(eventOf("b"), f.done)
		writer.Prove(f.proof)
		writer.Flush()
		for range 4 {
			if r := f.next(); r.Err != nil {
				t.Errorf("got %v, want no error", r.Err)
			}
		}
		wantLog(t, w, "<claim>", "a", "b")
	})
}

func TestW15IdleWriterProvesItselfByAKeepalive(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		f := newFates(t)
		for range 3 {
			writer.Prove(f.proof)
		}
		writer.Flush()
		for range 3 {
			if r := f.next(); r.Err != nil {
				t.Errorf("proof: got %v, want none", r.Err)
			}
		}
		mustWrite(t, writer, "a", 2)
		wantLog(t, w, "<claim>", "<keepalive>", "a")
	})
}

func TestW15FencedWriterProvesNothing(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		for _, list := range []bool{false, true} {
			w := newWorld(t, k, nil)
			writer := w.claim(w.appender(func(c *Config) { c.ProveByListOffsets = list }))
			w.claim(w.appender())
			f := newFates(t)
			writer.Prove(f.proof)
			writer.Flush()
			if r := f.next(); r.Err == nil {
				t.Errorf("proof of a fenced writer, by ListOffsets %v: got nil, want an error", list)
			}
			wantLog(t, w, "<claim>", "<claim>")
		}
	})
}

func TestW15IdleWriterProvesItselfByTheEndOfTheLog(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender(func(c *Config) { c.ProveByListOffsets = true }))
		mustWrite(t, writer, "a", 1)
		f := newFates(t)
		writer.Prove(f.proof)
		writer.Prove(f.proof)
		writer.Flush()
		for range 2 {
			if r := f.next(); r.Err != nil {
				t.Errorf("proof: got %v, want none", r.Err)
			}
		}
		wantLog(t, w, "<claim>", "a")
		mustWrite(t, writer, "b", 2)
	})
}

func TestW17MessageTooLargeUsesNoSequence(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, map[string]string{"max.message.bytes": "2000"})
		writer := w.claim(w.appender())
		mustWrite(t, writer, "a", 1)
		f := newFates(t)
		writer.Append([]Record{{Value: make([]byte, 4000)}}, f.done)
		writer.Append(eventOf("behind"), f.done)
		writer.Prove(f.proof)
		writer.Flush()
		for i := range 3 {
			if r := f.next(); !errors.Is(r.Err, ErrRefused) {
				t.Errorf("answer %d: got %v, want ErrRefused", i, r.Err)
			}
		}
		if err := writer.Err(); err != nil {
			t.Fatalf("a refusal ended the writer: %v", err)
		}
		writer.Resume()
		mustWrite(t, writer, "b", 2)
		wantLog(t, w, "<claim>", "a", "b")
		if got := w.log()[2].Seq; got != 2 {
			t.Errorf("sequence after the refusal: got %d, want 2", got)
		}
	})
}

// Without the barrier an entry that was decided on refused state would be stored: its caller has
// not read the refusal yet.
func TestW17WhatIsAppendedBehindARefusalIsRefusedUntilResume(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, map[string]string{"max.message.bytes": "2000"})
		writer := w.claim(w.appender())
		if r := write(t, writer, strings.Repeat("x", 4000)); !errors.Is(r.Err, ErrRefused) || !errors.Is(r.Err, kerr.MessageTooLarge) {
			t.Fatalf("large entry: got %v, want ErrRefused by MESSAGE_TOO_LARGE", r.Err)
		}
		f := newFates(t)
		writer.Append(eventOf("stale"), f.done)
		writer.Prove(f.proof)
		writer.AppendKeepalive(f.done)
		for i := range 3 {
			if r := f.next(); !errors.Is(r.Err, ErrRefused) {
				t.Errorf("answer %d before Resume: got %v, want ErrRefused", i, r.Err)
			}
		}
		writer.Resume()
		mustWrite(t, writer, "a", 1)
	})
}

func TestW17EntryAboveTheBatchLimitIsRefusedUnsent(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender(func(c *Config) { c.BatchBytesMax = 1024 }))
		f := newFates(t)
		writer.Append(eventOf("a"), f.done)
		writer.Append([]Record{{Value: make([]byte, 600)}, {Value: make([]byte, 600)}}, f.done)
		writer.Append(eventOf("stale"), f.done)
		writer.Flush()
		if r := f.next(); r.Err != nil || r.Offset != 1 {
			t.Errorf("entry before the large one: got %+v, want offset 1", r)
		}
		if r := f.next(); !errors.Is(r.Err, ErrTooLarge) || !errors.Is(r.Err, ErrRefused) {
			t.Errorf("large entry: got %v, want ErrTooLarge", r.Err)
		}
		if r := f.next(); !errors.Is(r.Err, ErrRefused) {
			t.Errorf("entry behind the large one: got %v, want ErrRefused", r.Err)
		}
		writer.Resume()
		mustWrite(t, writer, "b", 2)
		writer.Append(nil, f.done)
		if r := f.next(); !errors.Is(r.Err, ErrRefused) {
			t.Errorf("entry without records: got %v, want ErrRefused", r.Err)
		}
		wantLog(t, w, "<claim>", "a", "b")
	})
}

func TestW17InvalidTimestampIsRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		if k.Name == testkit.Kfake {
			t.Log("this broker takes any time")
			return
		}
		w := newWorld(t, k, map[string]string{"message.timestamp.type": "CreateTime"})
		writer := w.claim(w.appender())
		f := newFates(t)
		writer.Append([]Record{{Value: []byte("future"), Time: time.Now().Add(3 * time.Hour)}}, f.done)
		writer.Flush()
		if r := f.next(); !errors.Is(r.Err, ErrRefused) || !errors.Is(r.Err, kerr.InvalidTimestamp) {
			t.Fatalf("entry of the future: got %v, want ErrRefused by INVALID_TIMESTAMP", r.Err)
		}
		writer.Resume()
		mustWrite(t, writer, "a", 1)
	})
}

func TestW17NullKeyOnACompactedTopicIsRefused(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		if k.Name == testkit.Kfake {
			t.Log("this broker takes records without a key")
			return
		}
		w := newWorld(t, k, compacted)
		writer := w.claim(w.appender())
		f := newFates(t)
		writer.Append([]Record{{Value: []byte("no key")}}, f.done)
		writer.Flush()
		if r := f.next(); !errors.Is(r.Err, ErrRefused) || !errors.Is(r.Err, kerr.InvalidRecord) {
			t.Errorf("entry without a key: got %v, want ErrRefused by INVALID_RECORD", r.Err)
		}
	})
}

func TestW9RecreatedTopicIsLost(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, k *testkit.Kafka) {
		w := newWorld(t, k, nil)
		writer := w.claim(w.appender())
		mustWrite(t, writer, "a", 1)
		w.recreate()
		r := write(t, writer, "b")
		if !errors.Is(r.Err, ErrLost) {
			t.Errorf("append to a recreated topic: got %v, want ErrLost", r.Err)
		}
		if end := w.end(); end != 0 {
			t.Errorf("end of the new topic: got %d, want 0", end)
		}
	})
}

// recreate deletes the topic and creates it anew.
func (w *world) recreate() {
	w.t.Helper()
	req := kmsg.NewPtrDeleteTopicsRequest()
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic, rt.TopicID = nil, w.part.TopicID
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = 5000
	if _, err := req.RequestWith(w.ctx, w.client); err != nil {
		w.t.Fatalf("delete topic: %v", err)
	}
	former := w.part.TopicID
	for w.ctx.Err() == nil {
		if err := tryCreate(w, w.part.Topic); err == nil {
			break
		}
	}
	for topicID(w.t, w.client, w.part.Topic) == former {
		time.Sleep(5 * time.Millisecond)
	}
}
