package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// Per partition; twelve partitions make 2,400 commands a second.
	probeInterval = 5 * time.Millisecond
	probeStreams  = 50 // per partition
	probeDrainMax = 20 * time.Second
)

// probe is a steady client: to each partition a command at each interval, whatever was answered
// before. It remembers of each command when it was sent and of each partition how long the accepted
// replies paused.
type probe struct {
	ns       string
	producer *kgo.Client
	replies  *replies
	value    []byte
	keys     [benchPartitions][][]byte
	stopped  chan struct{}
	sending  sync.WaitGroup
	reading  sync.WaitGroup

	mu       sync.Mutex
	next     int
	asked    map[string]asked
	outcomes map[string]int // first answers, by outcome
	accepted [benchPartitions]time.Time
	pause    [benchPartitions]time.Duration
	mark     time.Time // commands sent from here on count for marked
	marked   [benchPartitions]time.Time
	failed   error
}

// asked is a command without an answer.
type asked struct {
	partition int32
	at        time.Time
}

func (b *bench) startProbe(ns string) (*probe, error) {
	registry, err := benchRegistry()
	if err != nil {
		return nil, err
	}
	p := &probe{ns: ns, stopped: make(chan struct{}), asked: map[string]asked{}, outcomes: map[string]int{}}
	if p.value, err = b.commandValue(registry); err != nil {
		return nil, err
	}
	p.findKeys()
	if p.producer, err = kgo.NewClient(b.opts(kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))...); err != nil {
		return nil, err
	}
	if p.replies, err = b.readReplies(ns, registry); err != nil {
		return nil, err
	}
	p.reading.Go(func() { p.replies.each(p.take, p.fail) })
	p.sending.Go(p.send)
	return p, nil
}

// findKeys picks streams for each partition.
func (p *probe) findKeys() {
	for n, missing := 0, benchPartitions*probeStreams; missing > 0; n++ {
		key := []byte("probe-" + strconv.Itoa(n))
		partition := topics.Partition(key, benchPartitions)
		if len(p.keys[partition]) < probeStreams {
			p.keys[partition] = append(p.keys[partition], key)
			missing--
		}
	}
}

func (p *probe) send() {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-p.stopped:
			return
		case <-tick.C:
		}
		for partition := range int32(benchPartitions) {
			p.ask(partition)
		}
	}
}

func (p *probe) ask(partition int32) {
	now := time.Now()
	p.mu.Lock()
	id := strconv.Itoa(p.next)
	key := p.keys[partition][p.next/benchPartitions%probeStreams]
	p.next++
	p.asked[id] = asked{partition, now}
	p.mu.Unlock()
	rec := &kgo.Record{Topic: topics.Commands(p.ns, benchCategory), Key: key, Value: p.value, Headers: headers(
		event.HeaderID, id, event.HeaderType, benchCommand, event.HeaderTime, now.UTC().Format(time.RFC3339Nano), event.HeaderReplyTo, topics.Replies(p.ns))}
	p.producer.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err != nil {
			p.fail(fmt.Errorf("command not sent: %w", err))
		}
	})
}

func (p *probe) fail(err error) {
	p.mu.Lock()
	if p.failed == nil {
		p.failed = err
	}
	p.mu.Unlock()
}

// take counts the first answer to a command.
func (p *probe) take(reply codec.Reply, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, waiting := p.asked[reply.RequestID]
	if !waiting {
		return // answered before: replies leave at least once
	}
	delete(p.asked, reply.RequestID)
	p.outcomes[reply.Outcome]++
	if reply.Outcome != string(engine.OutcomeAccepted) {
		return
	}
	if before := p.accepted[a.partition]; !before.IsZero() {
		p.pause[a.partition] = max(p.pause[a.partition], now.Sub(before))
	}
	p.accepted[a.partition] = now
	if !p.mark.IsZero() && !a.at.Before(p.mark) && p.marked[a.partition].IsZero() {
		p.marked[a.partition] = now
	}
}

// setMark begins to note, per partition, the first accepted reply to a command sent from now on.
func (p *probe) setMark() {
	p.mu.Lock()
	p.mark, p.marked = time.Now(), [benchPartitions]time.Time{}
	p.mu.Unlock()
}

// firstMarked is when the last of these partitions had its first accepted reply since the mark.
func (p *probe) firstMarked(partitions []int32) (last time.Time, all bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, partition := range partitions {
		at := p.marked[partition]
		if at.IsZero() {
			return time.Time{}, false
		}
		if at.After(last) {
			last = at
		}
	}
	return last, true
}

// awaitAll waits until every partition has accepted something, then begins to measure pauses.
func (p *probe) awaitAll(b *bench, limit time.Duration) error {
	p.setMark()
	every := make([]int32, benchPartitions)
	for i := range every {
		every[i] = int32(i)
	}
	if _, err := p.awaitMarked(b, every, limit); err != nil {
		return err
	}
	p.mu.Lock()
	p.pause = [benchPartitions]time.Duration{}
	p.mu.Unlock()
	return nil
}

func (p *probe) awaitMarked(b *bench, partitions []int32, limit time.Duration) (time.Time, error) {
	deadline := time.Now().Add(limit)
	for {
		if last, all := p.firstMarked(partitions); all {
			return last, nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("a partition accepted nothing within %s", limit)
		}
		if err := b.pause(childPoll); err != nil {
			return time.Time{}, err
		}
	}
}

// probed is what a probe saw in all.
type probed struct {
	pause      time.Duration // the longest of a partition
	outcomes   map[string]int
	unanswered int
}

// stop sends no more, waits for the answers that are missing, and says what was seen.
func (p *probe) stop() (probed, error) {
	close(p.stopped)
	p.sending.Wait()
	deadline := time.Now().Add(probeDrainMax)
	for p.waiting() > 0 && time.Now().Before(deadline) {
		time.Sleep(childPoll)
	}
	p.producer.Close()
	p.replies.close()
	p.reading.Wait()
	seen := probed{outcomes: p.outcomes, unanswered: len(p.asked)}
	for _, pause := range p.pause {
		seen.pause = max(seen.pause, pause)
	}
	return seen, p.failed
}

func (p *probe) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}
