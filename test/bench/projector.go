package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/domain/execution"
	"github.com/foldstream/foldstream/internal/domain/views"
	"github.com/foldstream/foldstream/internal/projector"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	twmb "github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The log that the projector bench reads: executions of ten events each.
const (
	projectorCategory = "execution"
	projectorStreams  = 30_000
	projectorEvents   = 10 * projectorStreams
	projectorRowsMax  = 5000 // of one statement, for both
)

// projector measures events/s of the view execution_history from a full log, beside a franz-go and
// pgx loop that keeps the same rows by one UNNEST upsert a poll, with its offsets in the transaction.
func (b *bench) projector() error {
	postgres, err := devstack.StartPostgres(b.ctx, devstack.PostgresConfig{DataDir: filepath.Join(b.dir, "postgres")})
	if err != nil {
		return err
	}
	defer postgres.Stop()
	registry, err := executionRegistry()
	if err != nil {
		return err
	}
	const ns = "proj"
	layout := topics.Layout{Namespace: ns, ReplicationFactor: 1,
		Categories: []topics.Category{{Name: projectorCategory, Mode: topics.ModeDecider, Partitions: benchPartitions}},
		Consumers:  []string{topics.ConsumerView("execution_history", 1)}}
	if err := b.createTopics(layout); err != nil {
		return err
	}
	if err := b.fillLog(ns, registry); err != nil {
		return err
	}
	pool, err := pgxpool.New(b.ctx, postgres.DSN())
	if err != nil {
		return err
	}
	defer pool.Close()
	for run := range b.options.runs {
		for _, system := range []struct {
			name string
			run  func(ns string, run int, registry *codec.StaticReader, pool *pgxpool.Pool) (time.Duration, error)
		}{{"foldstream", b.runProjector}, {"bare", b.runBareProjector}} {
			took, err := system.run(ns, run, registry, pool)
			if err != nil {
				return fmt.Errorf("%s: %w", system.name, err)
			}
			b.record(result{Bench: "projector", System: system.name, Run: run + 1, PerS: projectorEvents / took.Seconds(), Count: projectorEvents})
		}
	}
	return nil
}

func executionRegistry() (*codec.StaticReader, error) {
	var regs []*codec.Registered
	for _, name := range []string{"ExecutionStarted", "NodeRecorded", "ExecutionCompleted", "ExecutionFailed", "ExecutionCancelled"} {
		text, err := avro.Files.ReadFile("execution/" + name + ".v1.avsc")
		if err != nil {
			return nil, err
		}
		reg, err := codec.RegisterText(int32(len(regs)+1), "execution."+name, 1, event.KindEvent, string(text))
		if err != nil {
			return nil, err
		}
		regs = append(regs, reg)
	}
	return codec.NewStaticReader(regs...), nil
}

// fillLog writes the events as the engine does, stream by stream interleaved.
func (b *bench) fillLog(ns string, registry *codec.StaticReader) error {
	c := codec.New(registry, codec.Config{})
	bind := func(def codec.TypeDef) (*codec.Binding, error) { return c.Bind(b.ctx, def) }
	started, err := bind(decider.Event[execution.ExecutionStarted]("execution.ExecutionStarted", 1))
	if err != nil {
		return err
	}
	recorded, err := bind(decider.Event[execution.NodeRecorded]("execution.NodeRecorded", 1))
	if err != nil {
		return err
	}
	completed, err := bind(decider.Event[execution.ExecutionCompleted]("execution.ExecutionCompleted", 1))
	if err != nil {
		return err
	}
	producer, err := kgo.NewClient(b.opts(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(50_000))...)
	if err != nil {
		return err
	}
	defer producer.Close()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var failed error
	for version := 1; version <= 10; version++ {
		for i := range projectorStreams {
			id := "execution-" + strconv.Itoa(i)
			var binding *codec.Binding
			var data any
			switch version {
			case 1:
				binding, data = started, execution.ExecutionStarted{WorkflowID: "bench"}
			case 10:
				binding, data = completed, execution.ExecutionCompleted{WorkflowID: "bench", StartedAt: at}
			default:
				binding, data = recorded, execution.NodeRecorded{WorkflowID: "bench", Node: "node-" + strconv.Itoa(version), Outcome: execution.OutcomeSucceeded, DurationMs: 10}
			}
			value, err := binding.Append(nil, data)
			if err != nil {
				return err
			}
			typ := binding.Registered().Type
			rec := &kgo.Record{Topic: topics.Events(ns, projectorCategory), Partition: topics.Partition([]byte(id), benchPartitions), Key: []byte(id), Value: value,
				Headers: headers(event.HeaderID, id+"-"+strconv.Itoa(version), event.HeaderType, typ, event.HeaderSource, "/proj/execution",
					event.HeaderSpecVersion, "1.0", event.HeaderTime, event.FormatTime(at.Add(time.Duration(version)*time.Minute)), event.HeaderSubject, id,
					event.HeaderContentType, event.ContentTypeAvro, event.HeaderSequence, strconv.Itoa(version), event.HeaderCorrelationID, id,
					event.HeaderCausationID, id, event.HeaderCommandID, id, event.HeaderCommandHash, "0123456789abcdef0123456789abcdef")}
			producer.Produce(b.ctx, rec, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err
				}
			})
		}
	}
	if err := producer.Flush(b.ctx); err != nil {
		return err
	}
	return failed
}

