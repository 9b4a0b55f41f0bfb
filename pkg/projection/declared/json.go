package declared

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/foldstream/foldstream/pkg/projection"
)

// JSON is written with sorted keys and without spaces. Times are RFC 3339 in UTC, durations
// seconds as in "1.5s", bytes base64, decimals texts.

func appendText(dst []byte, s string) ([]byte, error) {
	if err := projection.CheckText(s); err != nil {
		return dst, err
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			return appendEscaped(dst, s)
		}
	}
	return append(append(append(dst, '"'), s...), '"'), nil
}

func appendEscaped(dst []byte, s string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return dst, err
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...), nil
}

func appendInt(dst []byte, n int64) ([]byte, error) { return strconv.AppendInt(dst, n, 10), nil }

func appendBool(dst []byte, b bool) ([]byte, error) { return strconv.AppendBool(dst, b), nil }

// appendDouble writes all digits, as Postgres does when it gives jsonb back.
func appendDouble(dst []byte, f float64) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return dst, fmt.Errorf("%w: JSON has no number for %v", projection.ErrValue, f)
	}
	return strconv.AppendFloat(dst, canonicalDouble(f), 'f', -1, 64), nil
}

func appendTime(dst []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	if t.Year() < yearMin || t.Year() > yearMax {
		return dst, fmt.Errorf("%w: year %d is outside %d to %d", projection.ErrValue, t.Year(), yearMin, yearMax)
	}
	return append(t.AppendFormat(append(dst, '"'), time.RFC3339Nano), '"'), nil
}

func appendDuration(dst []byte, d time.Duration) ([]byte, error) {
	dst = strconv.AppendFloat(append(dst, '"'), d.Seconds(), 'f', -1, 64)
	return append(dst, `s"`...), nil
}

func appendBytes(dst, b []byte) ([]byte, error) {
	return append(base64.StdEncoding.AppendEncode(append(dst, '"'), b), '"'), nil
}

// appendShape writes what the codec decoded.
func appendShape(dst []byte, v reflect.Value, s *shape) ([]byte, error) {
	if s.nullable {
		if v.IsNil() {
			return append(dst, "null"...), nil
		}
		if !s.decimal {
			v = v.Elem()
		}
	}
	switch s.form {
	case formText:
		if s.decimal {
			return appendText(dst, decimalText(v, s.scale))
		}
		return appendText(dst, v.String())
	case formInt:
		return appendInt(dst, v.Int())
	case formDouble:
		return appendDouble(dst, v.Float())
	case formBool:
		return appendBool(dst, v.Bool())
	case formBytes:
		return appendBytes(dst, bytesOf(v))
	case formTime:
		return appendTime(dst, v.Interface().(time.Time))
	case formDuration:
		return appendDuration(dst, time.Duration(v.Int()))
	case formList:
		return appendSeries(dst, '[', ']', v.Len(), func(dst []byte, i int) ([]byte, error) { return appendShape(dst, v.Index(i), s.item) })
	case formMap:
		return appendShapeMap(dst, v, s.item)
	case formRecord:
		return appendSeries(dst, '{', '}', len(s.record.fields), func(dst []byte, i int) ([]byte, error) {
			f := s.record.fields[s.record.sorted[i]]
			dst = append(append(append(dst, '"'), f.name...), `":`...)
			return appendShape(dst, v.Field(s.record.sorted[i]), f.shape)
		})
	case formDyn, formNull:
	}
	return appendValue(dst, dynamicValue(v.Interface()))
}

