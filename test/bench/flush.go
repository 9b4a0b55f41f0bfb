package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/engine"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
)

const flushInFlight = 128

// flush measures appends of one event with an expected version, flushed to the disk before they are
// acknowledged: the engine in memory over events topics with flush.messages=1, and a plain Postgres
// loop with a version check, fsync and a commit for each.
func (b *bench) flush() error {
	write, stop, err := b.startFlushed("flush")
	if err != nil {
		return err
	}
	defer stop()
	insert, stopPostgres, err := b.startPostgresLoop()
	if err != nil {
		return err
	}
	defer stopPostgres()
	systems := []struct {
		name  string
		write func(worker int, version event.Version) error
	}{{"foldstream", write}, {"postgres", insert}}
	for run := 0; run <= b.options.runs; run++ { // the first is the warm-up
		for _, s := range systems {
			worker := 0
			l, err := b.clients(flushInFlight, b.options.duration, func() (func() error, func(), error) {
				// Streams of their own, so that a worker knows the version: one for each measurement.
				stream, version := run*flushInFlight+worker, event.Version(0)
				worker++
				return func() error { version++; return s.write(stream, version-1) }, func() {}, nil
			})
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if run > 0 {
				b.record(l.result("flush", s.name, flushInFlight, run))
			}
		}
	}
	return nil
}

// startFlushed starts an engine whose events topic is flushed after each batch.
func (b *bench) startFlushed(ns string) (write func(worker int, version event.Version) error, stop func(), err error) {
	registry, err := benchRegistry()
	if err != nil {
		return nil, nil, err
	}
	value, err := b.eventValue(registry)
	if err != nil {
		return nil, nil, err
	}
	e, stop, err := b.startAppendMode(ns, registry)
	if err != nil {
		return nil, nil, err
	}
	one := "1"
	altered, err := b.admin.AlterTopicConfigs(b.ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "flush.messages", Value: &one}}, topics.Events(ns, benchCategory))
	if err == nil {
		_, err = altered.On(topics.Events(ns, benchCategory), func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("setting flush.messages: %w", err)
	}
	return func(worker int, version event.Version) error {
		stream := "stream-" + strconv.Itoa(worker)
		outcome, err := e.Submit(b.ctx, engine.Submission{
			Category: benchCategory, StreamID: stream, Value: value,
			Request: event.Request{ID: stream + "-" + strconv.FormatInt(int64(version), 10), Type: benchEvent, Time: time.Now().UTC(), Expected: event.ExpectExactly(version)},
		})
		if err == nil && outcome.Kind != engine.OutcomeAccepted {
			err = fmt.Errorf("outcome %s: %s", outcome.Kind, outcome.Message)
		}
		return err
	}, stop, nil
}

// The tables of an event store as one would write it, and its append: one statement, one commit.
const (
	postgresTables = `CREATE TABLE streams (id text PRIMARY KEY, version bigint NOT NULL);
		CREATE TABLE events (stream text NOT NULL, version bigint NOT NULL, id text NOT NULL, type text NOT NULL,
			time timestamptz NOT NULL, value bytea NOT NULL, PRIMARY KEY (stream, version))`
	postgresAppend = `WITH moved AS (
			INSERT INTO streams (id, version) VALUES ($1, 1)
			ON CONFLICT (id) DO UPDATE SET version = streams.version + 1 WHERE streams.version = $2
			RETURNING version)
		INSERT INTO events (stream, version, id, type, time, value) SELECT $1, version, $3, $4, now(), $5 FROM moved`
)

func (b *bench) startPostgresLoop() (insert func(worker int, version event.Version) error, stop func(), err error) {
	postgres, err := devstack.StartPostgres(b.ctx, devstack.PostgresConfig{
		DataDir:  filepath.Join(b.dir, "postgres-flush"),
		Settings: map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "160", "shared_buffers": "256MB"},
	})
	if err != nil {
		return nil, nil, err
	}
	cfg, err := pgxpool.ParseConfig(postgres.DSN())
	if err != nil {
		return nil, nil, errors.Join(err, postgres.Stop())
	}
	cfg.MaxConns = flushInFlight
	pool, err := pgxpool.NewWithConfig(b.ctx, cfg)
	if err != nil {
		return nil, nil, errors.Join(err, postgres.Stop())
	}
	stop = func() { pool.Close(); _ = postgres.Stop() }
	if _, err := pool.Exec(b.ctx, postgresTables); err != nil {
		stop()
		return nil, nil, err
	}
	value := []byte(benchNote)
	return func(worker int, version event.Version) error {
		stream := "stream-" + strconv.Itoa(worker)
		tag, err := pool.Exec(b.ctx, postgresAppend, stream, int64(version), stream+"-"+strconv.FormatInt(int64(version), 10), benchEvent, value)
		if err == nil && tag.RowsAffected() != 1 {
			err = context.Canceled
			if b.ctx.Err() == nil {
				err = fmt.Errorf("the version check refused version %d of %s", version, stream)
			}
		}
		return err
	}, stop, nil
}
