package harness

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Step is one fault of a schedule.
type Step struct {
	At     time.Duration `json:"at_ns"` // since the load began
	Kind   string        `json:"kind"`
	Target int           `json:"target"` // which instance, partition or category, by the kind
	For    time.Duration `json:"for_ns"` // how long it lasts
	Value  string        `json:"value,omitempty"`
}

func (s Step) String() string {
	text := fmt.Sprintf("%s %s", s.At.Round(time.Millisecond), s.Kind)
	if s.Value != "" {
		text += " " + s.Value
	}
	return fmt.Sprintf("%s target %d for %s", text, s.Target, s.For.Round(time.Millisecond))
}

// Streams of random numbers, one for each purpose, so that a change to one leaves the others.
const (
	purposeSchedule uint64 = iota + 1
	purposeLoad
	purposeNamespace
)

func random(seed int64, purpose uint64) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(seed), purpose))
}

// between draws a duration.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1))
}

// spread draws steps one after the other: pauses of gap between them, until the load is over.
// Each step is drawn by draw, which says how long it lasts.
func spread(r *rand.Rand, duration, gapMin, gapMax time.Duration, draw func(r *rand.Rand) Step) []Step {
	var steps []Step
	at := between(r, gapMin/2, gapMax/2) + warmUp
	for at < duration {
		s := draw(r)
		s.At = at
		steps = append(steps, s)
		at += s.For + between(r, gapMin, gapMax)
	}
	return steps
}

// warmUp is left alone, so that the first fault meets services at work.
const warmUp = 500 * time.Millisecond