func appendShapeMap(dst []byte, v reflect.Value, item *shape) ([]byte, error) {
	if m, ok := v.Interface().(map[string]string); ok {
		keys := make([]string, 0, len(m))
		for key := range m {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return appendSeries(dst, '{', '}', len(keys), func(dst []byte, i int) ([]byte, error) {
			dst, err := appendText(dst, keys[i])
			if err != nil {
				return dst, err
			}
			return appendText(append(dst, ':'), m[keys[i]])
		})
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	return appendSeries(dst, '{', '}', len(keys), func(dst []byte, i int) ([]byte, error) {
		dst, err := appendText(dst, keys[i].String())
		if err != nil {
			return dst, err
		}
		return appendShape(append(dst, ':'), v.MapIndex(keys[i]), item)
	})
}

func appendSeries(dst []byte, first, last byte, n int, one func(dst []byte, i int) ([]byte, error)) ([]byte, error) {
	dst = append(dst, first)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = one(dst, i); err != nil {
			return dst, err
		}
	}
	return append(dst, last), nil
}

// appendValue writes what the interpreter came to.
func appendValue(dst []byte, v ref.Val) ([]byte, error) {
	switch v := v.(type) {
	case types.Null:
		return append(dst, "null"...), nil
	case types.Bool:
		return appendBool(dst, bool(v))
	case types.Int:
		return appendInt(dst, int64(v))
	case types.Uint:
		return strconv.AppendUint(dst, uint64(v), 10), nil
	case types.Double:
		return appendDouble(dst, float64(v))
	case types.String:
		return appendText(dst, string(v))
	case types.Bytes:
		return appendBytes(dst, v)
	case types.Timestamp:
		return appendTime(dst, v.Time)
	case types.Duration:
		return appendDuration(dst, v.Duration)
	case *object:
		names := slices.Clone(v.typ.names)
		slices.Sort(names)
		return appendSeries(dst, '{', '}', len(names), func(dst []byte, i int) ([]byte, error) {
			dst, err := appendText(dst, names[i])
			if err != nil {
				return dst, err
			}
			return appendValue(append(dst, ':'), v.field(names[i]))
		})
	case traits.Lister:
		size, _ := v.Size().(types.Int)
		return appendSeries(dst, '[', ']', int(size), func(dst []byte, i int) ([]byte, error) { return appendValue(dst, v.Get(types.Int(i))) })
	case traits.Mapper:
		return appendMapper(dst, v)
	case *types.Optional:
		return dst, errors.New("an optional value has no form in JSON: end the expression with .orValue(…)")
	case *types.Err:
		return dst, v.Unwrap()
	}
	return dst, fmt.Errorf("a value of type %s has no form in JSON", v.Type().TypeName())
}

func appendMapper(dst []byte, m traits.Mapper) ([]byte, error) {
	values := map[string]ref.Val{}
	var keys []string
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return dst, fmt.Errorf("a key of a map is %s: JSON takes texts only", key.Type().TypeName())
		}
		keys = append(keys, string(name))
		values[string(name)] = m.Get(key)
	}
	slices.Sort(keys)
	return appendSeries(dst, '{', '}', len(keys), func(dst []byte, i int) ([]byte, error) {
		dst, err := appendText(dst, keys[i])
		if err != nil {
			return dst, err
		}
		return appendValue(append(dst, ':'), values[keys[i]])
	})
}

// parseJSON reads stored JSON: numbers stay as they are written.
func parseJSON(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("stored JSON does not parse: %w", err)
	}
	return v, nil
}

// splitJSON cuts the text of a JSON list into those of its items. The text is valid JSON.
func splitJSON(text string) ([]string, error) {
	text = strings.Trim(text, " \t\r\n")
	if len(text) < 2 || text[0] != '[' || text[len(text)-1] != ']' {
		return nil, errors.New("the column holds no list")
	}
	text = strings.Trim(text[1:len(text)-1], " \t\r\n")
	if text == "" {
		return nil, nil
	}
	var items []string
	start, depth, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 0:
			items = append(items, strings.Trim(text[start:i], " \t\r\n"))
			start = i + 1
		}
	}
	return append(items, strings.Trim(text[start:], " \t\r\n")), nil
}

// topField finds a field of a JSON object without reading the rest: the text of its value. plain
// is false where the text needs the parser, as for names that are escaped.
func topField(text, name string) (value string, found, plain bool) {
	text = strings.TrimLeft(text, " \t\r\n")
	if text == "" || text[0] != '{' {
		return "", false, false
	}
	depth, quoted, start, key := 0, false, 0, ""
	inKey := true
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			if inKey && depth == 0 {
				return "", false, false
			}
			i++
		case c == '"':
			if quoted = !quoted; quoted {
				if inKey {
					start = i + 1
				}
			} else if inKey && depth == 0 {
				key = text[start:i]
			}
		case quoted:
		case depth == 0 && c == ':':
			inKey, start = false, i+1
		case c == '[' || c == '{':
			depth++
		case depth == 0 && (c == ',' || c == '}'):
			if !inKey && key == name {
				return strings.Trim(text[start:i], " \t\r\n"), true, true
			}
			inKey = true
		case c == ']' || c == '}':
			depth--
		}
	}
	return "", false, true
}

// parseScalar reads the text of a value; texts without escapes are cut out of it.
func parseScalar(text string) (any, error) {
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' && strings.IndexByte(text, '\\') < 0 {
		return text[1 : n-1], nil
	}
	return parseJSON(text)
}
