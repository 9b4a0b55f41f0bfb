package streams

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

// warm does once, while nobody waits, what the first read of each kind would wait for: it binds the
// deciders' types, connects to the leaders, and opens a connection to Postgres that knows the
// statements. What it cannot do is left to the reads, which say why.
func (s *Store) warm(ctx context.Context) {
	var faults []error
	for _, f := range s.folds {
		faults = append(faults, s.warmFold(ctx, f))
	}
	for _, category := range s.cfg.Categories {
		faults = append(faults, s.warmLeaders(ctx, topics.Events(s.cfg.Namespace, category)))
	}
	if s.index != nil {
		faults = append(faults, s.index.warm(ctx))
	}
	if err := errors.Join(faults...); err != nil && ctx.Err() == nil {
		s.logger.Debug("the first reads will wait for what is not ready", "err", err)
	}
}

func (s *Store) warmFold(ctx context.Context, f *fold) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	_, err := f.bound(ctx)
	return err
}

// warmLeaders asks each leader of a topic for something.
func (s *Store) warmLeaders(ctx context.Context, topic string) error {
	meta, err := s.metaOf(ctx, topic, time.Time{})
	if err != nil {
		return err
	}
	for i, leader := range meta.leaders {
		if slices.Index(meta.leaders, leader) < i {
			continue
		}
		if _, err := s.endOf(ctx, place{topic, int32(i)}); err != nil {
			return err
		}
	}
	return nil
}

// warm runs the statements for a stream that cannot be.
func (x *index) warm(ctx context.Context) error {
	var nobody event.StreamID
	var slots []slotMeta
	var near ahead
	var all collected
	rows := eventRows{take: all.Take}
	more := append(x.aheadQueries(place{}, nobody, 1, 1, &near),
		x.slotsQuery(nobody, 1, &slots), x.eventsQuery(&rows, 1, 1, 1), x.backwardQuery(&rows, 1, 1))
	_, err := x.look(ctx, place{}, nobody, more...)
	return err
}
