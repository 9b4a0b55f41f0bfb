package client

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/topics"
)

// Mode says what a subscription does at the same time.
type Mode uint8

// The modes of a subscription.
const (
	// Sequential handles the events of one stream in order, one at a time; those of Workers streams
	// at the same time.
	Sequential Mode = iota
	// Parallel handles any Workers events at the same time.
	Parallel
)

// Handler handles one event of a subscription. It may be called from several goroutines, see Mode,
// and gets an event again when it failed or when the program ended before its checkpoint: it must
// be idempotent. ctx ends with the subscription, or when another member of the group takes the
// event's partition.
//
// An error is tried again as Subscription.Retry says, and then the event becomes a letter. What
// deadletter.Parked wraps becomes a letter at once; deadletter.Retried is tried until it passes;
// deadletter.Stopped ends the subscription. A panic is an error.
type Handler func(ctx context.Context, e Event) error

// Subscription is what Subscribe follows. The zero value of a field means its default.
type Subscription struct {
	// Name of the subscription, [a-z][a-z0-9_]{0,30}; the instances of one program share it. Over
	// Kafka its group is <ns>.sub.<Name>, its letters go to <ns>.dlq.sub.<Name>. Required.
	Name string
	// Category whose events are followed. Required.
	Category string
	// Types that are handed on, each with '*' for any text: "workflow.*". Default: all.
	Types []string
	// Users and Correlations that are handed on. Default: all.
	Users, Correlations []string
	// Handler gets the events. Required.
	Handler Handler

	// Mode is Sequential by default.
	Mode Mode
	// Workers is how many events are handled at the same time. Default 8.
	Workers int
	// QueueMax bounds the events that are fetched and not handled; when it is reached the fetch
	// pauses, until half of them are handled. Default 1,000.
	QueueMax int
	// Retry of the handler. Default: 5 times, after 100 ms, 200 ms, … up to 10 s.
	Retry Retry
	// CommitInterval is how often the place is stored. Default 1 s. Each event that was handled
	// since then is handled again after a crash.
	CommitInterval time.Duration
	// DrainTimeout is how long handlers that are under way may take when the subscription ends or
	// a partition is taken away; then their ctx ends. Default 10 s.
	DrainTimeout time.Duration

	// From is where to begin when there is no checkpoint. Default: FromStart.
	From From
	// Replay begins at From whatever the checkpoint says, and leaves the checkpoint alone: nothing
	// is committed, and over Kafka no group is joined.
	Replay bool
	// MoveCheckpoint, with Replay, sets the checkpoint to From first and goes on from there as any
	// subscription does. Over Kafka no member of the group may be living.
	MoveCheckpoint bool

	// Checkpoints keeps the place over HTTP. Default: in memory, so that a new subscription begins
	// at From. Over Kafka it is not used.
	Checkpoints Checkpoints
	// OnLetter takes what the handler could not process. Default over Kafka: the dead-letter topic,
	// which must exist; over HTTP: none, the subscription ends with the error. When OnLetter fails
	// it is called again until it does not.
	OnLetter func(ctx context.Context, l Letter) error
}

// Letter is an event that a handler could not process.
type Letter struct {
	Subscription string
	Event        Event
	Err          error
	Attempts     int
	FirstAt      time.Time // of the first attempt
}

// Checkpoints keeps the place of subscriptions over HTTP. Implementations are called by one
// goroutine per subscription.
type Checkpoints interface {
	// Load returns the stored position; "" where there is none.
	Load(ctx context.Context, subscription string) (position string, err error)
	// Save stores it.
	Save(ctx context.Context, subscription, position string) error
}

// From is a place in a category's log. The zero value is the start.
type From struct {
	kind     fromKind
	time     time.Time
	position string
}

type fromKind uint8

const (
	fromStart fromKind = iota
	fromEnd
	fromTime
	fromPosition
)

// FromStart is the oldest event.
func FromStart() From { return From{} }

// FromEnd is what comes after the subscription began.
func FromEnd() From { return From{kind: fromEnd} }

// FromTime is the first event that was recorded at t or later.
func FromTime(t time.Time) From { return From{kind: fromTime, time: t} }

// FromPosition is a place that Event.Position named, over the same transport.
func FromPosition(position string) From { return From{kind: fromPosition, position: position} }

