package deadletter

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// HeaderTruncated marks a letter whose value was too large for the topic; the value is empty.
const HeaderTruncated = "dlq.truncated"

// Placed is where a letter stands in its topic.
type Placed struct {
	Partition int32
	Offset    int64
}

// Sink writes letters to one consumer's topic. It may be used from any goroutine.
type Sink struct {
	topic  string
	client *kgo.Client
}

// NewSink makes a sink for a topic, which must exist. opts connect its own client. Close it.
func NewSink(topic string, opts ...kgo.Opt) (*Sink, error) {
	const batchBytesMax = 16 << 20 // the broker's own limit decides
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(batchBytesMax),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("letters to %s: %w", topic, err)
	}
	return &Sink{topic: topic, client: client}, nil
}

// Produce writes letters and waits until all in-sync replicas have them. It returns their places
// in order. On an error some may have been written: writing them again is harmless, their ids
// tell. A letter that the broker finds too large is written without its value and marked so.
func (s *Sink) Produce(ctx context.Context, letters ...Letter) ([]Placed, error) {
	records := make([]*kgo.Record, len(letters))
	for i, l := range letters {
		records[i] = &kgo.Record{Topic: s.topic, Key: l.Record.Key, Value: l.Record.Value, Headers: l.Headers()}
	}
	placed := make([]Placed, len(letters))
	for i, result := range s.client.ProduceSync(ctx, records...) {
		// Results come in the order of completion; records keep their place.
		at := indexOf(records, result.Record, i)
		rec, err := result.Record, result.Err
		if errors.Is(err, kerr.MessageTooLarge) {
			rec, err = s.produceTruncated(ctx, rec)
		}
		if err != nil {
			return nil, fmt.Errorf("write letter %s to %s: %w", letters[at].ID, s.topic, err)
		}
		placed[at] = Placed{Partition: rec.Partition, Offset: rec.Offset}
	}
	return placed, nil
}

func (s *Sink) produceTruncated(ctx context.Context, rec *kgo.Record) (*kgo.Record, error) {
	short := &kgo.Record{Topic: rec.Topic, Key: rec.Key, Headers: append(rec.Headers, kgo.RecordHeader{Key: HeaderTruncated, Value: []byte("true")})}
	return short, s.client.ProduceSync(ctx, short).FirstErr()
}

func indexOf(records []*kgo.Record, rec *kgo.Record, guess int) int {
	if records[guess] == rec {
		return guess
	}
	for i, r := range records {
		if r == rec {
			return i
		}
	}
	return guess
}

// Close closes the client; letters under way fail.
func (s *Sink) Close() { s.client.Close() }
