package service

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Bounds of what the garbage collector is told, and of when it is told anew.
const (
	garbageBytesMin     = 64 << 20
	collectorInterval   = 200 * time.Millisecond
	collectorPercentMin = 10
	collectorPercentMax = 100 // Go's default
	collectorStep       = 5
)

// TuneCollector keeps a process small that holds much memory without pointers, as the writer's
// streams are, until ctx ends. Go lets the heap double before it collects, because it counts the
// work by what lives; but what has no pointers costs the collector next to nothing. So the room for
// garbage is here as much as there is to scan, and at least 64 MiB: with 500 MB of streams at rest
// the heap stays below 570 MB instead of growing to 1 GB.
//
// It sets the percentage of the whole process, so only a program's main part may run it. With GOGC
// set in the environment it leaves the collector alone. It always returns nil.
func TuneCollector(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	before := debug.SetGCPercent(collectorPercentMax)
	defer debug.SetGCPercent(before)
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/heap:bytes"}}
	told := collectorPercentMax
	tick := time.NewTicker(collectorInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		percent := collectorPercent(samples[0].Value.Uint64(), samples[1].Value.Uint64())
		if percent >= told+collectorStep || percent <= told-collectorStep {
			debug.SetGCPercent(percent)
			told = percent
		}
	}
}

// collectorPercent is the room for garbage in percent of what lives.
func collectorPercent(live, scannable uint64) int {
	room := max(scannable, garbageBytesMin)
	return int(min(max(100*room/max(live, 1), collectorPercentMin), collectorPercentMax))
}
