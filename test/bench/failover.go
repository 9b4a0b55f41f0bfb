package main

import (
	"fmt"
	"time"
)

const (
	childServesMax = 30 * time.Second
	failoverMax    = 60 * time.Second // give up
	handoverHold   = 2 * time.Second  // of load before the first and after each step
)

// failover kills (SIGKILL) one of two instances under a steady load and measures until each of its
// partitions has accepted a command again. Only commands sent after the death count, so that a
// reply of the dead that was still on its way does not.
func (b *bench) failover() error {
	return b.eachLongRun("failover", func(run int, ns string) error {
		a, other, p, err := b.startPair(ns)
		defer stopAll(a, other)
		if err != nil {
			return err
		}
		partitions := a.serves()
		killed := time.Now()
		a.kill()
		p.setMark()
		accepted, err := p.awaitMarked(b, partitions, failoverMax)
		if err != nil {
			return err
		}
		seen, err := p.stop()
		if err != nil {
			return err
		}
		b.measure("failover", "first accepted command", "s", run, accepted.Sub(killed).Seconds())
		b.measure("failover", "commands without an answer", "commands", run, float64(seen.unanswered))
		b.say("failover: %d partitions, outcomes %v", len(partitions), seen.outcomes)
		return nil
	})
}

// handover restarts two instances under a steady load, one after the other, by SIGTERM and a new
// start, and measures the longest time in which a partition accepted nothing.
func (b *bench) handover() error {
	return b.eachLongRun("handover", func(run int, ns string) error {
		first, second, p, err := b.startPair(ns)
		defer func() { stopAll(first, second) }()
		if err != nil {
			return err
		}
		if first, err = b.restartChild(first, second, ns); err != nil {
			return err
		}
		if second, err = b.restartChild(second, first, ns); err != nil {
			return err
		}
		seen, err := p.stop()
		if err != nil {
			return err
		}
		b.measure("handover", "longest pause", "s", run, seen.pause.Seconds())
		b.measure("handover", "unknown outcomes", "commands", run, float64(seen.outcomes["unknown"]))
		b.measure("handover", "commands without an answer", "commands", run, float64(seen.unanswered))
		b.say("handover: outcomes %v", seen.outcomes)
		return nil
	})
}

// eachLongRun gives each run a namespace of its own.
func (b *bench) eachLongRun(name string, once func(run int, ns string) error) error {
	for run := 1; run <= b.options.longRuns; run++ {
		layout := benchLayout(fmt.Sprintf("%s%d", name, run))
		if err := b.createTopics(layout); err != nil {
			return err
		}
		err := once(run, layout.Namespace)
		b.removeTopics(layout)
		if err != nil {
			return fmt.Errorf("run %d: %w", run, err)
		}
	}
	return nil
}

// startPair starts two instances that share the partitions, and a steady load on all of them.
func (b *bench) startPair(ns string) (one, two *child, p *probe, err error) {
	if one, err = b.startChild("one", ns); err != nil {
		return nil, nil, nil, err
	}
	if two, err = b.startChild("two", ns); err != nil {
		return one, nil, nil, err
	}
	if err = b.awaitServing(childServesMax, one, two); err != nil {
		return one, two, nil, err
	}
	if p, err = b.startProbe(ns); err != nil {
		return one, two, nil, err
	}
	if err = p.awaitAll(b, childServesMax); err != nil {
		return one, two, p, err
	}
	return one, two, p, b.pause(handoverHold)
}

// restartChild is one step of a rolling restart.
func (b *bench) restartChild(old, other *child, ns string) (*child, error) {
	if err := old.stop(); err != nil {
		return old, err
	}
	if err := b.awaitServing(childServesMax, other); err != nil {
		return old, err
	}
	fresh, err := b.startChild(old.name, ns)
	if err != nil {
		return old, err
	}
	if err := b.awaitServing(childServesMax, fresh, other); err != nil {
		return fresh, err
	}
	return fresh, b.pause(handoverHold)
}

func stopAll(children ...*child) {
	for _, c := range children {
		if c != nil {
			c.kill()
		}
	}
}
