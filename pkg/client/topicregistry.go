package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicReader finds schemas in the topic <ns>.schemas, which is the registry where a project has no
// other. What it does not know makes it read on, at most once a second. It runs no goroutine.
//
// All methods may be called from any goroutine. Close it.
type TopicReader struct {
	topic  string
	client *kgo.Client

	reading sync.Mutex // one reads the topic
	next    int64
	readAt  time.Time

	mu    sync.Mutex
	known *codec.StaticReader
	count int
}

// readPause is how long "there is no such schema" is believed.
const readPause = time.Second

// NewTopicReader makes a reader of a namespace's schemas. opts connect to Kafka. Nothing is read yet.
func NewTopicReader(namespace string, opts ...kgo.Opt) (*TopicReader, error) {
	if err := topics.ValidateNamespace(namespace); err != nil {
		return nil, fmt.Errorf("schemas topic: %w", err)
	}
	topic := topics.Schemas(namespace)
	client, err := kgo.NewClient(append(slices.Clone(opts), kgo.KeepControlRecords(), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))...)
	if err != nil {
		return nil, fmt.Errorf("schemas topic: connect to Kafka: %w", err)
	}
	return &TopicReader{topic: topic, client: client, known: codec.NewStaticReader()}, nil
}

// Close closes the connection. Lookups of what is known go on.
func (r *TopicReader) Close() { r.client.Close() }

// ByID implements codec.Reader.
func (r *TopicReader) ByID(ctx context.Context, id int32) (*codec.Registered, error) {
	return r.lookUp(ctx, func(known *codec.StaticReader) (*codec.Registered, error) { return known.ByID(ctx, id) })
}

// ByFingerprint implements codec.Reader.
func (r *TopicReader) ByFingerprint(ctx context.Context, fingerprint codec.Fingerprint) (*codec.Registered, error) {
	return r.lookUp(ctx, func(known *codec.StaticReader) (*codec.Registered, error) {
		return known.ByFingerprint(ctx, fingerprint)
	})
}

// Version implements codec.Reader.
func (r *TopicReader) Version(ctx context.Context, typ string, version int) (*codec.Registered, error) {
	return r.lookUp(ctx, func(known *codec.StaticReader) (*codec.Registered, error) { return known.Version(ctx, typ, version) })
}

// Latest implements codec.Reader. A new version is seen with the next schema that is not known.
func (r *TopicReader) Latest(ctx context.Context, typ string) (*codec.Registered, error) {
	return r.lookUp(ctx, func(known *codec.StaticReader) (*codec.Registered, error) { return known.Latest(ctx, typ) })
}

func (r *TopicReader) lookUp(ctx context.Context, find func(*codec.StaticReader) (*codec.Registered, error)) (*codec.Registered, error) {
	reg, err := find(r.snapshot())
	if !errors.Is(err, codec.ErrUnknownSchema) {
		return reg, err
	}
	if err := r.read(ctx); err != nil {
		return nil, fmt.Errorf("read %s: %w", r.topic, err)
	}
	return find(r.snapshot())
}

func (r *TopicReader) snapshot() *codec.StaticReader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// read takes in all that the topic has now.
func (r *TopicReader) read(ctx context.Context) error {
	r.reading.Lock()
	defer r.reading.Unlock()
	if time.Since(r.readAt) < readPause {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	adm := kadm.NewClient(r.client)
	if _, err := topics.IDs(ctx, adm, r.topic); err != nil {
		return err
	}
	ends, err := adm.ListEndOffsets(ctx, r.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return err
	}
	end, _ := ends.Lookup(r.topic, 0)
	var found []*codec.Registered
	for r.next < end.Offset {
		fetches := r.client.PollFetches(ctx)
		if err := errors.Join(context.Cause(ctx), fetches.Err()); err != nil {
			return err
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			r.next = rec.Offset + 1
			if reg, err := schemaRow(rec); err == nil && reg != nil {
				found = append(found, reg)
			}
		})
	}
	r.readAt = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count += len(found); r.count > registeredMax {
		return fmt.Errorf("more than %d schemas", registeredMax)
	}
	if len(found) > 0 {
		r.known = r.known.With(found...)
	}
	return nil
}

// schemaRow reads a record of the topic; nil for one that is no schema.
func schemaRow(rec *kgo.Record) (*codec.Registered, error) {
	if rec.Attrs.IsControl() || event.Control(rec.Headers) != "" || len(rec.Value) == 0 {
		return nil, nil
	}
	var row struct {
		Subject string     `json:"subject"`
		Version int        `json:"version"`
		ID      int32      `json:"id"`
		Kind    event.Kind `json:"kind"`
		Schema  string     `json:"schema"`
	}
	if err := json.Unmarshal(rec.Value, &row); err != nil {
		return nil, err
	}
	reg, err := describe(row.ID, row.Version, row.Schema, row.Kind)
	if err == nil && reg.Type != row.Subject {
		err = fmt.Errorf("the schema is of type %q, the row says %q", reg.Type, row.Subject)
	}
	return reg, err
}