// runProjector keeps the view in a namespace's schema of its own and returns the time from start to
// the last event.
func (b *bench) runProjector(ns string, _ int, registry *codec.StaticReader, pool *pgxpool.Pool) (time.Duration, error) {
	view := views.ExecutionHistory()
	if _, err := pool.Exec(b.ctx, fmt.Sprintf("drop schema if exists %s cascade; drop schema if exists %s_%s_v%d cascade", ns, ns, view.Name, view.Version)); err != nil {
		return 0, err
	}
	if err := projector.Migrate(b.ctx, pool, ns, []projection.View{view}); err != nil {
		return 0, err
	}
	p, err := projector.New(projector.Config{
		Namespace: ns, Views: []projection.View{view}, Kafka: b.opts(), Pool: pool, Codec: codec.New(registry, codec.Config{}), Logger: b.log,
		BatchRecordsMax: projectorRowsMax,
	})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- p.Run(ctx) }()
	err = b.awaitOffsets(pool, fmt.Sprintf("select coalesce(sum(next_offset), 0)::bigint from %s.offsets", ns), done)
	took := time.Since(began)
	cancel()
	<-done
	return took, err
}

func (b *bench) awaitOffsets(pool *pgxpool.Pool, query string, done chan error) error {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var sum int64
		if err := pool.QueryRow(b.ctx, query).Scan(&sum); err != nil {
			return err
		}
		if sum >= projectorEvents {
			return nil
		}
		select {
		case err := <-done:
			done <- err
			return fmt.Errorf("ended at %d of %d events: %w", sum, projectorEvents, err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d events after 2 min", sum, projectorEvents)
		}
	}
}

// bareRow is a row of the bare loop.
type bareRow struct {
	id, workflow, status string
	started              time.Time
	ended                *time.Time
	durationMs           *int64
	executed, failed     int64
	version              int64
}

// bareProjector is one poll loop: decode, fold into a map that holds all rows, upsert what changed.
// No sequence check, no claims, no letters, no fencing, no bound on its memory.
type bareProjector struct {
	schemas map[int32]*twmb.Schema
	types   map[int32]string
	rows    map[string]*bareRow
	offsets map[int32]int64
}

func (b *bench) runBareProjector(ns string, run int, registry *codec.StaticReader, pool *pgxpool.Pool) (time.Duration, error) {
	const ddl = `drop schema if exists bare cascade; create schema bare;
		create table bare.rows (execution_id text primary key, workflow_id text not null, status text not null, started_at timestamptz not null,
			ended_at timestamptz, duration_ms bigint, nodes_executed bigint not null, nodes_failed bigint not null, version bigint not null);
		create table bare.offsets (partition int primary key, next_offset bigint not null)`
	if _, err := pool.Exec(b.ctx, ddl); err != nil {
		return 0, err
	}
	loop := &bareProjector{schemas: map[int32]*twmb.Schema{}, types: map[int32]string{}, rows: map[string]*bareRow{}, offsets: map[int32]int64{}}
	for id := int32(1); id <= 5; id++ {
		reg, err := registry.ByID(b.ctx, id)
		if err != nil {
			return 0, err
		}
		if loop.schemas[id], err = twmb.Parse(reg.Schema.Text()); err != nil {
			return 0, err
		}
		loop.types[id] = reg.Type
	}
	began := time.Now()
	consumer, err := kgo.NewClient(b.opts(kgo.ConsumerGroup(fmt.Sprintf("bare-projector-%d", run)), kgo.ConsumeTopics(topics.Events(ns, projectorCategory)),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())...)
	if err != nil {
		return 0, err
	}
	defer func() {
		consumer.Close()
		_, _ = b.admin.DeleteGroups(context.Background(), fmt.Sprintf("bare-projector-%d", run))
	}()
	for seen := 0; seen < projectorEvents; {
		fetches := consumer.PollRecords(b.ctx, projectorRowsMax)
		if err := fetches.Err0(); err != nil {
			return 0, err
		}
		records := fetches.Records()
		if err := loop.apply(b.ctx, pool, records); err != nil {
			return 0, err
		}
		seen += len(records)
	}
	return time.Since(began), nil
}

