package main

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

// appenderAlone measures appends of 200 bytes from goroutines that each wait for theirs: the
// appender, in memory, beside kgo's idempotent producer (ProduceSync).
func (b *bench) appenderAlone() error {
	if err := b.createTopics(benchLayout("append")); err != nil {
		return err
	}
	if err := b.createTopics(benchLayout("produce")); err != nil {
		return err
	}
	writers, stop, err := b.claimAll("append")
	if err != nil {
		return err
	}
	defer stop()
	producer, err := kgo.NewClient(b.opts(kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return err
	}
	defer producer.Close()
	value := make([]byte, 200)
	systems := []struct {
		name  string
		write func(worker, n int) error
	}{
		{"foldstream", func(worker, n int) error { return writers[n%benchPartitions].append(worker, value) }},
		{"bare", func(worker, n int) error {
			rec := &kgo.Record{Topic: topics.Events("produce", benchCategory), Partition: int32(n % benchPartitions), Key: []byte("stream-" + strconv.Itoa(worker)), Value: value}
			return producer.ProduceSync(b.ctx, rec).FirstErr()
		}},
	}
	for _, s := range systems { // warm-up
		if _, _, err := b.spin(128, time.Second, s.write); err != nil {
			return err
		}
	}
	for run := range b.options.runs {
		for _, inFlight := range b.options.depths {
			for _, s := range systems {
				n, took, err := b.spin(inFlight, b.options.duration, s.write)
				if err != nil {
					return err
				}
				b.record(result{Bench: "appender", System: s.name, InFlight: inFlight, Run: run + 1, PerS: float64(n) / took.Seconds(),
					P50Ms: took.Seconds() * 1000 * float64(inFlight) / float64(max(n, 1)), Count: n})
			}
		}
	}
	return nil
}

// spin lets workers write one after the other, each waiting for its acknowledgement.
func (b *bench) spin(workers int, duration time.Duration, write func(worker, n int) error) (int, time.Duration, error) {
	var count atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	began := time.Now()
	for worker := range workers {
		wg.Go(func() {
			for n := worker; time.Since(began) < duration; n++ {
				if err := write(worker, n); err != nil {
					failed.Store(&err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return 0, 0, *err
	}
	return int(count.Load()), took, nil
}

// lockedWriter lets many goroutines share a writer, as an owner's mailbox does.
type lockedWriter struct {
	mu     sync.Mutex
	writer *appender.Writer
}

func (w *lockedWriter) append(worker int, value []byte) error {
	return w.appendRecord(appender.Record{Key: []byte("stream-" + strconv.Itoa(worker)), Value: value, Time: time.Now()})
}

func (w *lockedWriter) appendRecord(r appender.Record) error {
	done := make(chan error, 1)
	record := [1]appender.Record{r}
	w.mu.Lock()
	w.writer.Append(record[:], func(r appender.Result) { done <- r.Err })
	w.writer.Flush()
	w.mu.Unlock()
	return <-done
}

func (b *bench) claimAll(ns string) ([]*lockedWriter, func(), error) {
	a, err := appender.New(appender.Config{Opts: b.opts(), Logger: b.log})
	if err != nil {
		return nil, nil, err
	}
	topic := topics.Events(ns, benchCategory)
	infos, err := topics.IDs(b.ctx, b.admin, topic)
	if err != nil {
		return nil, nil, err
	}
	writers := make([]*lockedWriter, benchPartitions)
	for p := range writers {
		ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
		w, err := a.Claim(ctx, appender.Partition{
			Topic: topic, TopicID: infos[topic].ID, Partition: int32(p), TransactionalID: topics.TransactionalID(ns, benchCategory, int32(p)),
		}, appender.ClaimInfo{Group: "bench", Instance: "bench"}, appender.LastClaim{}, nil)
		cancel()
		if err != nil {
			return nil, nil, err
		}
		writers[p] = &lockedWriter{writer: w}
	}
	return writers, a.Close, nil
}
