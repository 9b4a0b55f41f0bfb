package declared

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
	"github.com/foldstream/foldstream/pkg/projection"
)

// The names that expressions see.
const (
	nameEvent     = "event"
	nameRow       = "row"
	nameRowExists = "row_exists"
	nameStream    = "stream"
	nameMeta      = "meta"
	nameItem      = "item"
)

// Limits of one evaluation.
const (
	// CostMax bounds what one expression may cost for one event, in CEL's units: about one for
	// each step, and one for ten bytes of text. Beyond it the event is at fault.
	CostMax = 100_000

	depthMax       = 100
	regexSizeMax   = 10_000
	precisionMax   = 100
	rangeItemsMax  = 10_000
	recoveryErrors = 1
)

// object makes the type that expressions see of a record.
func (r *recordShape) object() *objectType {
	r.once.Do(func() {
		r.typ = &objectType{name: r.name, fields: map[string]objectField{}}
		for i, f := range r.fields {
			r.typ.names = append(r.typ.names, f.name)
			r.typ.fields[f.name] = objectField{typ: f.celType(), get: func(src any) any {
				return valueOf(src.(reflect.Value).Field(i), f.shape)
			}}
		}
	})
	return r.typ
}

// scope is what the expressions of one rule see of one event. It is an Activation.
type scope struct {
	event *projection.Event
	data  reflect.Value // the struct that the codec decoded
	shape *shape
	row   *rowState // entity views
	item  itemNow   // each, and delete from a list
	// rowType is the type of row.
	rowType *objectType
	scratch []byte           // JSON being written
	own     projection.Event // where event points
}

// ResolveName implements cel.Activation.
func (s *scope) ResolveName(name string) (any, bool) {
	switch name {
	case nameEvent:
		return &object{typ: s.shape.record.object(), src: s.data}, true
	case nameRow:
		return &object{typ: s.rowType, src: s}, s.row != nil
	case nameRowExists:
		return types.Bool(s.row != nil && s.row.exists), s.row != nil
	case nameStream:
		return &object{typ: streamType, src: s}, true
	case nameMeta:
		return &object{typ: metaType, src: s}, true
	case nameItem:
		v, err := s.item.value()
		if err != nil {
			return types.WrapErr(err), true
		}
		return v, v != nil
	}
	return nil, false
}

// Parent implements cel.Activation.
func (s *scope) Parent() cel.Activation { return nil }

// plainField is a field of stream or meta: as a value, and without boxing.
type plainField struct {
	name string
	form form
	text func(e *projection.Event) string
	num  func(e *projection.Event) int64
	time func(e *projection.Event) time.Time
}

var streamFields = []plainField{
	{name: "id", form: formText, text: func(e *projection.Event) string { return e.Stream.ID }},
	{name: "category", form: formText, text: func(e *projection.Event) string { return e.Stream.Category }},
}

var metaFields = []plainField{
	{name: "version", form: formInt, num: func(e *projection.Event) int64 { return int64(e.Version) }},
	{name: "id", form: formText, text: func(e *projection.Event) string { return e.ID }},
	{name: "type", form: formText, text: func(e *projection.Event) string { return e.Type }},
	{name: "time", form: formTime, time: func(e *projection.Event) time.Time { return e.Time }},
	{name: "correlation", form: formText, text: func(e *projection.Event) string { return e.CorrelationID }},
	{name: "causation", form: formText, text: func(e *projection.Event) string { return e.CausationID }},
	{name: "user", form: formText, text: func(e *projection.Event) string { return e.UserID }},
}

var (
	streamType = plainType("stream", streamFields)
	metaType   = plainType("meta", metaFields)
)

func plainType(name string, fields []plainField) *objectType {
	t := &objectType{name: "foldstream." + name, fields: map[string]objectField{}}
	for _, f := range fields {
		t.names = append(t.names, f.name)
		t.fields[f.name] = objectField{typ: (&shape{form: f.form}).celType(), get: func(src any) any {
			e := src.(*scope).event
			switch f.form {
			case formInt:
				return types.Int(f.num(e))
			case formTime:
				return types.Timestamp{Time: f.time(e).UTC()}
			}
			return types.String(f.text(e))
		}}
	}
	return t
}

