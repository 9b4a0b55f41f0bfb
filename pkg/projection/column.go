package projection

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Column is one column of a view's table.
type Column struct {
	Name     string
	Type     string // Postgres type
	Wire     string // Postgres type in which values travel; cast to Type where it differs
	Nullable bool
	Merge    Merge // metric views: how a delta joins; empty on key columns
}

// Row is a row's values in column order. Each is nil, string, int64, bool, float64, time.Time
// (UTC, microseconds), []string or JSON.
type Row []any

// JSON is the text of a jsonb value.
type JSON string

// Canonical returns the text with object keys sorted and without spaces, for comparing.
func (j JSON) Canonical() JSON {
	dec := json.NewDecoder(strings.NewReader(string(j)))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return j
	}
	text, err := marshal(v)
	if err != nil {
		return j
	}
	return JSON(text)
}

// plan is how the fields of a row type become columns and back.
type plan struct {
	columns []Column
	fields  []field
	times   []int // indexes into fields
	json    bool  // some column is jsonb
}

type field struct {
	index   int
	column  Column
	pointer bool
	measure bool // a zero time adds nothing
}

var (
	timeType    = reflect.TypeFor[time.Time]()
	stringsType = reflect.TypeFor[[]string]()
)

// planOf derives the columns of R. Its faults name the field.
func planOf[R any](metric bool) (*plan, []error) {
	t := reflect.TypeFor[R]()
	p := &plan{}
	if t.Kind() != reflect.Struct {
		return p, []error{fmt.Errorf("row type %s is no struct", t)}
	}
	var faults []error
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("db")
		switch {
		case tag == "-" || (!f.IsExported() && !tagged):
			continue
		case !tagged || !f.IsExported():
			faults = append(faults, fmt.Errorf("field %s.%s: export it and give it a `db` tag, or `db:\"-\"`", t.Name(), f.Name))
			continue
		}
		made, err := fieldOf(f, tag, metric)
		if err != nil {
			faults = append(faults, fmt.Errorf("field %s.%s: %w", t.Name(), f.Name, err))
			continue
		}
		made.index = i
		p.fields = append(p.fields, made)
	}
	if metric { // the key comes first, in the order of the fields
		slices.SortStableFunc(p.fields, func(a, b field) int { return cmp.Compare(rank(a), rank(b)) })
	}
	for i, f := range p.fields {
		p.columns = append(p.columns, f.column)
		if f.column.Wire == "timestamptz" {
			p.times = append(p.times, i)
		}
		p.json = p.json || f.column.Wire == "jsonb"
	}
	return p, faults
}

func rank(f field) int {
	if f.column.Merge == "" {
		return 0
	}
	return 1
}

// keys counts the key columns of a metric view.
func (p *plan) keys() int {
	n := 0
	for _, c := range p.columns {
		if c.Merge == "" {
			n++
		}
	}
	return n
}

func fieldOf(f reflect.StructField, tag string, metric bool) (field, error) {
	parts := strings.Split(tag, ",")
	made := field{column: Column{Name: parts[0]}}
	t := f.Type
	if t.Kind() == reflect.Pointer {
		made.pointer, made.column.Nullable = true, true
		t = t.Elem()
	}
	var explicit, role string
	for _, option := range parts[1:] {
		switch option {
		case "key", "add", "min", "max":
			role = option
		default:
			explicit = option
		}
	}
	wire := wireOf(t, explicit)
	if wire == "" {
		return made, fmt.Errorf("type %s has no column type: use string, int, int32, int64, bool, float64, time.Time, []string, or tag it jsonb", f.Type)
	}
	made.column.Wire, made.column.Type = wire, wire
	if explicit != "" {
		if !slices.Contains(typesOfWire[wire], explicit) {
			return made, fmt.Errorf("type %s cannot be %q: want one of %v", f.Type, explicit, typesOfWire[wire])
		}
		made.column.Type = explicit
	}
	if !metric {
		if role != "" {
			return made, fmt.Errorf("%q is for metric views", role)
		}
		return made, nil
	}
	return made, made.setRole(role)
}

