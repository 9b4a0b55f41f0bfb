package appender

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/foldstream/foldstream/internal/testkit"
)

// load appends numbered entries until it is stopped, and checks every answer: each is
// acknowledged, and stands right behind the one before.
type load struct {
	t      *testing.T
	writer *Writer
	stop   chan struct{}
	ended  chan struct{}
	given  int
	acked  atomic.Int64
	failed atomic.Bool // told once
}

func startLoad(t *testing.T, w *Writer) *load {
	l := &load{t: t, writer: w, stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		next := w.NextOffset()
		for {
			select {
			case <-l.stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
			if entries, _ := w.Waiting(); entries > 2000 {
				continue
			}
			want := next + int64(l.given)
			l.writer.Append(eventOf(fmt.Sprint(l.given)), func(r Result) {
				if (r.Err != nil || r.Offset != want) && !l.failed.Swap(true) {
					t.Errorf("entry for offset %d: got %+v", want, r)
				}
				l.acked.Add(1)
			})
			l.writer.Flush()
			l.given++
		}
	}()
	return l
}

// progress waits until n more entries are acknowledged.
func (l *load) progress(what string, n int64) {
	l.t.Helper()
	from := l.acked.Load()
	waitFor(l.t, what, func() bool { return l.acked.Load() >= from+n })
}

func (l *load) end() int {
	l.t.Helper()
	close(l.stop)
	<-l.ended
	waitFor(l.t, "the last answer", func() bool { return int(l.acked.Load()) == l.given })
	return l.given
}

// The broker is killed and started again while a writer writes: it goes on under its claim, and
// each entry stands in the log once, where it was told.
func TestBrokerKillsKeepTheWriter(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	k := testkit.StartKafkaJVM(t, testkit.ForCrashes())
	w := newWorld(t, k.Kafka, nil)
	seen := &retries{}
	writer := w.claim(w.appender(func(c *Config) { c.Observe = seen }))
	l := startLoad(t, writer)
	for range 3 {
		l.progress("progress before the kill", 100)
		k.Kill()
		k.Restart()
	}
	l.progress("progress after the kills", 100)
	w.client = k.Client(t)
	w.wantNumbered(l.end())
	if seen.count.Load() == 0 {
		t.Error("no batch was retried: the kills met nothing under way")
	}
}

// The broker stands still for longer than a request may take, with a batch under way: it is sent
// again on another connection, and when the broker goes on it meets both.
func TestBrokerPausesKeepTheWriter(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		return
	}
	k := testkit.StartKafkaJVM(t)
	w := newWorld(t, k.Kafka, nil)
	seen := &retries{}
	writer := w.claim(w.appender(func(c *Config) {
		c.Observe = seen
		c.ProduceTimeout = 100 * time.Millisecond
	}))
	l := startLoad(t, writer)
	l.progress("progress before the pause", 100)
	k.Pause()
	waitFor(t, "a request to run out of time", func() bool { return seen.count.Load() >= 1 })
	k.Resume()
	l.progress("progress after the pause", 100)
	w.wantNumbered(l.end())
}

// wantNumbered checks that the log is the claim and the numbers below n, once each, in order.
func (w *world) wantNumbered(n int) {
	w.t.Helper()
	got := w.values()
	if len(got) != n+1 {
		w.t.Errorf("log: got %d records, want the claim and %d entries", len(got), n)
		return
	}
	for i, v := range got[1:] {
		if v != fmt.Sprint(i) {
			w.t.Errorf("offset %d: got %q, want %d", i+1, v, i)
			return
		}
	}
}
