package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

// engineInFlight is the depth of the engine bench.
const engineInFlight = 128

// engineInMemory measures appends of one event from goroutines that each wait for theirs: the engine
// in memory (Submit: versions, idempotence, fencing, snapshots), and the appender alone, which
// writes records of the same bytes to the same partitions and knows nothing of streams.
func (b *bench) engineInMemory() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	value, err := b.eventValue(registry)
	if err != nil {
		return err
	}
	submit, stop, err := b.startInMemory("memory", registry, value)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.createTopics(benchLayout("alone")); err != nil {
		return err
	}
	writers, stopWriters, err := b.claimAll("alone")
	if err != nil {
		return err
	}
	defer stopWriters()
	systems := []struct {
		name  string
		write func(worker, n int) error
	}{
		{"engine", submit},
		{"appender", appendLikeTheEngine(writers, value)},
	}
	for _, s := range systems { // warm-up
		if _, _, err := b.spin(engineInFlight, time.Second, s.write); err != nil {
			return err
		}
	}
	for run := range b.options.runs {
		for _, s := range systems {
			if !b.options.wants(s.name) {
				continue
			}
			used := cpuTime()
			n, took, err := b.spin(engineInFlight, b.options.duration, s.write)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			b.record(result{
				Bench: "engine", System: s.name, InFlight: engineInFlight, Run: run + 1, PerS: float64(n) / took.Seconds(),
				P50Ms: took.Seconds() * 1000 * engineInFlight / float64(max(n, 1)), Count: n,
				CPUMicros: float64((cpuTime() - used).Microseconds()) / float64(max(n, 1)),
			})
		}
	}
	return nil
}

// startInMemory starts an engine and returns one append to it.
func (b *bench) startInMemory(ns string, registry codec.Reader, value []byte) (submit func(worker, n int) error, stop func(), err error) {
	e, stop, err := b.startAppendMode(ns, registry)
	if err != nil {
		return nil, nil, err
	}
	var next atomic.Int64
	return func(_, _ int) error {
		n := next.Add(1)
		outcome, err := e.Submit(b.ctx, engine.Submission{
			Category: benchCategory, StreamID: streamOf(n), Value: value,
			Request: event.Request{ID: "request-" + strconv.FormatInt(n, 10), Type: benchEvent, Time: time.Now().UTC()},
		})
		if err == nil && outcome.Kind != engine.OutcomeAccepted {
			err = fmt.Errorf("outcome %s: %s", outcome.Kind, outcome.Message)
		}
		return err
	}, stop, nil
}

// startAppendMode starts an engine whose one category is in append mode.
func (b *bench) startAppendMode(ns string, registry codec.Reader) (*engine.Engine, func(), error) {
	layout := benchLayout(ns)
	layout.Categories[0].Mode = topics.ModeAppend
	if err := b.createTopics(layout); err != nil {
		return nil, nil, err
	}
	e, err := engine.New(b.ctx, engine.Config{
		Namespace: ns, Categories: []engine.Category{{Name: benchCategory}}, Kafka: b.opts(), Registry: registry, Logger: b.log,
	})
	if err != nil {
		return nil, nil, err
	}
	stop, err := b.runEngine(e)
	return e, stop, err
}

// runEngine returns when the engine serves all partitions.
func (b *bench) runEngine(e *engine.Engine) (stop func(), err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	deadline := time.Now().Add(30 * time.Second)
	for len(e.Owned()[benchCategory]) < benchPartitions {
		if time.Now().After(deadline) {
			cancel()
			return nil, fmt.Errorf("the engine does not serve after 30 s: %w", e.Ready())
		}
		time.Sleep(20 * time.Millisecond)
	}
	return sync.OnceFunc(func() { cancel(); <-done }), nil
}

// eventValue is the payload of every event of the benches.
func (b *bench) eventValue(registry codec.Reader) ([]byte, error) {
	binding, err := codec.New(registry, codec.Config{}).Bind(b.ctx, counterDecider.Types[1])
	if err != nil {
		return nil, err
	}
	return binding.Append(nil, counted{By: 1, Note: benchNote})
}

// streamOf spreads the requests over the streams, and so over the partitions.
func streamOf(n int64) string { return "stream-" + strconv.FormatInt(n*7919%loadStreams, 10) }

// appendLikeTheEngine writes records of the keys and partitions of the engine's events, with headers
// of the same names and lengths.
func appendLikeTheEngine(writers []*lockedWriter, value []byte) func(worker, n int) error {
	const request = "request-1234567"
	h := headers(event.HeaderID, request, event.HeaderType, benchEvent, event.HeaderSource, "/memory/"+benchCategory, event.HeaderSpecVersion, event.SpecVersion,
		event.HeaderTime, time.Now().UTC().Format(time.RFC3339Nano), event.HeaderSubject, "stream-1234", event.HeaderContentType, event.ContentTypeAvro,
		event.HeaderSequence, "123", event.HeaderCorrelationID, request, event.HeaderCausationID, request, event.HeaderCommandID, request,
		event.HeaderCommandHash, hex.EncodeToString(make([]byte, 16)))
	var next atomic.Int64
	return func(_, _ int) error {
		key := []byte(streamOf(next.Add(1)))
		return writers[topics.Partition(key, benchPartitions)].appendRecord(appender.Record{Key: key, Value: value, Headers: h, Time: time.Now()})
	}
}