const (
	workersMax = 1_000
	handlersMB = 100_000 // QueueMax at most
)

func (s Subscription) withDefaults() Subscription {
	orDefault(&s.Workers, 8)
	orDefault(&s.QueueMax, 1000)
	orDefault(&s.Retry.Attempts, 5)
	orDefault(&s.Retry.Wait, 100*time.Millisecond)
	orDefault(&s.Retry.WaitMax, 10*time.Second)
	s.Retry = s.Retry.withDefaults()
	orDefault(&s.CommitInterval, time.Second)
	orDefault(&s.DrainTimeout, 10*time.Second)
	return s
}

func (s Subscription) validate() error {
	faults := []error{topics.ValidateName("subscription", s.Name), topics.ValidateName("category", s.Category)}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if s.Handler == nil {
		fault("Handler is nil")
	}
	if s.Mode > Parallel {
		fault("Mode is %d: want Sequential or Parallel", s.Mode)
	}
	if s.Workers < 1 || s.Workers > workersMax || s.QueueMax < 1 || s.QueueMax > handlersMB {
		fault("Workers is %d and QueueMax %d: want 1 to %d and 1 to %d", s.Workers, s.QueueMax, workersMax, handlersMB)
	}
	if s.Retry.Wait < 0 || s.Retry.WaitMax < s.Retry.Wait || s.CommitInterval < 0 || s.DrainTimeout < 0 {
		fault("Retry.Wait is %s, WaitMax %s, CommitInterval %s, DrainTimeout %s: want 0 < Wait <= WaitMax and no negative time",
			s.Retry.Wait, s.Retry.WaitMax, s.CommitInterval, s.DrainTimeout)
	}
	if s.MoveCheckpoint && !s.Replay {
		fault("MoveCheckpoint is of meaning with Replay only")
	}
	return errors.Join(faults...)
}

// Subscribe follows a category until ctx ends, and returns nil then: handlers under way are
// finished and their place is stored. Any other return is an error that only an operator can mend:
// a missing topic, a place that the log no longer has, a handler's deadletter.Stopped. What goes
// wrong on the way to the servers is tried until it passes.
func (c *Client) Subscribe(ctx context.Context, sub Subscription) error {
	sub = sub.withDefaults()
	if err := sub.validate(); err != nil {
		return fmt.Errorf("subscription %s: %w", sub.Name, err)
	}
	if !c.enter() {
		return fmt.Errorf("subscription %s: %w", sub.Name, ErrClosed)
	}
	defer c.running.Done()
	ctx, cancel := c.within(ctx)
	defer cancel()
	s := newSubscription(c, sub)
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("subscription %s: %w", sub.Name, err)
	}
	return nil
}

// filter says what is handed on.
type filter struct {
	types               []*regexp.Regexp
	users, correlations []string
}

func newFilter(sub Subscription) filter {
	f := filter{users: sub.Users, correlations: sub.Correlations}
	for _, pattern := range sub.Types {
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		f.types = append(f.types, regexp.MustCompile("^(?s:"+strings.Join(parts, ".*")+")$"))
	}
	return f
}

func (f filter) passes(e *Event) bool {
	matches := func(r *regexp.Regexp) bool { return r.MatchString(e.Type) }
	return (len(f.types) == 0 || slices.ContainsFunc(f.types, matches)) &&
		(len(f.users) == 0 || slices.Contains(f.users, e.UserID)) &&
		(len(f.correlations) == 0 || slices.Contains(f.correlations, e.CorrelationID))
}

// fate is what an error of handling means, where an ordinary one is tried again for a while.
func fate(err error) (verdict deadletter.Verdict, forGood bool) {
	var said *deadletter.FateError
	f := deadletter.FateOf(err)
	switch {
	case f.Verdict != deadletter.Retry:
		return f.Verdict, true
	case errors.As(err, &said):
		return deadletter.Retry, true
	}
	return deadletter.Retry, false
}

// asLetter makes an ordinary failure one of the handler's.
func asLetter(err error) error {
	if deadletter.FateOf(err).Verdict == deadletter.Park {
		return err
	}
	return deadletter.Parked(deadletter.StageHandle, "handler", err)
}
