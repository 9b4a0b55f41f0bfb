package declared

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/foldstream/foldstream/pkg/projection"
)

// The years that a time column takes: what the log's headers allow.
const (
	yearMin = 1
	yearMax = 9999

	secondMin = -62_135_596_800 // 0001-01-01T00:00:00Z, in seconds since 1970
	secondMax = 253_402_300_799 // 9999-12-31T23:59:59Z
)

// columnType is one of the types that a column may have.
type columnType struct {
	name string
	wire string
	form form
	zero any // what a column is before it is set
}

var columnTypes = []columnType{
	{"text", "text", formText, ""},
	{"bigint", "bigint", formInt, int64(0)},
	{"integer", "bigint", formInt, int64(0)},
	{"smallint", "bigint", formInt, int64(0)},
	{"boolean", "boolean", formBool, false},
	{"double precision", "double precision", formDouble, 0.0},
	{"timestamptz", "timestamptz", formTime, time.Time{}},
	{"text[]", "text[]", formList, []string{}},
	{"jsonb", "jsonb", formDyn, projection.JSON("null")},
}

// typeAliases are words that people write for a type.
var typeAliases = map[string]string{
	"string": "text", "varchar": "text", "uuid": "text", "int": "integer", "int4": "integer", "int8": "bigint", "long": "bigint",
	"bool": "boolean", "double": "double precision", "float": "double precision", "float8": "double precision",
	"timestamp": "timestamptz", "json": "jsonb", "date": "timestamptz", "numeric": "bigint or text", "decimal": "bigint or text",
}

func columnTypeNames() []string {
	var names []string
	for _, t := range columnTypes {
		names = append(names, t.name)
	}
	return names
}

// column is one column of the view.
type column struct {
	columnType
	title    string
	nullable bool
	merge    projection.Merge
	by       []string // a list of JSON that is kept in this order
}

func (c *column) projection() projection.Column {
	return projection.Column{Name: c.title, Type: c.name, Wire: c.wire, Nullable: c.nullable || c.merge == projection.MergeMin || c.merge == projection.MergeMax, Merge: c.merge}
}

// initial is the column's value in a new row.
func (c *column) initial() any {
	if c.nullable {
		return nil
	}
	return c.zero
}

// celType is the type of row.<column>.
func (c *column) celType() *cel.Type {
	if c.form == formList {
		return cel.ListType(cel.StringType)
	}
	return (&shape{form: c.form, nullable: c.nullable}).celType()
}

// wants names what an expression for the column must be.
func (c *column) wants() string {
	switch c.form {
	case formText:
		return "a string"
	case formInt:
		return "an int"
	case formBool:
		return "a bool"
	case formDouble:
		return "a double"
	case formTime:
		return "a timestamp"
	case formList:
		return "a list of strings"
	}
	return "any value that JSON can hold"
}

