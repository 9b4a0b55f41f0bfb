package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/test/faults/project"
)

// readTopic reads a topic from its start to the end that it has now, partition by partition.
func (st *stack) readTopic(ctx context.Context, topic string, visit func(*kgo.Record)) error {
	starts, err := st.admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	ends, err2 := st.admin.ListEndOffsets(ctx, topic)
	if err2 == nil {
		err2 = ends.Error()
	}
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("ask where %s begins and ends: %w", topic, err)
	}
	from, last := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, o.Partition)
		if o.Offset > start.Offset {
			from[o.Partition], last[o.Partition] = kgo.NewOffset().At(start.Offset), o.Offset-1
		}
	})
	if len(from) == 0 {
		return nil
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(st.broker.seeds()...), kgo.FetchMaxWait(100*time.Millisecond), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return err
	}
	defer client.Close()
	for len(last) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			end, reading := last[rec.Partition]
			if !reading {
				return
			}
			if !rec.Attrs.IsControl() {
				visit(rec)
			}
			if rec.Offset >= end {
				delete(last, rec.Partition)
			}
		})
	}
	return nil
}

// readAll fills in what is in the topics.
func (st *stack) readAll(ctx context.Context, r *Run) error {
	for _, category := range categories {
		if err := st.readTopic(ctx, topics.Commands(r.Namespace, category), func(rec *kgo.Record) {
			r.Commands = append(r.Commands, commandRecord(category, rec))
		}); err != nil {
			return err
		}
		lineages := map[int32]*event.Lineage{}
		if err := st.readTopic(ctx, topics.Events(r.Namespace, category), func(rec *kgo.Record) {
			if lineages[rec.Partition] == nil {
				lineages[rec.Partition] = &event.Lineage{}
			}
			r.Events = append(r.Events, eventRecord(category, rec, lineages[rec.Partition]))
		}); err != nil {
			return err
		}
	}
	return st.readTopic(ctx, topics.DeadLetters(r.Namespace, topics.ConsumerIngest), func(rec *kgo.Record) {
		r.Letters = append(r.Letters, LetterRecord{
			Topic: header(rec, deadletter.HeaderTopic), Partition: int32(number(header(rec, deadletter.HeaderPartition))),
			Offset: number(header(rec, deadletter.HeaderOffset)), CommandID: header(rec, event.HeaderID), Value: rec.Value,
		})
	})
}

func header(rec *kgo.Record, name string) string {
	value, _ := event.HeaderValue(rec.Headers, name)
	return string(value)
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

func commandRecord(category string, rec *kgo.Record) CommandRecord {
	return CommandRecord{
		Category: category, Partition: rec.Partition, Offset: rec.Offset, ID: header(rec, event.HeaderID),
		Attempt: int(number(header(rec, event.HeaderAttempt))), Rerouted: header(rec, event.HeaderOrigin) != "",
	}
}

// eventRecord classifies one record of an events topic by the rule that every reader of ours has
// to follow (PROTOCOL W6), and reads it by hand.
func eventRecord(category string, rec *kgo.Record, lineage *event.Lineage) EventRecord {
	e := EventRecord{Category: category, Partition: rec.Partition, Offset: rec.Offset, ProducerID: rec.ProducerID, Epoch: rec.ProducerEpoch, CommandOffset: -1}
	switch lineage.Judge(rec.ProducerID, rec.ProducerEpoch, rec.Headers) {
	case event.VerdictVoid:
		e.Class = ClassVoid
		return e
	case event.VerdictControl:
		e.Class, e.Control, e.Instance = ClassControl, event.Control(rec.Headers), header(rec, event.HeaderInstance)
		return e
	}
	e.Class, e.Stream, e.Version = ClassEvent, string(rec.Key), number(header(rec, event.HeaderSequence))
	e.EventID, e.CommandID = header(rec, event.HeaderID), header(rec, event.HeaderCommandID)
	if text := header(rec, event.HeaderCommandOffset); text != "" {
		e.CommandOffset = number(text)
	}
	var err error
	e.Op, e.Amount, e.Balance, err = readPayload(header(rec, event.HeaderType), rec.Value)
	if err != nil {
		e.Class, e.Fault = ClassAlien, err.Error()
	}
	return e
}

// readPayload reads the events' Avro by hand: a string and one or two numbers, behind five bytes
// of framing. It shares no code with what wrote it.
func readPayload(typ string, value []byte) (op string, amount, balance int64, err error) {
	fault := fmt.Errorf("%q with %d bytes is no event of the project", typ, len(value))
	if len(value) < 6 || value[0] != 0 {
		return "", 0, 0, fault
	}
	rest := value[5:]
	long := func() int64 {
		n, size := binary.Varint(rest)
		if size <= 0 {
			err = fault
			return 0
		}
		rest = rest[size:]
		return n
	}
	size := long()
	if err != nil || size < 0 || size > int64(len(rest)) {
		return "", 0, 0, fault
	}
	op, rest = string(rest[:size]), rest[size:]
	amount = long()
	switch typ {
	case project.TypeMoved:
		balance = long()
	case project.TypeWritten:
	default:
		err = fault
	}
	if len(rest) > 0 {
		err = fault
	}
	return op, amount, balance, err
}

// readRows reads the views by plain SQL.
func readRows(ctx context.Context, pool *pgxpool.Pool, namespace string) ([]RowRecord, error) {
	var all []RowRecord
	for _, q := range []struct{ view, sql string }{
		{"logs", "select id, events::text, digest, last::text from %s.logs"},
		{"accounts", "select id, events::text, digest, last::text from %s.accounts"},
		{"flow", "select amount::text, moves::text, least::text, most::text from %s.flow"},
		{"parked", "select consumer || ' ' || topic || ' ' || partition || ' ' || encode(key, 'escape') from %s.parked"},
		{"letters", `select consumer || ' ' || topic || ' ' || partition || ' ' || "offset", reason, message from %s.letters`},
	} {
		rows, err := pool.Query(ctx, fmt.Sprintf(q.sql, namespace))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", q.view, err)
		}
		_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
			values, err := row.Values()
			if err != nil {
				return struct{}{}, err
			}
			texts := make([]string, len(values))
			for i, v := range values {
				texts[i] = fmt.Sprint(v)
			}
			all = append(all, RowRecord{View: q.view, Key: texts[0], Cols: texts[1:]})
			return struct{}{}, nil
		})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", q.view, err)
		}
	}
	return all, nil
}

