package codec

import (
	"context"
	"errors"
	"time"

	"github.com/foldstream/foldstream/pkg/event"
)

type Fingerprint uint64
type Schema struct{ text, name, canonical string }

func Parse(text string) (*Schema, error)                 { return nil, errNotBuilt }
func (s *Schema) Name() string                           { return s.name }
func (s *Schema) Text() string                           { return s.text }
func (s *Schema) Canonical() string                      { return s.canonical }
func (s *Schema) Fingerprint() Fingerprint               { return 0 }
func (s *Schema) Prop(name string) string                { return "" }
func (s *Schema) Check(body []byte, limits Limits) error { return errNotBuilt }

type Limits struct{ BytesMax, DepthMax, ValuesMax, RegrowthSlotsMax int }
type Framing uint8

const (
	FramingConfluent Framing = iota
	FramingSingleObject
)

type Frame struct {
	Framing     Framing
	ID          int32
	Fingerprint Fingerprint
	Body        []byte
}

func ParseFrame(value []byte) (Frame, error)               { return Frame{}, errNotBuilt }
func AppendConfluent(dst []byte, id int32) []byte          { return dst }
func AppendSingleObject(dst []byte, fp Fingerprint) []byte { return dst }

type Config struct{ Limits Limits }
type Codec struct{}

func New(reader Reader, cfg Config) *Codec { return &Codec{} }

type Payload struct {
	Registered *Registered
	Body       []byte
}

func (c *Codec) Inspect(ctx context.Context, typ string, value []byte) (Payload, error) {
	return Payload{}, errNotBuilt
}
func (c *Codec) InspectBody(ctx context.Context, typ string, schemaID int32, body []byte) (Payload, error) {
	return Payload{}, errNotBuilt
}
func (c *Codec) Bind(ctx context.Context, def TypeDef) (*Binding, error) { return nil, errNotBuilt }
func (c *Codec) DecodeMap(p Payload) (map[string]any, error)             { return nil, errNotBuilt }

type Binding struct{}

func (b *Binding) Decode(p Payload) (any, error)            { return nil, errNotBuilt }
func (b *Binding) Append(dst []byte, v any) ([]byte, error) { return dst, errNotBuilt }
func (b *Binding) Registered() *Registered                  { return nil }

const (
	TypeAppend = "foldstream.Append"
	TypeReply  = "foldstream.Reply"
)

type AppendEnvelope struct {
	Events []AppendItem `avro:"events"`
}
type AppendItem struct {
	Type     string    `avro:"type"`
	ID       string    `avro:"id"`
	Time     time.Time `avro:"time"` // zero: the request's
	SchemaID int32     `avro:"schemaId"`
	Data     []byte    `avro:"data"`
}
type Reply struct {
	RequestID     string   `avro:"requestId"`
	Outcome       string   `avro:"outcome"`
	Category      string   `avro:"category"`
	StreamID      string   `avro:"streamId"`
	FirstVersion  int64    `avro:"firstVersion"`
	LastVersion   int64    `avro:"lastVersion"`
	ActualVersion int64    `avro:"actualVersion"`
	Partition     int32    `avro:"partition"`
	Offset        int64    `avro:"offset"`
	Code          string   `avro:"code"`
	Message       string   `avro:"message"`
	Errors        []string `avro:"errors"`
	Attempt       string   `avro:"attempt"`
}

var errNotBuilt = errors.New("not built yet")
var (
	ErrBadData       = errors.New("bad data")
	ErrUnknownSchema = errors.New("unknown schema")
	ErrFrame         = errors.New("bad frame")
	ErrTypeMismatch  = errors.New("schema is not the type's")
	ErrHostile       = errors.New("refused by the guard")
	ErrIncompatible  = errors.New("incompatible schemas")
	ErrUpcast        = errors.New("upcaster failed")
)

type Error struct {
	Op, Type string
	SchemaID int32
	Err      error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

type CompatibilityError struct {
	Type    string
	Version int
	Against int
	Faults  []string
}

func (e *CompatibilityError) Error() string { return e.Type }

type Fault struct{ Path, Message, Remedy string }

func Lint(s *Schema) []Fault                          { return nil }
func CheckCompatible(reader, writer *Schema) []Fault  { return nil }
func SecondOpinion(s *Schema, bodies ...[]byte) error { return nil }

type StaticReader struct{}

func NewStaticReader(regs ...*Registered) *StaticReader { return &StaticReader{} }
func (r *StaticReader) ByID(ctx context.Context, id int32) (*Registered, error) {
	return nil, ErrUnknownSchema
}
func (r *StaticReader) ByFingerprint(ctx context.Context, fingerprint Fingerprint) (*Registered, error) {
	return nil, ErrUnknownSchema
}
func (r *StaticReader) Latest(ctx context.Context, typ string) (*Registered, error) {
	return nil, ErrUnknownSchema
}
func (r *StaticReader) Version(ctx context.Context, typ string, version int) (*Registered, error) {
	return nil, ErrUnknownSchema
}
func RegisterText(id int32, typ string, version int, kind event.Kind, text string) (*Registered, error) {
	return nil, errNotBuilt
}