// check refuses what Postgres could not hold, and returns the value as Postgres gives it back.
// What need not change is returned as it came: boxing it again would cost an allocation.
func (c *column) check(v any) (any, error) {
	switch held := v.(type) {
	case nil:
		if !c.nullable && c.merge == "" {
			return nil, errors.New("it is null, and the column is not nullable")
		}
	case string:
		return v, projection.CheckText(held)
	case int64:
		return v, c.checkRange(held)
	case float64:
		if held == 0 {
			return 0.0, nil // Postgres tells -0 from 0 only in its text form
		}
	case time.Time:
		if at := held.Unix(); at < secondMin || at > secondMax {
			return nil, fmt.Errorf("%w: year %d is outside %d to %d", projection.ErrValue, held.Year(), yearMin, yearMax)
		}
		if held.Location() != time.UTC || held.Nanosecond()%1000 != 0 {
			return held.UTC().Truncate(time.Microsecond), nil
		}
	case []string:
		for _, text := range held {
			if err := projection.CheckText(text); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (c *column) checkRange(n int64) error {
	if (c.name == "integer" && (n > math.MaxInt32 || n < math.MinInt32)) || (c.name == "smallint" && (n > math.MaxInt16 || n < math.MinInt16)) {
		return fmt.Errorf("%w: %d is out of range for %s", projection.ErrValue, n, c.name)
	}
	return nil
}

// fromValue makes a stored value of what the interpreter came to.
func (c *column) fromValue(v ref.Val) (any, error) {
	if v == types.NullValue {
		if c.wire == "jsonb" && !c.nullable {
			return projection.JSON("null"), nil
		}
		return c.check(nil)
	}
	if c.wire == "jsonb" {
		text, err := appendValue(nil, v)
		return projection.JSON(text), err
	}
	switch v := v.(type) {
	case types.String:
		if c.form == formText {
			return c.check(string(v))
		}
	case types.Int:
		if c.form == formInt {
			return c.check(int64(v))
		}
	case types.Bool:
		if c.form == formBool {
			return bool(v), nil
		}
	case types.Double:
		if c.form == formDouble {
			return c.check(float64(v))
		}
	case types.Timestamp:
		if c.form == formTime {
			return c.check(v.Time)
		}
	case traits.Lister:
		if c.form == formList {
			texts, err := textsOf(v)
			if err != nil {
				return nil, err
			}
			return c.check(texts)
		}
	case *types.Err:
		return nil, v.Unwrap()
	}
	return nil, fmt.Errorf("it is of type %s, and the column wants %s", v.Type().TypeName(), c.wants())
}

func textsOf(l traits.Lister) ([]string, error) {
	texts := []string{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		text, ok := it.Next().(types.String)
		if !ok {
			return nil, errors.New("an item of the list is no string")
		}
		texts = append(texts, string(text))
	}
	return texts, nil
}

// fits says whether a column takes an expression of a type, as far as can be known before there
// is a value.
func (c *column) fits(t *cel.Type) bool {
	if c.wire == "jsonb" {
		return t.Kind() != types.TypeKind && !isOptional(t)
	}
	if t.Kind() == types.NullTypeKind {
		return c.nullable || c.merge != ""
	}
	if t.Kind() == types.DynKind || t.Kind() == types.TypeParamKind {
		return true
	}
	if c.form == formList {
		if t.Kind() != types.ListKind {
			return false
		}
		item := t.Parameters()[0].Kind()
		return item == types.StringKind || item == types.DynKind || item == types.TypeParamKind
	}
	want := (&shape{form: c.form}).celType()
	return t.IsExactType(want) || t.IsExactType(cel.NullableType(want))
}

// remedy says how an expression of another type fits the column.
func (c *column) remedy(t *cel.Type, source string) string {
	source = strings.TrimSpace(source)
	if isOptional(t) {
		return "end it with .orValue(…)"
	}
	if t.Kind() == types.NullTypeKind {
		return "give the column nullable: true, or set a value"
	}
	calls := map[form]string{formText: "string", formInt: "int", formDouble: "double", formTime: "timestamp"}
	kinds := map[types.Kind][]form{
		types.IntKind: {formText, formDouble}, types.DoubleKind: {formText, formInt}, types.StringKind: {formInt, formDouble, formTime},
		types.TimestampKind: {formText, formInt}, types.BoolKind: {formText}, types.UintKind: {formInt, formText, formDouble},
	}
	if t.Kind() == types.DurationKind && c.form == formInt {
		return fmt.Sprintf("write %s(%s) for its milliseconds", functionMillis, source)
	}
	if slices.Contains(kinds[t.Kind()], c.form) {
		return fmt.Sprintf("write %s(%s), or choose another column type", calls[c.form], source)
	}
	return "choose another column type, or another expression"
}

// fromNode makes a function of a compiled expression that gives the column's value.
func (c *column) fromNode(n *node) func(s *scope) (any, error) {
	if c.wire == "jsonb" {
		return func(s *scope) (any, error) {
			if c.nullable && n.nullable {
				if there, err := n.there(s); err != nil || !there {
					return nil, err
				}
			}
			s.scratch = s.scratch[:0]
			text, err := n.appendJSON(s.scratch, s)
			s.scratch = text
			return projection.JSON(text), err
		}
	}
	switch {
	case n.form == formNull:
		return func(*scope) (any, error) { return c.check(nil) }
	case n.constant && n.form != formList:
		v, err := boxed(n)(nil)
		if err == nil {
			v, err = c.check(v)
		}
		return func(*scope) (any, error) { return v, err }
	}
	read := boxed(n)
	return func(s *scope) (any, error) {
		v, err := read(s)
		if err != nil {
			return nil, err
		}
		return c.check(v)
	}
}

// boxed reads a node's value as a row holds it.
func boxed(n *node) func(s *scope) (any, error) {
	switch {
	case n.text != nil:
		return box(n.text)
	case n.int != nil:
		return box(n.int)
	case n.double != nil:
		return box(n.double)
	case n.bool != nil:
		return box(n.bool)
	case n.time != nil:
		return box(n.time)
	case n.texts != nil:
		return box(n.texts)
	}
	return nil
}

func box[T any](read get[T]) func(s *scope) (any, error) {
	return func(s *scope) (any, error) {
		v, there, err := read(s)
		if err != nil || !there {
			return nil, err
		}
		return v, nil
	}
}

func isOptional(t *cel.Type) bool { return t.TypeName() == "optional_type" }
