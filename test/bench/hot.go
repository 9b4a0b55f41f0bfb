package main

import (
	"fmt"
	"time"
)

const hotInFlight = 128

// hot measures one stream that takes every command beside many streams, command → reply on the same
// engine: a hot stream is serial, but its commands share batches, so that it is not bound by round
// trips.
func (b *bench) hot() error {
	registry, err := benchRegistry()
	if err != nil {
		return err
	}
	value, err := b.commandValue(registry)
	if err != nil {
		return err
	}
	layout := benchLayout("hot")
	if err := b.createTopics(layout); err != nil {
		return err
	}
	defer b.removeTopics(layout)
	stop, err := b.startEngine(layout.Namespace, registry, engineSetup{})
	if err != nil {
		return err
	}
	defer stop()
	l, err := newLoad(b, layout.Namespace, value)
	if err != nil {
		return err
	}
	defer l.close()
	ways := []struct {
		name    string
		streams int64
	}{{"hot", 1}, {"many", loadStreams}}
	for run := range b.options.runs + 1 { // the first warms up
		for _, way := range ways {
			l.streams = way.streams
			n, perS, p50, p99, err := l.run(b.ctx, hotInFlight, max(b.options.duration, time.Second))
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			if run > 0 {
				b.record(result{Bench: "hot", System: way.name, InFlight: hotInFlight, Run: run, PerS: perS, P50Ms: p50, P99Ms: p99, Count: n})
			}
		}
	}
	return nil
}
