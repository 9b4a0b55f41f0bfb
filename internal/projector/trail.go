package projector

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// trail writes what operators did to <ns>.audit: the record stands there before the change counts,
// so that nothing is done unseen. A change that fails after its record was written did not happen.
type trail struct {
	client *kgo.Client
	topic  string
	actor  string
	clock  func() time.Time
}

// trailRecord is the value of a record of the audit topic, as JSON. Its key is the actor.
type trailRecord struct {
	Time   time.Time      `json:"time"`
	Actor  string         `json:"actor"`
	Action string         `json:"action"` // such as view.switch
	Target string         `json:"target"` // the consumer
	Detail map[string]any `json:"detail,omitempty"`
}

func (t *trail) write(ctx context.Context, action, target string, detail map[string]any) error {
	value, err := json.Marshal(trailRecord{Time: t.clock().UTC(), Actor: t.actor, Action: action, Target: target, Detail: detail})
	if err != nil {
		return fmt.Errorf("audit %s: %w", action, err)
	}
	r := &kgo.Record{
		Topic: t.topic, Key: []byte(t.actor), Value: value,
		Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte("application/json")}},
	}
	if err := t.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("audit %s: write to %s: %w", action, t.topic, err)
	}
	return nil
}
