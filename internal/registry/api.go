package registry

import (
	"context"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// Submission is one schema to register.
type Submission struct {
	Type    string // ce_type, the subject
	Version int    // 0: next; else it must be the next version, or the one that has this very schema
	Kind    event.Kind
	Text    string // .avsc
}

// Registry holds schemas. Two implementations: over the compacted topic <ns>.schemas, and over a
// Confluent-compatible registry. Safe for concurrent use.
type Registry interface {
	codec.Reader
	// Register stores what is not there yet and returns every submission's registration, in order.
	// Registering the same text again returns what is there. An incompatible one fails whole, with
	// a *codec.CompatibilityError for each, and nothing is registered. Whatever cannot stand wraps
	// ErrRefused.
	Register(ctx context.Context, submissions []Submission) ([]*codec.Registered, error)
	// List returns all registrations, ordered by type and version.
	List(ctx context.Context) ([]*codec.Registered, error)
	// Close releases clients and goroutines.
	Close()
}