// provider tells the checker which fields objects have.
type provider struct {
	types.Provider
	objects map[string]*objectType
}

// FindStructType implements types.Provider.
func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if _, ours := p.objects[name]; ours {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return p.Provider.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if t, ours := p.objects[name]; ours {
		return slices.Clone(t.names), true
	}
	return p.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider. A field of null is null: a path through a record
// that is not there ends in null, and has() says that it is not there.
func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	t, ours := p.objects[name]
	if !ours {
		return p.Provider.FindStructFieldType(name, field)
	}
	f, known := t.fields[field]
	if !known {
		return nil, false
	}
	get := func(target any) any {
		if o, ok := target.(*object); ok {
			return f.get(o.src)
		}
		return types.NullValue
	}
	return &types.FieldType{
		Type:    f.typ,
		IsSet:   func(target any) bool { return get(target) != any(types.NullValue) },
		GetFrom: func(target any) (any, error) { return get(target), nil },
	}, true
}

// NewValue implements types.Provider: expressions make no records.
func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if _, ours := p.objects[name]; ours {
		return types.NewErr("a %s cannot be made: write a map, such as {'id': event.id}", name)
	}
	return p.Provider.NewValue(name, fields)
}

// baseEnv has the functions of every view. Libraries are pinned to a version, so that a newer
// cel-go does not change what an expression means.
var baseEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.CustomTypeAdapter(adapter{}),
		cel.OptionalTypes(cel.OptionalTypesVersion(2)),
		ext.Strings(ext.StringsVersion(5), ext.StringsMaxPrecision(precisionMax)),
		ext.Math(ext.MathVersion(3)),
		ext.Lists(ext.ListsVersion(5), ext.ListsMaxRangeSize(rangeItemsMax)),
		ext.Bindings(ext.BindingsVersion(0)),
		cel.ParserRecursionLimit(depthMax),
		cel.ExpressionNestingDepthLimit(depthMax),
		cel.ParserErrorRecoveryLimit(recoveryErrors),
		cel.ParserExpressionSizeLimit(ExpressionBytesMax),
		cel.RegexProgramSizeLimit(regexSizeMax),
		cel.Function(functionMillis, cel.Overload(functionMillis+"_duration", []*cel.Type{cel.DurationType}, cel.IntType,
			cel.UnaryBinding(func(d ref.Val) ref.Val { return types.Int(d.(types.Duration).Milliseconds()) }))),
		cel.Function(functionTruncate, cel.Overload(functionTruncate+"_timestamp_duration",
			[]*cel.Type{cel.TimestampType, cel.DurationType}, cel.TimestampType, cel.BinaryBinding(truncateValue))),
	)
})

// Functions of our own.
const (
	functionMillis   = "millis"   // millis(duration): whole milliseconds
	functionTruncate = "truncate" // truncate(timestamp, duration): down to a multiple, in UTC
)

func truncateValue(at, by ref.Val) ref.Val {
	t, err := truncateTime(at.(types.Timestamp).Time, by.(types.Duration).Duration)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Timestamp{Time: t}
}

func truncateTime(at time.Time, by time.Duration) (time.Time, error) {
	if by <= 0 {
		return at, fmt.Errorf("truncate(…, duration): %s is not above zero", by)
	}
	return at.UTC().Truncate(by), nil
}

// subtractTimes is timestamp - timestamp, which CEL refuses beyond about 292 years.
func subtractTimes(a, b time.Time) (time.Duration, error) {
	d := a.Sub(b)
	if d == math.MaxInt64 || d == math.MinInt64 {
		return 0, fmt.Errorf("the time between %s and %s is out of range", b.Format(time.RFC3339), a.Format(time.RFC3339))
	}
	return d, nil
}

// recordsOf lists a shape's records, each once.
func recordsOf(s *shape, into map[string]*objectType) {
	switch {
	case s.record != nil:
		into[s.record.name] = s.record.object()
		for _, f := range s.record.fields {
			recordsOf(f.shape, into)
		}
	case s.item != nil:
		recordsOf(s.item, into)
	}
}