// setRole makes a field part of a metric view.
func (f *field) setRole(role string) error {
	wire := f.column.Wire
	number := wire == "bigint" || wire == "double precision"
	switch role {
	case "key":
		if f.pointer || !(number || wire == "text" || wire == "timestamptz" || wire == "boolean") {
			return errors.New("a key is a string, a number, a bool or a time, and never null")
		}
	case "add":
		if f.pointer || !number || f.column.Type != wire {
			return errors.New("add takes an int, int32, int64 or float64, stored as bigint or double precision")
		}
		f.column.Merge = MergeAdd
	case "min", "max":
		if !(number || wire == "text" || wire == "timestamptz") {
			return errors.New("min and max take numbers, strings and times")
		}
		f.column.Merge, f.column.Nullable, f.measure = Merge(role), true, true
	default:
		return errors.New("a field of a metric view is tagged key, add, min or max")
	}
	return nil
}

// typesOfWire lists the column types that a wire type may be cast to without a change of value.
var typesOfWire = map[string][]string{
	"text":             {"text"},
	"bigint":           {"bigint", "integer", "smallint"},
	"boolean":          {"boolean"},
	"double precision": {"double precision"},
	"timestamptz":      {"timestamptz"},
	"text[]":           {"text[]"},
	"jsonb":            {"jsonb"},
}

func wireOf(t reflect.Type, explicit string) string {
	switch {
	case explicit == "jsonb":
		return "jsonb"
	case t == timeType:
		return "timestamptz"
	case t == stringsType:
		return "text[]"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "bigint"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "double precision"
	}
	return ""
}

// canonicalise cuts times to what Postgres keeps, so that a row folded on in memory is the row
// that would be read back.
func (p *plan) canonicalise(row any) {
	if len(p.times) == 0 {
		return
	}
	v := reflect.ValueOf(row).Elem()
	for _, i := range p.times {
		f := v.Field(p.fields[i].index)
		if p.fields[i].pointer {
			if f.IsNil() {
				continue
			}
			// A fresh pointer: the old one may be shared with an earlier row.
			t := canonicalTime(f.Elem().Interface().(time.Time))
			f.Set(reflect.ValueOf(&t))
			continue
		}
		f.Set(reflect.ValueOf(canonicalTime(f.Interface().(time.Time))))
	}
}

func canonicalTime(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// encode reads the columns of *row.
func (p *plan) encode(row any) (Row, error) {
	v := reflect.ValueOf(row).Elem()
	out := make(Row, len(p.fields))
	for i := range p.fields {
		f := &p.fields[i]
		value, err := f.encode(v.Field(f.index))
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", f.column.Name, err)
		}
		out[i] = value
	}
	return out, nil
}

// check finds in *row what encode would refuse. A batch folds many events before it encodes, so
// each event's row is checked by itself: else a bad value that a later event overwrites would
// park its stream or not, as the batch falls. deep checks jsonb columns too, which is dear.
func (p *plan) check(row any, deep bool) error {
	v := reflect.ValueOf(row).Elem()
	for i := range p.fields {
		f := &p.fields[i]
		if f.column.Wire == "jsonb" && !deep {
			continue
		}
		if err := f.check(v.Field(f.index)); err != nil {
			return fmt.Errorf("column %s: %w", f.column.Name, err)
		}
	}
	return nil
}

func (f *field) check(v reflect.Value) error {
	if f.pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	switch f.column.Wire {
	case "text":
		return CheckText(v.String())
	case "bigint":
		return checkRange(f.column.Type, v.Int())
	case "boolean", "double precision":
		return nil
	}
	_, err := f.encode(f.addressed(v))
	return err
}

// addressed undoes check's dereferencing, for encode to do it again.
func (f *field) addressed(v reflect.Value) reflect.Value {
	if f.pointer {
		return v.Addr()
	}
	return v
}

// suspicious says whether a payload has text or numbers that a jsonb column could not hold.
func suspicious(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return CheckText(v.String()) != nil
	case reflect.Float32, reflect.Float64:
		return math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0)
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && suspicious(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if suspicious(v.Field(i)) {
				return true
			}
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return false
		}
		for i := range v.Len() {
			if suspicious(v.Index(i)) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if suspicious(it.Key()) || suspicious(it.Value()) {
				return true
			}
		}
	}
	return false
}

func (f *field) encode(v reflect.Value) (any, error) {
	if f.pointer {
		if v.IsNil() {
			return nil, nil
		}
		v = v.Elem()
	}
	switch f.column.Wire {
	case "text":
		return v.String(), CheckText(v.String())
	case "bigint":
		return v.Int(), checkRange(f.column.Type, v.Int())
	case "boolean":
		return v.Bool(), nil
	case "double precision":
		if v.Float() == 0 {
			return 0.0, nil // Postgres tells -0 from 0 only in its text form
		}
		return v.Float(), nil
	case "timestamptz":
		return f.encodeTime(v.Interface().(time.Time))
	case "text[]":
		return encodeStrings(v.Interface().([]string))
	default:
		return encodeJSON(v)
	}
}

