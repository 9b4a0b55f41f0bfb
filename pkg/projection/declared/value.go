package declared

import (
	"encoding/json"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// adapter turns Go values into those of expressions. Maps are walked in the order of their keys,
// so that an expression over one gives the same value every time.
type adapter struct{}

// NativeToValue implements types.Adapter.
func (a adapter) NativeToValue(value any) ref.Val {
	switch v := value.(type) {
	case map[ref.Val]ref.Val:
		return newSortedMap(v)
	case []ref.Val:
		return types.NewRefValList(a, v)
	case ref.Val:
		return v
	case nil, bool, int64, float64, string, []byte, time.Time, time.Duration, map[string]any, []any:
		return dynamicValue(v)
	}
	return types.DefaultTypeAdapter.NativeToValue(value)
}

// valueOf makes the value of a datum that the codec decoded.
func valueOf(v reflect.Value, s *shape) ref.Val {
	if s.nullable {
		if v.IsNil() {
			return types.NullValue
		}
		if !s.decimal {
			v = v.Elem()
		}
	}
	switch s.form {
	case formText:
		if s.decimal {
			return types.String(decimalText(v, s.scale))
		}
		return types.String(v.String())
	case formInt:
		return types.Int(v.Int())
	case formDouble:
		return types.Double(v.Float())
	case formBool:
		return types.Bool(v.Bool())
	case formBytes:
		return types.Bytes(bytesOf(v))
	case formTime:
		return types.Timestamp{Time: v.Interface().(time.Time).UTC()}
	case formDuration:
		return types.Duration{Duration: time.Duration(v.Int())}
	case formList:
		items := make([]ref.Val, v.Len())
		for i := range items {
			items[i] = valueOf(v.Index(i), s.item)
		}
		return types.NewRefValList(adapter{}, items)
	case formMap:
		entries := make(map[ref.Val]ref.Val, v.Len())
		for it := v.MapRange(); it.Next(); {
			entries[types.String(it.Key().String())] = valueOf(it.Value(), s.item)
		}
		return newSortedMap(entries)
	case formRecord:
		return &object{typ: s.record.object(), src: v}
	case formDyn, formNull:
	}
	return dynamicValue(v.Interface())
}

// bytesOf copies: what the codec decoded may not be kept.
func bytesOf(v reflect.Value) []byte {
	out := make([]byte, v.Len())
	reflect.Copy(reflect.ValueOf(out), v)
	return out
}

func decimalText(v reflect.Value, scale int) string {
	rat, ok := v.Interface().(*big.Rat)
	if !ok || rat == nil {
		rat = new(big.Rat)
	}
	return rat.FloatString(scale)
}

// dynamicValue makes the value of what has no shape: a branch of an open union, or JSON.
func dynamicValue(v any) ref.Val {
	switch v := v.(type) {
	case nil:
		return types.NullValue
	case bool:
		return types.Bool(v)
	case int32:
		return types.Int(v)
	case int64:
		return types.Int(v)
	case float32:
		return types.Double(v)
	case float64:
		return types.Double(v)
	case json.Number:
		return numberValue(v)
	case string:
		return types.String(v)
	case []byte:
		return types.Bytes(slices.Clone(v))
	case time.Time:
		return types.Timestamp{Time: v.UTC()}
	case time.Duration:
		return types.Duration{Duration: v}
	case *big.Rat:
		digits, _ := v.FloatPrec()
		return types.String(v.FloatString(digits))
	case []any:
		items := make([]ref.Val, len(v))
		for i := range v {
			items[i] = dynamicValue(v[i])
		}
		return types.NewRefValList(adapter{}, items)
	case map[string]any:
		entries := make(map[ref.Val]ref.Val, len(v))
		for name, entry := range v {
			entries[types.String(name)] = dynamicValue(entry)
		}
		return newSortedMap(entries)
	case [16]byte:
		return types.String(fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:]))
	}
	if r := reflect.ValueOf(v); r.Kind() == reflect.Array && r.Type().Elem().Kind() == reflect.Uint8 {
		return types.Bytes(bytesOf(r))
	}
	return types.NewErr("a value of Go type %T has no form in expressions", v)
}

// numberValue reads a number of JSON: a whole one as int, where it fits.
func numberValue(n json.Number) ref.Val {
	if i, err := n.Int64(); err == nil {
		return types.Int(i)
	}
	f, err := n.Float64()
	if err != nil {
		return types.NewErr("the number %s is out of range", n)
	}
	return types.Double(f)
}

