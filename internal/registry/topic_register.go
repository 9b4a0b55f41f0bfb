package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/foldstream/foldstream/internal/engine/appender"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
)

const (
	// registerAttemptsMax bounds how often a registrar that lost a race starts again.
	registerAttemptsMax = 12
	registerBackoffMin  = 20 * time.Millisecond
	registerBackoffMax  = 2 * time.Second
	// registerBytesMax bounds one registration as encoded. It is below the max.message.bytes that
	// the schemas topic is created with.
	registerBytesMax = 7 << 19 // 3.5 MiB
)

// Register implements Registry. What is there already is found without a claim. A registrar
// that another one fences starts again from the read, so that it finds what the other
// registered; it gives up after some attempts, or at RegisterTimeout. An error after the batch
// was sent leaves it unknown whether the schemas are registered: registering again settles it.
func (t *Topic) Register(ctx context.Context, submissions []Submission) ([]*codec.Registered, error) {
	candidates, err := parse(submissions)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.RegisterTimeout)
	defer cancel()
	t.registering.Lock()
	defer t.registering.Unlock()
	for attempt := 1; ; attempt++ {
		results, err := t.registerOnce(ctx, candidates)
		if err == nil || !lostRace(err) {
			return results, err
		}
		if attempt == registerAttemptsMax {
			return nil, fmt.Errorf("register schemas: another registrar was faster %d times; register again: %w", attempt, err)
		}
		t.cfg.Logger.Info("another registrar was faster, starting again", "topic", t.topic, "attempt", attempt, "error", err)
		if err := pause(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

func lostRace(err error) bool {
	return errors.Is(err, appender.ErrFenced) || errors.Is(err, appender.ErrLost)
}

// pause backs off with full jitter, so that two registrars do not fence each other in step.
func pause(ctx context.Context, attempt int) error {
	limit := min(registerBackoffMax, registerBackoffMin<<attempt)
	timer := time.NewTimer(registerBackoffMin + rand.N(limit))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("register schemas: %w", ctx.Err())
	}
}

func (t *Topic) registerOnce(ctx context.Context, candidates []candidate) ([]*codec.Registered, error) {
	if err := t.refresh(ctx, t.cfg.LoadTimeout); err != nil {
		return nil, fmt.Errorf("register schemas: %w", err)
	}
	p, err := t.plan(candidates)
	if err != nil || len(p.added) == 0 {
		return p.results, err
	}
	return t.claimAndAppend(ctx, candidates)
}

// plan is made anew after the claim: what another registrar wrote before it is known only then.
func (t *Topic) plan(candidates []candidate) (p plan, err error) {
	t.tail.view(func(x *index) { p, err = makePlan(x, candidates, t.cfg.Compatibility) })
	if err != nil {
		p.results = nil
	}
	return p, err
}

func (t *Topic) claimAndAppend(ctx context.Context, candidates []candidate) ([]*codec.Registered, error) {
	infos, err := topics.IDs(ctx, t.admin, t.topic)
	if err != nil {
		return nil, fmt.Errorf("register schemas: %w", err)
	}
	api, err := t.newAppender()
	if err != nil {
		return nil, fmt.Errorf("register schemas: %w", err)
	}
	defer api.Close()
	partition := appender.Partition{Topic: t.topic, TopicID: infos[t.topic].ID, TransactionalID: topics.TopicTransactionalID(t.topic, 0)}
	info := appender.ClaimInfo{Group: topics.Group(t.cfg.Namespace, "schema"), Instance: t.cfg.Instance, Compacted: true}
	writer, err := api.Claim(ctx, partition, info, t.tail.lastClaim(), nil)
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", t.topic, err)
	}
	defer writer.Close()
	if err := t.tail.wait(ctx, writer.ClaimOffset()+1); err != nil {
		return nil, fmt.Errorf("register schemas: %w", err)
	}
	p, err := t.plan(candidates)
	if err != nil || len(p.added) == 0 {
		return p.results, err
	}
	return p.results, t.appendAll(ctx, writer, p.added)
}

// appendAll writes one batch, so that a reader sees all of a registration or nothing of it.
func (t *Topic) appendAll(ctx context.Context, writer *appender.Writer, added []*codec.Registered) error {
	records := make([]appender.Record, 0, len(added))
	now := t.cfg.Clock()
	for _, reg := range added {
		key, value, err := encodeRow(reg)
		if err != nil {
			return fmt.Errorf("register %s version %d: %w", reg.Type, reg.Version, err)
		}
		records = append(records, appender.Record{Key: key, Value: value, Time: now})
	}
	fate := make(chan appender.Result, 1)
	writer.Append(records, func(r appender.Result) { fate <- r })
	writer.Flush()
	select {
	case <-ctx.Done():
		return fmt.Errorf("append %d schemas to %s: whether they are registered is unknown, register again: %w", len(added), t.topic, ctx.Err())
	case result := <-fate:
		if errors.Is(result.Err, appender.ErrTooLarge) {
			return fmt.Errorf("register %d schemas: together they are larger than %d bytes, register them in parts: %w", len(added), registerBytesMax, result.Err)
		}
		if result.Err != nil {
			return fmt.Errorf("append %d schemas to %s: %w", len(added), t.topic, result.Err)
		}
		return t.tail.wait(ctx, result.Offset+int64(len(records)))
	}
}

func (t *Topic) ownAppender() (appender.API, error) {
	return appender.New(appender.Config{
		Opts: t.cfg.Opts, BatchBytesMax: registerBytesMax, Clock: t.cfg.Clock, Logger: t.cfg.Logger,
	})
}
