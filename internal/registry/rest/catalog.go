package rest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
)

// listSpacing is the shortest time between two lists. A list costs the broker a request, or a
// registry behind this one many; everything else is answered from memory.
const listSpacing = 50 * time.Millisecond

// catalog knows which record names there are and which type each belongs to. It lists when it is
// asked for something that it does not know: one list at a time, and who comes while one is under
// way waits for the next, which answers all of them.
type catalog struct {
	registry registry.Registry
	turn     chan struct{}    // held by who lists
	spacing  <-chan time.Time // of the last list; guarded by turn
	begun    atomic.Uint64    // lists begun
	last     atomic.Pointer[names]
}

// names is one list. Immutable.
type names struct {
	begun    uint64
	subjects []string          // sorted
	typeOf   map[string]string // record name → type
}

func newCatalog(r registry.Registry) *catalog {
	return &catalog{registry: r, turn: make(chan struct{}, 1)}
}

// known returns the last list, nil before the first.
func (c *catalog) known() *names { return c.last.Load() }

// fresh returns a list that began after the call did.
func (c *catalog) fresh(ctx context.Context) (*names, error) {
	arrived := c.begun.Load()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the list of schemas: %w", ctx.Err())
	}
	if last := c.known(); last != nil && last.begun > arrived {
		return last, nil
	}
	if c.spacing != nil {
		select {
		case <-c.spacing:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the list of schemas: %w", ctx.Err())
		}
	}
	c.spacing = time.After(listSpacing)
	return c.list(ctx)
}

func (c *catalog) list(ctx context.Context) (*names, error) {
	n := &names{begun: c.begun.Add(1), typeOf: map[string]string{}}
	regs, err := c.registry.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the schemas: %w", err)
	}
	for _, reg := range regs {
		name := reg.Schema.Name()
		if _, there := n.typeOf[name]; !there {
			n.subjects = append(n.subjects, name)
		}
		n.typeOf[name] = reg.Type
	}
	slices.Sort(n.subjects)
	c.last.Store(n)
	return n, nil
}

// latest finds the latest version of a subject: of the type that a record of this name belongs
// to, else of the type of this name. It answers codec.ErrUnknownSchema where there is none.
func (c *catalog) latest(ctx context.Context, subject string) (*codec.Registered, error) {
	reg, err := c.registry.Latest(ctx, subject)
	if err == nil && reg.Schema.Name() == subject {
		return reg, nil
	}
	if err != nil && !errors.Is(err, codec.ErrUnknownSchema) {
		return nil, err
	}
	typ, mapped, catalogErr := c.typeOf(ctx, subject, reg != nil)
	if catalogErr != nil {
		return nil, catalogErr
	}
	if mapped {
		return c.registry.Latest(ctx, typ)
	}
	return reg, err
}

// typeOf looks a record's name up. Where the name is a type's already, what was listed last is
// enough.
func (c *catalog) typeOf(ctx context.Context, name string, isType bool) (typ string, there bool, err error) {
	n := c.known()
	if n != nil {
		if typ, there = n.typeOf[name]; there || isType {
			return typ, there, nil
		}
	}
	if n, err = c.fresh(ctx); err != nil {
		return "", false, err
	}
	typ, there = n.typeOf[name]
	return typ, there, nil
}