// readOffsets reads how far each view is. Before the views are migrated there is nothing.
func readOffsets(ctx context.Context, pool *pgxpool.Pool, namespace string, at time.Duration) ([]OffsetRecord, error) {
	rows, err := pool.Query(ctx, "select consumer, topic, partition, epoch, next_offset from "+namespace+".offsets order by 1, 2, 3")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (OffsetRecord, error) {
		o := OffsetRecord{At: at}
		return o, row.Scan(&o.Consumer, &o.Topic, &o.Partition, &o.Epoch, &o.Next)
	})
}

// sampler reads the views' offsets again and again while a run goes on.
type sampler struct {
	st   *stack
	mu   sync.Mutex
	seen map[string]OffsetRecord
	all  []OffsetRecord
}

const sampleEvery = 50 * time.Millisecond

func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.sample(ctx)
	}
}

// sample keeps what changed since the last reading.
func (s *sampler) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	offsets, err := readOffsets(ctx, s.st.pool, s.st.run.Namespace, s.st.now())
	if err != nil {
		return // the database is being hurt, or has no tables yet
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]OffsetRecord{}
	}
	for _, o := range offsets {
		key := o.Consumer + place(o.Topic, o.Partition, 0)
		before, known := s.seen[key]
		if known && before.Epoch == o.Epoch && before.Next == o.Next {
			continue
		}
		s.seen[key] = o
		s.all = append(s.all, o)
	}
}

// viewsBehind says how many records of the events topics the views of a database have left.
func (st *stack) viewsBehind(ctx context.Context, pool *pgxpool.Pool) (int64, error) {
	ends, err := st.admin.ListEndOffsets(ctx, st.eventsTopics()...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, err
	}
	offsets, err := readOffsets(ctx, pool, st.run.Namespace, 0)
	if err != nil {
		return 0, err
	}
	at := map[string]int64{}
	for _, o := range offsets {
		at[o.Consumer+place(o.Topic, o.Partition, 0)] = max(o.Next, 0)
	}
	behind := int64(0)
	for _, v := range project.Views() {
		consumer := topics.ConsumerView(v.Name, v.Version)
		ends.Each(func(o kadm.ListedOffset) {
			for _, category := range v.Categories {
				if o.Topic == topics.Events(st.run.Namespace, category) {
					behind += max(0, o.Offset-at[consumer+place(o.Topic, o.Partition, 0)])
				}
			}
		})
	}
	return behind, nil
}
