package declared

import (
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
)

// form is what sort of value an expression sees.
type form uint8

const (
	formDyn      form = iota // known only when it is there
	formNull                 // null
	formText                 // string, enum, uuid, decimal
	formInt                  // int, long
	formDouble               // float, double
	formBool                 // boolean
	formBytes                // bytes, fixed
	formTime                 // timestamps and dates
	formDuration             // times of day
	formList
	formMap // keys are texts
	formRecord
)

// shape is how one datum of an Avro schema looks in Go and in expressions.
type shape struct {
	form     form
	nullable bool         // goType is a pointer, nil where the event has null
	goType   reflect.Type // what the codec decodes into
	scale    int          // of a decimal
	decimal  bool
	item     *shape // of a list or a map
	record   *recordShape
}

// recordShape is one record: its fields in the schema's order, in Go the fields of a struct.
type recordShape struct {
	name   string // unique in the view; what messages call it
	fields []recordField
	byName map[string]int
	sorted []int // indexes of fields by their names
	once   sync.Once
	typ    *objectType
}

type recordField struct {
	name string
	*shape
}

// structOf makes the shape of an event type from its schema's text. The Go struct that goes with
// it binds to the schema, so that decoding takes the same fast path as for a struct of a team's.
func structOf(typ, text string) (*shape, error) {
	root, err := parseAVSC(text)
	if err != nil {
		return nil, err
	}
	b := shapeBuilder{typ: typ, named: map[string]*avsc{}, open: map[string]bool{}, names: map[string]int{}}
	s, err := b.shape(root, "")
	if err != nil {
		return nil, err
	}
	if s.form != formRecord {
		return nil, fmt.Errorf("the schema of %s is no record", typ)
	}
	return s, nil
}

type shapeBuilder struct {
	typ   string
	named map[string]*avsc
	open  map[string]bool // records that hold the one being made
	names map[string]int
	nodes int
}

// shapeNodesMax bounds a struct: named types are written out wherever they are used.
const shapeNodesMax = 5_000

var (
	anyType      = reflect.TypeFor[any]()
	bytesType    = reflect.TypeFor[[]byte]()
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	ratType      = reflect.TypeFor[*big.Rat]()
)

func dynamic() *shape { return &shape{form: formDyn, goType: anyType} }

// shape makes the shape of n.
func (b *shapeBuilder) shape(n *avsc, namespace string) (*shape, error) {
	if b.nodes++; b.nodes > shapeNodesMax {
		return nil, fmt.Errorf("the schema of %s unfolds to more than %d fields", b.typ, shapeNodesMax)
	}
	if s := primitive(n); s != nil {
		return s, nil
	}
	switch n.Type {
	case "null":
		return dynamic(), nil
	case "array", "map":
		return b.container(n, namespace)
	case "union":
		return b.union(n, namespace)
	case "enum", "fixed":
		b.named[fullName(n, namespace)] = n
		return named(n), nil
	case "record", "error":
		b.named[fullName(n, namespace)] = n
		return b.recordOf(n, fullName(n, namespace))
	}
	return b.reference(n.Type, namespace)
}

func primitive(n *avsc) *shape {
	switch n.Type {
	case "boolean":
		return &shape{form: formBool, goType: reflect.TypeFor[bool]()}
	case "int", "long":
		return integer(n.Type, n.Logical)
	case "float":
		return &shape{form: formDouble, goType: reflect.TypeFor[float32]()}
	case "double":
		return &shape{form: formDouble, goType: reflect.TypeFor[float64]()}
	case "string":
		return &shape{form: formText, goType: reflect.TypeFor[string]()}
	case "bytes":
		return binary(n)
	}
	return nil
}

// logicalOn says which type a logical type of time stands on; on another it means nothing.
var logicalOn = map[string]string{
	"date": "int", "time-millis": "int", "time-micros": "long",
	"timestamp-millis": "long", "timestamp-micros": "long", "timestamp-nanos": "long",
	"local-timestamp-millis": "long", "local-timestamp-micros": "long", "local-timestamp-nanos": "long",
}

func integer(typ, logical string) *shape {
	switch {
	case logicalOn[logical] != typ:
	case strings.HasPrefix(logical, "time-"):
		return &shape{form: formDuration, goType: durationType}
	default:
		return &shape{form: formTime, goType: timeType}
	}
	if typ == "int" {
		return &shape{form: formInt, goType: reflect.TypeFor[int32]()}
	}
	return &shape{form: formInt, goType: reflect.TypeFor[int64]()}
}

// binary makes bytes, or a decimal on them. A big-decimal has no scale of its own.
func binary(n *avsc) *shape {
	switch n.Logical {
	case "decimal":
		return &shape{form: formText, goType: ratType, decimal: true, scale: n.Scale}
	case "big-decimal":
		return dynamic()
	}
	return &shape{form: formBytes, goType: bytesType}
}

