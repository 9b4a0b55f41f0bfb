package projector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Correction is what an operator decided about one event for one consumer. It stands in the topic
// <ns>.corrections, from which a rebuild has it, and in the table of that name, from which workers
// have it. The event is named by its stream and version, or, where it has none, by its place.
type Correction struct {
	Consumer  string        `json:"consumer"`
	Action    string        `json:"action"` // skip
	Category  string        `json:"category,omitempty"`
	Stream    string        `json:"stream,omitempty"`
	Version   event.Version `json:"version,omitempty"`
	Topic     string        `json:"topic"`
	TopicID   string        `json:"topic_id"`
	Partition int32         `json:"partition"`
	Offset    int64         `json:"offset"`
	Reason    string        `json:"reason"`
	Actor     string        `json:"actor"`
	Time      time.Time     `json:"time"`
}

// ActionSkip leaves an event out: its version counts, its effect does not.
const ActionSkip = "skip"

// key of the correction's record: the topic is compacted, the last word about an event counts.
func (c Correction) key() []byte {
	parts := []string{c.Consumer, c.Category, c.Stream, strconv.FormatInt(int64(c.Version), 10)}
	if c.Version == 0 {
		parts = []string{c.Consumer, c.TopicID, strconv.Itoa(int(c.Partition)), strconv.FormatInt(c.Offset, 10)}
	}
	return []byte(strings.Join(parts, "\x00"))
}

// corrections are those of one partition, as a worker knows them.
type corrections struct {
	known    bool
	revision int64
	versions map[streamVersion]bool
	offsets  map[recordID]bool
}

type streamVersion struct {
	stream  string
	version event.Version
}

type recordID struct {
	topicID string
	offset  int64
}

// learnCorrections reads them when they changed.
func (w *worker) learnCorrections(ctx context.Context, tx pgx.Tx, revision int64) error {
	if w.corrections.known && w.corrections.revision == revision {
		return nil
	}
	c := corrections{known: true, revision: revision, versions: map[streamVersion]bool{}, offsets: map[recordID]bool{}}
	rows, err := tx.Query(ctx, `select stream, version, topic_id, "offset" from `+w.store.table("corrections")+`
		where consumer = $1 and action = $2 and (version > 0 and category = $3 or version = 0 and topic = $4 and partition = $5)`,
		w.store.consumer, ActionSkip, w.category, w.place.topic, w.place.partition)
	if err != nil {
		return fmt.Errorf("read corrections: %w", err)
	}
	var v streamVersion
	var r recordID
	_, err = pgx.ForEachRow(rows, []any{&v.stream, &v.version, &r.topicID, &r.offset}, func() error {
		if v.version > 0 {
			c.versions[v] = true
		} else {
			c.offsets[r] = true
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read corrections: %w", err)
	}
	w.corrections = c
	return nil
}

// apply takes the effect of corrected events out of a decoded batch.
func (c corrections) apply(b *batch, topicID string) (skipped int) {
	if len(c.versions)+len(c.offsets) == 0 {
		return 0
	}
	before := len(b.steps)
	b.steps = slices.DeleteFunc(b.steps, func(s *step) bool {
		return s.envelope != nil && c.offsets[recordID{topicID, s.rec.Offset}]
	})
	skipped = before - len(b.steps)
	b.decoded = len(b.steps)
	for _, s := range b.steps {
		if s.void || s.envelope != nil || s.slot != nil || !c.versions[streamVersion{s.recorded.Stream.ID, s.recorded.Version}] {
			continue
		}
		s.folded, s.fault = false, nil
		skipped++
	}
	return skipped
}

// loadCorrections takes over what the topic has for this consumer and the table has not: the
// table may be younger than the topic.
func (s *store) loadCorrections(ctx context.Context, kafka []kgo.Opt) error {
	all, err := readCorrections(ctx, topics.Corrections(s.namespace), kafka)
	if err != nil {
		return err
	}
	var own []Correction
	for _, c := range all {
		if c.Consumer == s.consumer {
			own = append(own, c)
		}
	}
	if len(own) == 0 {
		return nil
	}
	tx, err := s.db.Begin(ctx)
	if err != nil {
		return fmt.Errorf("take corrections over: %w", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	if err := storeCorrections(ctx, tx, s.namespace, own); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func storeCorrections(ctx context.Context, tx pgx.Tx, namespace string, all []Correction) error {
	b := &pgx.Batch{}
	for _, c := range all {
		b.Queue(`insert into `+quote(namespace, "corrections")+` (consumer, category, stream, version, topic, topic_id, partition, "offset", action, reason, actor, at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) on conflict (consumer, topic_id, partition, "offset") do update set action = excluded.action`,
			c.Consumer, c.Category, c.Stream, int64(c.Version), c.Topic, c.TopicID, c.Partition, c.Offset, c.Action, c.Reason, c.Actor, c.Time)
	}
	b.Queue(`insert into `+quote(namespace, "controls")+` as c (consumer, revision) values ($1, 1) on conflict (consumer) do update set revision = c.revision + 1`, all[0].Consumer)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("store %d corrections: %w", len(all), err)
	}
	return nil
}

// readCorrections reads the topic from its start to its end; a namespace without one has none.
func readCorrections(ctx context.Context, topic string, kafka []kgo.Opt) ([]Correction, error) {
	client, err := kgo.NewClient(append(slices.Clone(kafka), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return nil, fmt.Errorf("read corrections: Kafka client: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	var missing *topics.MissingError
	if _, err := topics.IDs(ctx, adm, topic); errors.As(err, &missing) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read corrections: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("read corrections: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("read corrections: %w", err)
	}
	start, _ := starts.Lookup(topic, 0)
	end, _ := ends.Lookup(topic, 0)
	var all []Correction
	for next := start.Offset; next < end.Offset; {
		fetches := poll(ctx, client)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if fetches.Empty() {
			return nil, fmt.Errorf("read corrections: %s has records up to offset %d, but none after %d came within %s", topic, end.Offset, next, quietTime)
		}
		for r := range fetches.RecordsAll() {
			next = r.Offset + 1
			var c Correction
			if r.Value == nil {
				continue
			}
			if err := json.Unmarshal(r.Value, &c); err != nil {
				return nil, fmt.Errorf("correction at offset %d of %s is no JSON of ours: %w", r.Offset, topic, err)
			}
			all = append(all, c)
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return nil, fmt.Errorf("read corrections: %w", errs[0].Err)
		}
	}
	return all, nil
}

// quietTime is how long a broker that has records may take to send some.
const quietTime = 5 * time.Second

func poll(ctx context.Context, client *kgo.Client) kgo.Fetches {
	bounded, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	fetches := client.PollFetches(bounded)
	if bounded.Err() != nil && len(fetches.Records()) == 0 {
		return nil
	}
	return fetches
}
