package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
)

// Category says how the commands of one category are decided.
type Category struct {
	Name string
	// Decider decides domain commands. Nil: append mode, only ready events are taken.
	Decider *decider.Definition
	// AllowAppends lets a decider's category take raw appends too.
	AllowAppends bool
	// DedupeIDsMax is how many command ids a stream remembers; default 128. Fewer make a late
	// repetition a second command; more cost 80 bytes each.
	DedupeIDsMax int
	// DedupeAgeMax is how long a command id is remembered; default 1 h.
	DedupeAgeMax time.Duration
	Snapshots    SnapshotConfig
}

// Defaults and limits of a category.
const (
	dedupeIDsDefault   = 128
	dedupeIDsHardMax   = 100_000
	dedupeAgeDefault   = time.Hour
	appendEventsMax    = codec.AppendEventsMax
	dedupeAheadSlack   = 5 * time.Minute // a client's clock may be ahead of ours
	categoryBytesFixed = 64
)

// boundCategory is a category with its types bound to registered schemas. Safe for concurrent use.
type boundCategory struct {
	Category
	namespace string
	source    []byte // ce_source of its events
	codec     *codec.Codec
	byType    map[string]*codec.Binding       // commands and events of the decider
	byGoType  map[reflect.Type]*codec.Binding // events, for encoding
	state     *codec.Binding
	limits    windowLimits
}

func bindCategory(ctx context.Context, namespace string, c Category, cdc *codec.Codec) (*boundCategory, error) {
	if c.DedupeIDsMax == 0 {
		c.DedupeIDsMax = dedupeIDsDefault
	}
	if c.DedupeAgeMax == 0 {
		c.DedupeAgeMax = dedupeAgeDefault
	}
	c.Snapshots = c.Snapshots.withDefaults()
	if err := c.Snapshots.validate(); err != nil {
		return nil, fmt.Errorf("category %s: %w", c.Name, err)
	}
	b := &boundCategory{
		Category: c, namespace: namespace, codec: cdc, source: []byte("/" + namespace + "/" + c.Name),
		limits: windowLimits{idsMax: c.DedupeIDsMax, ageMax: c.DedupeAgeMax, idsHardMax: dedupeIDsHardMax},
	}
	if c.DedupeIDsMax < 1 || c.DedupeIDsMax > dedupeIDsHardMax {
		return nil, fmt.Errorf("category %s: DedupeIDsMax %d is not within 1 and %d", c.Name, c.DedupeIDsMax, dedupeIDsHardMax)
	}
	if c.DedupeAgeMax < time.Second {
		return nil, fmt.Errorf("category %s: DedupeAgeMax %s is below 1 s", c.Name, c.DedupeAgeMax)
	}
	if c.Decider == nil {
		return b, nil
	}
	return b, b.bindDecider(ctx)
}

func (b *boundCategory) bindDecider(ctx context.Context) error {
	d := b.Decider
	if d.Category != b.Name {
		return fmt.Errorf("category %s has the decider of category %q", b.Name, d.Category)
	}
	if err := d.Validate(); err != nil {
		return err
	}
	b.byType = make(map[string]*codec.Binding, len(d.Types))
	b.byGoType = make(map[reflect.Type]*codec.Binding, len(d.Types))
	var faults []error
	for _, def := range d.Types {
		binding, err := b.codec.Bind(ctx, def)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		b.byType[def.Name] = binding
		if def.Kind == event.KindEvent {
			b.byGoType[def.GoType] = binding
		}
	}
	var err error
	b.state, err = b.codec.Bind(ctx, codec.TypeDef{
		Name: decider.StateType(b.Name), Version: d.StateVersion, Kind: event.KindState, GoType: d.StateType,
	})
	if err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// owns says whether a type belongs to this category.
func (b *boundCategory) owns(typ string) bool {
	return len(typ) > len(b.Name)+1 && strings.HasPrefix(typ, b.Name) && typ[len(b.Name)] == '.'
}

// decodeState returns the live state of a stream; it is the caller's own.
func (b *boundCategory) decodeState(encoded []byte) (any, error) {
	if encoded == nil {
		return b.Decider.Initial(), nil
	}
	frame, err := codec.ParseFrame(encoded)
	if err != nil {
		return nil, err
	}
	return b.state.Decode(codec.Payload{Registered: b.state.Registered(), Body: frame.Body})
}

func (b *boundCategory) encodeState(state any) ([]byte, error) { return b.appendState(nil, state) }

func (b *boundCategory) appendState(dst []byte, state any) ([]byte, error) {
	return b.state.Append(dst, state)
}

// evolve folds one event into a live state. A panic of the decider's is an error.
func (b *boundCategory) evolve(state any, m decider.Message) (next any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &DeciderError{Category: b.Name, Stream: m.Stream, Type: m.Type, Err: fmt.Errorf("Evolve panicked: %v", p)}
		}
	}()
	return b.Decider.Evolve(state, m), nil
}

func (b *boundCategory) decide(state any, m decider.Message) (d decider.Decision, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Decide panicked: %v", p)
		}
		if err != nil {
			err = &DeciderError{Category: b.Name, Stream: m.Stream, Type: m.Type, Err: err}
		}
	}()
	return b.Decider.Decide(state, m)
}

// DeciderError is an error or a panic of a team's own code: the partition waits and tries again,
// since going on would break the order of its commands.
type DeciderError struct {
	Category string
	Stream   event.StreamID
	Type     string
	Err      error
}

func (e *DeciderError) Error() string {
	return fmt.Sprintf("decider of %s on %s of stream %s: %v; the partition waits and tries again: mend the decider, or answer with decider.Reject what is a business refusal", e.Category, e.Type, e.Stream, e.Err)
}

func (e *DeciderError) Unwrap() error { return e.Err }
