package main

import (
	"context"
	"fmt"
	"time"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
)

// place is one partition of a topic as one view reads it.
type place struct {
	consumer, topic string
	partition       int32
}

// awaitViews returns when every view has applied all that stands in the log now.
func awaitViews(ctx context.Context, env *app.Environment, pool *pgxpool.Pool) error {
	want, err := ends(ctx, env)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(demoPoll)
	defer ticker.Stop()
	for {
		behind, err := lag(ctx, env.Project.Namespace, pool, want)
		if err != nil {
			return err
		}
		if behind == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the views are %d records behind: %w", behind, ctx.Err())
		case <-ticker.C:
		}
	}
}

// ends returns the end offset of every partition that a view reads.
func ends(ctx context.Context, env *app.Environment) (map[place]int64, error) {
	opts, err := env.Kafka()
	if err != nil {
		return nil, err
	}
	adm, err := kadm.NewOptClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	defer adm.Close()
	want := map[place]int64{}
	for _, v := range env.Program.Views {
		listed, err := adm.ListEndOffsets(ctx, eventTopics(env.Project.Namespace, v)...)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("read the ends of the event topics: %w", err)
		}
		listed.Each(func(o kadm.ListedOffset) {
			if o.Offset > 0 {
				want[place{topics.ConsumerView(v.Name, v.Version), o.Topic, o.Partition}] = o.Offset
			}
		})
	}
	return want, nil
}

func eventTopics(namespace string, v projection.View) []string {
	var names []string
	for _, c := range v.Categories {
		names = append(names, topics.Events(namespace, c))
	}
	return names
}

// lag counts the records that the views' own offset rows have not passed.
func lag(ctx context.Context, namespace string, pool *pgxpool.Pool, want map[place]int64) (int64, error) {
	rows, err := pool.Query(ctx, "select consumer, topic, partition, next_offset from "+pgx.Identifier{namespace, "offsets"}.Sanitize())
	if err != nil {
		return 0, fmt.Errorf("read the views' offsets: %w", err)
	}
	have := map[place]int64{}
	var at place
	var next int64
	if _, err := pgx.ForEachRow(rows, []any{&at.consumer, &at.topic, &at.partition, &next}, func() error {
		have[at] = next
		return nil
	}); err != nil {
		return 0, fmt.Errorf("read the views' offsets: %w", err)
	}
	var behind int64
	for p, end := range want {
		behind += max(0, end-max(0, have[p]))
	}
	return behind, nil
}