// sortedMap is a map that is walked in the order of its keys.
type sortedMap struct {
	traits.Mapper
	keys []ref.Val
}

func newSortedMap(entries map[ref.Val]ref.Val) ref.Val {
	m := &sortedMap{Mapper: types.NewRefValMap(adapter{}, entries), keys: make([]ref.Val, 0, len(entries))}
	for key := range entries {
		m.keys = append(m.keys, key)
	}
	slices.SortFunc(m.keys, compareKeys)
	return m
}

// sortedLiteral is a map literal of an expression, which the interpreter would walk in no order.
type sortedLiteral struct {
	interpreter.InterpretableConstructor
}

// sortLiterals decorates programs.
func sortLiterals(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	if made, ok := i.(interpreter.InterpretableConstructor); ok && made.Type().TypeName() == types.MapType.TypeName() {
		return &sortedLiteral{made}, nil
	}
	return i, nil
}

// Exec implements interpreter.InterpretableV2.
func (l *sortedLiteral) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	return sorted(l.InterpretableConstructor.Exec(frame))
}

// Eval implements interpreter.Interpretable.
func (l *sortedLiteral) Eval(vars interpreter.Activation) ref.Val {
	return sorted(l.InterpretableConstructor.Eval(vars))
}

func sorted(v ref.Val) ref.Val {
	m, ok := v.(traits.Mapper)
	if !ok {
		return v // an error
	}
	out := &sortedMap{Mapper: m}
	for it := m.Iterator(); it.HasNext() == types.True; {
		out.keys = append(out.keys, it.Next())
	}
	slices.SortFunc(out.keys, compareKeys)
	return out
}

// compareKeys orders keys of one type by their value, and those of different types by its name.
func compareKeys(a, b ref.Val) int {
	if a.Type() == b.Type() {
		if c, ok := a.(traits.Comparer); ok {
			if order, ok := c.Compare(b).(types.Int); ok {
				return int(order)
			}
		}
	}
	ta, tb := a.Type().TypeName(), b.Type().TypeName()
	switch {
	case ta < tb:
		return -1
	case ta > tb:
		return 1
	}
	return 0
}

// Iterator implements traits.Iterable.
func (m *sortedMap) Iterator() traits.Iterator {
	return types.NewRefValList(adapter{}, m.keys).(traits.Iterable).Iterator()
}

// objectType is a type with named fields: a record, the row, stream or meta.
type objectType struct {
	name   string
	names  []string
	fields map[string]objectField
}

type objectField struct {
	typ *types.Type
	get func(src any) any // a ref.Val, or a Go value that the adapter takes
}

// object is a value of an objectType.
type object struct {
	typ *objectType
	src any
}

// field returns a field's value.
func (o *object) field(name string) ref.Val {
	f, known := o.typ.fields[name]
	if !known {
		return types.NewErr("no such field '%s'", name)
	}
	return adapter{}.NativeToValue(f.get(o.src))
}

// ConvertToNative implements ref.Val.
func (o *object) ConvertToNative(typ reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s has no form as %s", o.typ.name, typ)
}

// ConvertToType implements ref.Val.
func (o *object) ConvertToType(typ ref.Type) ref.Val {
	if typ.TypeName() == o.Type().TypeName() {
		return o
	}
	return types.NewErr("%s cannot be converted to %s", o.typ.name, typ.TypeName())
}

// Equal implements ref.Val: field by field.
func (o *object) Equal(other ref.Val) ref.Val {
	that, ok := other.(*object)
	if !ok || that.typ.name != o.typ.name {
		return types.False
	}
	for _, name := range o.typ.names {
		if types.Equal(o.field(name), that.field(name)) != types.True {
			return types.False
		}
	}
	return types.True
}

// Type implements ref.Val.
func (o *object) Type() ref.Type { return types.NewObjectType(o.typ.name) }

// Value implements ref.Val.
func (o *object) Value() any { return o }

// Get implements traits.Indexer.
func (o *object) Get(index ref.Val) ref.Val {
	name, ok := index.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(index)
	}
	return o.field(string(name))
}

// IsSet implements traits.FieldTester.
func (o *object) IsSet(field ref.Val) ref.Val {
	return types.Bool(o.Get(field) != types.NullValue)
}
