package codec

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Config of a Codec. The zero value means defaults.
type Config struct {
	// Limits bound every body that is read or written.
	Limits Limits
	// SchemasCachedMax bounds the schemas that the codec remembers; beyond, the Reader is asked
	// each time. Default 10,000.
	SchemasCachedMax int
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.withDefaults()
	if c.SchemasCachedMax <= 0 {
		c.SchemasCachedMax = 10_000
	}
	return c
}

// Codec reads and writes the values of one registry's types.
type Codec struct {
	reader        Reader
	config        Config
	byID          grower[int32, *Registered]
	byFingerprint grower[Fingerprint, *Registered]
}

// New returns a codec over a registry's reader.
func New(reader Reader, cfg Config) *Codec {
	cfg = cfg.withDefaults()
	c := &Codec{reader: reader, config: cfg}
	c.byID.max, c.byFingerprint.max = cfg.SchemasCachedMax, cfg.SchemasCachedMax
	return c
}

// Payload is a body that the guard has passed, with its writer schema. Only Inspect and
// InspectBody make one. Body references the caller's bytes.
type Payload struct {
	Registered *Registered
	Body       []byte
}

// Inspect takes a framed value apart, finds its schema, checks that it is a schema of typ (the
// record's ce_type), and has the guard walk the body. Errors are *Error; see the package's doc
// for what they mean.
func (c *Codec) Inspect(ctx context.Context, typ string, value []byte) (Payload, error) {
	frame, err := ParseFrame(value)
	if err != nil {
		return Payload{}, &Error{Op: OpFrame, Type: typ, Err: err}
	}
	if frame.Framing == FramingConfluent {
		return c.InspectBody(ctx, typ, frame.ID, frame.Body)
	}
	reg, err := c.lookUpFingerprint(ctx, frame.Fingerprint)
	if err != nil {
		return Payload{}, &Error{Op: OpSchema, Type: typ, Err: err}
	}
	return c.inspect(reg, typ, frame.Body)
}

// InspectBody is Inspect for a body without framing, as an item of foldstream.Append has.
func (c *Codec) InspectBody(ctx context.Context, typ string, schemaID int32, body []byte) (Payload, error) {
	reg, ok := c.byID.get(schemaID)
	if !ok {
		var err error
		if reg, err = c.reader.ByID(ctx, schemaID); err != nil {
			return Payload{}, &Error{Op: OpSchema, Type: typ, SchemaID: schemaID, Err: err}
		}
		c.byID.put(schemaID, reg)
	}
	return c.inspect(reg, typ, body)
}

func (c *Codec) lookUpFingerprint(ctx context.Context, fp Fingerprint) (*Registered, error) {
	if reg, ok := c.byFingerprint.get(fp); ok {
		return reg, nil
	}
	reg, err := c.reader.ByFingerprint(ctx, fp)
	if err != nil {
		return nil, err
	}
	c.byFingerprint.put(fp, reg)
	return reg, nil
}

func (c *Codec) inspect(reg *Registered, typ string, body []byte) (Payload, error) {
	if reg.Type != typ {
		err := fmt.Errorf("%w: it is registered for %s, the record says %q", ErrTypeMismatch, reg.Type, clip(typ))
		return Payload{}, &Error{Op: OpSchema, Type: typ, SchemaID: reg.ID, Err: err}
	}
	if err := reg.Schema.check(body, c.config.Limits); err != nil {
		return Payload{}, &Error{Op: OpGuard, Type: typ, SchemaID: reg.ID, Err: err}
	}
	return Payload{Registered: reg, Body: body}, nil
}

// DecodeMap decodes a payload by its own schema. Values are nil, bool, int32, int64, float32,
// float64, string, []byte, []any, map[string]any; of logical types time.Time in UTC,
// time.Duration, *big.Rat, [16]byte for a fixed uuid. A union's value stands without a tag.
func (c *Codec) DecodeMap(p Payload) (map[string]any, error) {
	if err := p.made(); err != nil {
		return nil, err
	}
	var m map[string]any
	if err := decode(p.Registered.Schema.avro, p.Body, &m); err != nil {
		return nil, &Error{Op: OpDecode, Type: p.Registered.Type, SchemaID: p.Registered.ID, Err: err}
	}
	return m, nil
}

func (p Payload) made() error {
	if p.Registered == nil {
		return &Error{Op: OpDecode, Err: fmt.Errorf("%w: payload is empty; only Inspect makes one", ErrBinding)}
	}
	return nil
}

// grower is a map that is read without a lock and copied to grow, up to max entries. What it
// holds never changes: a schema id is never given to another schema.
type grower[K comparable, V any] struct {
	held atomic.Pointer[map[K]V]
	mu   sync.Mutex
	max  int
}

func (g *grower[K, V]) get(key K) (V, bool) {
	held := g.held.Load()
	if held == nil {
		var none V
		return none, false
	}
	v, ok := (*held)[key]
	return v, ok
}

func (g *grower[K, V]) put(key K, value V) {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := map[K]V{}
	if held := g.held.Load(); held != nil {
		if len(*held) >= g.max {
			return
		}
		next = make(map[K]V, len(*held)+1)
		for k, v := range *held {
			next[k] = v
		}
	}
	next[key] = value
	g.held.Store(&next)
}
