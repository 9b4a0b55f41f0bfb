package codec

import (
	"context"
	"reflect"

	"github.com/foldstream/foldstream/pkg/event"
)

// Registered is one version of one subject, as a registry holds it. Immutable.
type Registered struct {
	ID      int32      // the framing id
	Type    string     // the ce_type; equals the subject
	Version int        // from 1, per subject
	Kind    event.Kind // command, event, state or system
	Schema  *Schema
}

// Reader looks schemas up. Implementations cache; a call for something known does no I/O.
// All methods may be called from any goroutine. What is not there answers ErrUnknownSchema.
type Reader interface {
	ByID(ctx context.Context, id int32) (*Registered, error)
	ByFingerprint(ctx context.Context, fingerprint Fingerprint) (*Registered, error)
	// Latest returns the highest version of a type.
	Latest(ctx context.Context, typ string) (*Registered, error)
	// Version returns one version of a type.
	Version(ctx context.Context, typ string, version int) (*Registered, error)
}

// Upcaster turns the generic form of a payload at one schema version into that of the next.
// It must not keep or share the map.
type Upcaster func(map[string]any) (map[string]any, error)

// TypeDef ties a registered type to a Go struct. Made by decider.Command, decider.Event and
// projection.On.
type TypeDef struct {
	Name      string // ce_type
	Version   int    // the schema version that GoType binds to
	Kind      event.Kind
	GoType    reflect.Type     // a struct with `avro` tags; nil means generic maps
	Upcasters map[int]Upcaster // from version n to n+1
}