// The years that a time column takes: what the log's headers allow.
const (
	yearMin = 1
	yearMax = 9999
)

func (f *field) encodeTime(t time.Time) (any, error) {
	if f.measure && t.IsZero() {
		return nil, nil
	}
	t = canonicalTime(t)
	if t.Year() < yearMin || t.Year() > yearMax {
		return nil, fmt.Errorf("%w: year %d is outside %d to %d", ErrValue, t.Year(), yearMin, yearMax)
	}
	return t, nil
}

func encodeStrings(s []string) (any, error) {
	out := make([]string, len(s))
	for i, text := range s {
		if err := CheckText(text); err != nil {
			return nil, err
		}
		out[i] = text
	}
	return out, nil
}

func encodeJSON(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.Slice:
		if v.IsNil() {
			return JSON("[]"), nil
		}
	case reflect.Map:
		if v.IsNil() {
			return JSON("{}"), nil
		}
	}
	text, err := marshal(v.Interface())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return JSON(text), checkJSON(text)
}

func marshal(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// CheckText finds what Postgres refuses in text: NUL and invalid UTF-8. The error wraps ErrValue.
func CheckText(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("%w: text has a NUL character, which Postgres refuses", ErrValue)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("%w: text is not valid UTF-8", ErrValue)
	}
	return nil
}

// checkJSON finds, in what encoding/json wrote, a NUL (\u0000) and the mark that it leaves in
// place of invalid UTF-8: the escape \ufffd, while a genuine U+FFFD is written as itself.
func checkJSON(text string) error {
	for i := strings.IndexByte(text, '\\'); i >= 0 && i+1 < len(text); {
		if text[i+1] == 'u' && i+6 <= len(text) {
			switch text[i+2 : i+6] {
			case "0000":
				return fmt.Errorf("%w: text has a NUL character, which Postgres refuses", ErrValue)
			case "fffd":
				return fmt.Errorf("%w: text is not valid UTF-8", ErrValue)
			}
		}
		next := strings.IndexByte(text[i+2:], '\\')
		if next < 0 {
			return nil
		}
		i += 2 + next
	}
	return nil
}

func checkRange(typ string, n int64) error {
	if (typ == "integer" && (n > math.MaxInt32 || n < math.MinInt32)) ||
		(typ == "smallint" && (n > math.MaxInt16 || n < math.MinInt16)) {
		return fmt.Errorf("%w: %d is out of range for %s", ErrValue, n, typ)
	}
	return nil
}

// decode fills *row from columns.
func (p *plan) decode(values Row, row any) error {
	if len(values) != len(p.fields) {
		return fmt.Errorf("stored row has %d columns, the definition %d", len(values), len(p.fields))
	}
	v := reflect.ValueOf(row).Elem()
	for i := range p.fields {
		f := &p.fields[i]
		if err := f.decode(values[i], v.Field(f.index)); err != nil {
			return fmt.Errorf("column %s: %w", f.column.Name, err)
		}
	}
	return nil
}

func (f *field) decode(value any, v reflect.Value) error {
	if value == nil {
		return nil
	}
	if f.pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch value := value.(type) {
	case string:
		v.SetString(value)
	case int64:
		v.SetInt(value)
	case bool:
		v.SetBool(value)
	case float64:
		v.SetFloat(value)
	case time.Time:
		v.Set(reflect.ValueOf(value))
	case []string:
		v.Set(reflect.ValueOf(slices.Clone(value)))
	case JSON:
		return json.Unmarshal([]byte(value), v.Addr().Interface())
	default:
		return fmt.Errorf("cannot read %T", value)
	}
	return nil
}

// compareValues orders two values of one column.
func compareValues(a, b any) (int, error) {
	switch a := a.(type) {
	case int64:
		return cmp.Compare(a, b.(int64)), nil
	case float64:
		return cmp.Compare(a, b.(float64)), nil
	case string: // as Postgres does under the collation "C"
		return strings.Compare(a, b.(string)), nil
	case time.Time:
		return a.Compare(b.(time.Time)), nil
	default:
		return 0, fmt.Errorf("cannot order %T", a)
	}
}
