package decidertest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// renderDepthMax bounds how deep a value is followed, so that one which holds itself ends.
const renderDepthMax = 32

// render writes a value as text, one field a line. Two values that mean the same have the same
// text: times are compared as instants, a nil slice or map is an empty one (Avro knows no
// difference), pointers are followed, keys of maps are sorted.
func render(v any) string {
	var b strings.Builder
	renderValue(&b, reflect.ValueOf(v), 0)
	b.WriteByte('\n')
	return b.String()
}

func renderAll(values []any) string {
	var b strings.Builder
	for _, v := range values {
		b.WriteString(render(v))
	}
	return b.String()
}

func renderValue(b *strings.Builder, v reflect.Value, depth int) {
	if depth > renderDepthMax {
		b.WriteString("…")
		return
	}
	if v.IsValid() && v.CanInterface() {
		if t, ok := v.Interface().(time.Time); ok {
			b.WriteString(t.UTC().Format(time.RFC3339Nano))
			return
		}
	}
	switch v.Kind() {
	case reflect.Invalid:
		b.WriteString("nil")
	case reflect.Pointer, reflect.Interface:
		renderPointer(b, v, depth)
	case reflect.Struct:
		renderStruct(b, v, depth)
	case reflect.Map:
		renderMap(b, v, depth)
	case reflect.Slice, reflect.Array:
		renderList(b, v, depth)
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	default:
		fmt.Fprintf(b, "%v", v)
	}
}

func renderPointer(b *strings.Builder, v reflect.Value, depth int) {
	if v.IsNil() {
		b.WriteString("nil")
		return
	}
	if v.Kind() == reflect.Pointer {
		b.WriteByte('&')
	}
	renderValue(b, v.Elem(), depth+1)
}

func renderStruct(b *strings.Builder, v reflect.Value, depth int) {
	b.WriteString(v.Type().String())
	if v.NumField() == 0 {
		b.WriteString("{}")
		return
	}
	b.WriteString("{\n")
	for i := range v.NumField() {
		indent(b, depth+1)
		b.WriteString(v.Type().Field(i).Name + ": ")
		renderValue(b, v.Field(i), depth+1)
		b.WriteByte('\n')
	}
	indent(b, depth)
	b.WriteByte('}')
}

func renderMap(b *strings.Builder, v reflect.Value, depth int) {
	if v.Len() == 0 {
		b.WriteString("map[]")
		return
	}
	type entry struct{ key, value string }
	var entries []entry
	for iter := v.MapRange(); iter.Next(); {
		var key, value strings.Builder
		renderValue(&key, iter.Key(), depth+1)
		renderValue(&value, iter.Value(), depth+1)
		entries = append(entries, entry{key.String(), value.String()})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	b.WriteString("map[\n")
	for _, e := range entries {
		indent(b, depth+1)
		b.WriteString(e.key + ": " + e.value + "\n")
	}
	indent(b, depth)
	b.WriteByte(']')
}

func renderList(b *strings.Builder, v reflect.Value, depth int) {
	switch {
	case v.Len() == 0:
		b.WriteString("[]")
		return
	case v.Type().Elem().Kind() == reflect.Uint8:
		fmt.Fprintf(b, "%x", v)
		return
	}
	b.WriteString("[\n")
	for i := range v.Len() {
		indent(b, depth+1)
		renderValue(b, v.Index(i), depth+1)
		b.WriteByte('\n')
	}
	indent(b, depth)
	b.WriteByte(']')
}

func indent(b *strings.Builder, depth int) {
	for range depth {
		b.WriteString("  ")
	}
}