// named makes an enum, which is a text, or a fixed.
func named(n *avsc) *shape {
	switch {
	case n.Type == "enum":
		return &shape{form: formText, goType: reflect.TypeFor[string]()}
	case n.Logical == "decimal":
		return &shape{form: formText, goType: ratType, decimal: true, scale: n.Scale}
	case n.Logical == "uuid":
		return dynamic()
	}
	return &shape{form: formBytes, goType: reflect.ArrayOf(n.Size, reflect.TypeFor[byte]())}
}

func (b *shapeBuilder) container(n *avsc, namespace string) (*shape, error) {
	f := formList
	if n.Type == "map" {
		f = formMap
	}
	if n.Items == nil {
		return nil, fmt.Errorf("a type %s does not say of what", n.Type)
	}
	item, err := b.shape(n.Items, namespace)
	if err != nil {
		return nil, err
	}
	goType := reflect.SliceOf(item.goType)
	if f == formMap {
		goType = reflect.MapOf(reflect.TypeFor[string](), item.goType)
	}
	return &shape{form: f, goType: goType, item: item}, nil
}

// union makes a nullable of null and one other type; other unions are known when they are there.
func (b *shapeBuilder) union(n *avsc, namespace string) (*shape, error) {
	if len(n.Branches) != 2 {
		return b.openUnion(n, namespace)
	}
	one := n.Branches[0]
	switch {
	case one.Type == "null":
		one = n.Branches[1]
	case n.Branches[1].Type != "null":
		return b.openUnion(n, namespace)
	}
	s, err := b.shape(one, namespace)
	if err != nil || s.form == formDyn {
		return s, err
	}
	nullable := *s
	nullable.nullable = true
	if !s.decimal { // a *big.Rat is a pointer already
		nullable.goType = reflect.PointerTo(s.goType)
	}
	return &nullable, nil
}

// openUnion walks the branches for the names that they define.
func (b *shapeBuilder) openUnion(n *avsc, namespace string) (*shape, error) {
	for i := range n.Branches {
		if _, err := b.shape(n.Branches[i], namespace); err != nil {
			return nil, err
		}
	}
	return dynamic(), nil
}

func (b *shapeBuilder) recordOf(n *avsc, full string) (*shape, error) {
	if b.open[full] {
		return dynamic(), nil // a record within itself: no Go struct can hold it
	}
	b.open[full] = true
	defer delete(b.open, full)
	r := &recordShape{name: b.unique(full), byName: map[string]int{}}
	var fields []reflect.StructField
	for i := range n.Fields {
		f := &n.Fields[i]
		s, err := b.shape(f.Type, namespaceOf(full))
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
		r.byName[f.Name] = len(r.fields)
		r.fields = append(r.fields, recordField{name: f.Name, shape: s})
		fields = append(fields, reflect.StructField{
			Name: "F" + strconv.Itoa(i), Type: s.goType, Tag: reflect.StructTag(`avro:"` + f.Name + `"`),
		})
	}
	for i := range r.fields {
		r.sorted = append(r.sorted, i)
	}
	slices.SortFunc(r.sorted, func(i, j int) int { return strings.Compare(r.fields[i].name, r.fields[j].name) })
	return &shape{form: formRecord, goType: reflect.StructOf(fields), record: r}, nil
}

// unique is the name of a record in expressions' types: that of the event, and below it.
func (b *shapeBuilder) unique(full string) string {
	name := b.typ
	if len(b.open) > 1 {
		name += "." + full[strings.LastIndexByte(full, '.')+1:]
	}
	b.names[name]++
	if n := b.names[name]; n > 1 {
		name += "_" + strconv.Itoa(n)
	}
	return name
}

func (b *shapeBuilder) reference(name, namespace string) (*shape, error) {
	for _, full := range []string{namespace + "." + name, name} {
		if n, ok := b.named[full]; ok {
			if n.Type == "record" || n.Type == "error" {
				return b.recordOf(n, full)
			}
			return named(n), nil
		}
	}
	return nil, fmt.Errorf("type %q is not defined in the schema of %s", name, b.typ)
}

func fullName(n *avsc, namespace string) string {
	switch {
	case strings.Contains(n.Name, "."):
		return n.Name
	case n.Namespace != "":
		return n.Namespace + "." + n.Name
	case namespace != "":
		return namespace + "." + n.Name
	}
	return n.Name
}

func namespaceOf(full string) string {
	if i := strings.LastIndexByte(full, '.'); i >= 0 {
		return full[:i]
	}
	return ""
}

// celType is the shape's type in expressions. A nullable text, number or bool is a wrapper, which
// may be compared with null; the other types may be null by themselves.
func (s *shape) celType() *cel.Type {
	t := cel.DynType
	switch s.form {
	case formText:
		t = cel.StringType
	case formInt:
		t = cel.IntType
	case formDouble:
		t = cel.DoubleType
	case formBool:
		t = cel.BoolType
	case formBytes:
		t = cel.BytesType
	case formTime:
		return cel.TimestampType
	case formDuration:
		return cel.DurationType
	case formList:
		return cel.ListType(s.item.celType())
	case formMap:
		return cel.MapType(cel.StringType, s.item.celType())
	case formRecord:
		return cel.ObjectType(s.record.name)
	case formDyn, formNull:
		return t
	}
	if s.nullable {
		return cel.NullableType(t)
	}
	return t
}