func (p *bareProjector) apply(ctx context.Context, pool *pgxpool.Pool, records []*kgo.Record) error {
	changed := map[string]*bareRow{}
	for _, rec := range records {
		row, err := p.fold(rec)
		if err != nil {
			return err
		}
		changed[row.id] = row
		p.offsets[rec.Partition] = rec.Offset + 1
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		n := len(changed)
		ids, workflows, statuses := make([]string, 0, n), make([]string, 0, n), make([]string, 0, n)
		started, ended, durations := make([]time.Time, 0, n), make([]*time.Time, 0, n), make([]*int64, 0, n)
		executed, failed, versions := make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n)
		for _, r := range changed {
			ids, workflows, statuses = append(ids, r.id), append(workflows, r.workflow), append(statuses, r.status)
			started, ended, durations = append(started, r.started), append(ended, r.ended), append(durations, r.durationMs)
			executed, failed, versions = append(executed, r.executed), append(failed, r.failed), append(versions, r.version)
		}
		const upsert = `insert into bare.rows select * from unnest($1::text[],$2::text[],$3::text[],$4::timestamptz[],$5::timestamptz[],$6::bigint[],$7::bigint[],$8::bigint[],$9::bigint[])
			on conflict (execution_id) do update set status=excluded.status, ended_at=excluded.ended_at, duration_ms=excluded.duration_ms,
			nodes_executed=excluded.nodes_executed, nodes_failed=excluded.nodes_failed, version=excluded.version`
		if _, err := tx.Exec(ctx, upsert, ids, workflows, statuses, started, ended, durations, executed, failed, versions); err != nil {
			return err
		}
		partitions, offsets := make([]int32, 0, len(p.offsets)), make([]int64, 0, len(p.offsets))
		for partition, offset := range p.offsets {
			partitions, offsets = append(partitions, partition), append(offsets, offset)
		}
		_, err := tx.Exec(ctx, `insert into bare.offsets select * from unnest($1::int[],$2::bigint[]) on conflict (partition) do update set next_offset=excluded.next_offset`, partitions, offsets)
		return err
	})
}

func (p *bareProjector) fold(rec *kgo.Record) (*bareRow, error) {
	id := int32(binary.BigEndian.Uint32(rec.Value[1:5]))
	text, _ := event.HeaderValue(rec.Headers, event.HeaderTime)
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return nil, err
	}
	sequence, _ := event.HeaderValue(rec.Headers, event.HeaderSequence)
	version, err := strconv.ParseInt(string(sequence), 10, 64)
	if err != nil {
		return nil, err
	}
	row := p.rows[string(rec.Key)]
	if row == nil {
		row = &bareRow{id: string(rec.Key)}
		p.rows[row.id] = row
	}
	row.version = version
	switch p.types[id] {
	case "execution.ExecutionStarted":
		var e execution.ExecutionStarted
		_, err = p.schemas[id].Decode(rec.Value[5:], &e)
		row.workflow, row.status, row.started = e.WorkflowID, "running", at
	case "execution.NodeRecorded":
		var e execution.NodeRecorded
		_, err = p.schemas[id].Decode(rec.Value[5:], &e)
		row.executed++
		if e.Outcome == execution.OutcomeFailed {
			row.failed++
		}
	case "execution.ExecutionCompleted":
		var e execution.ExecutionCompleted
		_, err = p.schemas[id].Decode(rec.Value[5:], &e)
		ms := at.Sub(row.started).Milliseconds()
		row.status, row.ended, row.durationMs = "completed", &at, &ms
	}
	return row, err
}
