package appender

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

const benchPartitions = 12

// BenchmarkAppend is the appender beside kgo's idempotent producer: the same records, partitions,
// acks and callers, each of which waits for its answer. Put TMPDIR on a tmpfs to leave the disk
// out of it.
func BenchmarkAppend(b *testing.B) {
	k := testkit.StartKafkaJVM(b, testkit.ForThroughput())
	client := k.Client(b)
	value := make([]byte, 200)
	headers := []event.Header{
		{Key: "ce_id", Value: []byte("0190e2b0-7c1c-7b5a-8c5e-0123456789ab")},
		{Key: "ce_type", Value: []byte("order.Placed")},
		{Key: "ce_sequence", Value: []byte("12")},
	}
	for _, callers := range []int{1, 16, 128, 1024} {
		for round := range 5 {
			topic := testkit.Namespace(b) + ".events"
			k.CreateTopic(b, topic, benchPartitions, map[string]string{"retention.bytes": "50000000"})
			id := topicID(b, client, topic)
			b.Run(fmt.Sprintf("appender/%d/%d", callers, round), func(b *testing.B) {
				benchAppender(b, k.Kafka, topic, id, callers, value, headers)
			})
			b.Run(fmt.Sprintf("kgo/%d/%d", callers, round), func(b *testing.B) {
				benchKgo(b, k.Kafka, topic, callers, value, headers)
			})
		}
	}
}

func benchAppender(b *testing.B, k *testkit.Kafka, topic string, id [16]byte, callers int, value []byte, headers []event.Header) {
	a, err := New(Config{Opts: []kgo.Opt{kgo.SeedBrokers(k.Seeds()...)}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	type locked struct {
		sync.Mutex
		*Writer
	}
	writers := make([]*locked, benchPartitions)
	for i := range writers {
		w, err := a.Claim(context.Background(), Partition{Topic: topic, TopicID: id, Partition: int32(i), TransactionalID: fmt.Sprint(topic, i)}, ClaimInfo{}, LastClaim{}, nil)
		if err != nil {
			b.Fatal(err)
		}
		writers[i] = &locked{Writer: w}
	}
	spread(b, callers, func(caller, ops int) {
		w := writers[caller%benchPartitions]
		done := make(chan Result, 1)
		tell := func(r Result) { done <- r }
		records := []Record{{Key: []byte("some-key"), Value: value, Headers: headers}}
		for range ops {
			w.Lock()
			w.Append(records, tell)
			w.Flush()
			w.Unlock()
			if r := <-done; r.Err != nil {
				b.Error(r.Err)
				return
			}
		}
	})
}

func benchKgo(b *testing.B, k *testkit.Kafka, topic string, callers int, value []byte, headers []event.Header) {
	client := k.Client(b, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	defer client.Close()
	client.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: value})
	spread(b, callers, func(caller, ops int) {
		for range ops {
			r := &kgo.Record{Partition: int32(caller % benchPartitions), Key: []byte("some-key"), Value: value, Headers: headers}
			if err := client.ProduceSync(context.Background(), r).FirstErr(); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// spread has b.N operations done by the callers, and reports them a second.
func spread(b *testing.B, callers int, run func(caller, ops int)) {
	b.ReportAllocs()
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	b.ResetTimer()
	var all sync.WaitGroup
	for c := range callers {
		ops := b.N / callers
		if c < b.N%callers {
			ops++
		}
		all.Go(func() { run(c, ops) })
	}
	all.Wait()
	b.StopTimer()
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
}
