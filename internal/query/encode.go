package query

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// Postgres counts microseconds from this instant.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

var errEncoding = errors.New("a value is not in the binary form of its type")

// appender appends one binary value as JSON. It never sees null.
type appender func(dst, raw []byte) ([]byte, error)

// appenderOf chooses by the type that Postgres says a column has, which may be another than the
// catalogue says while a view is switched.
func appenderOf(oid uint32) appender {
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID, pgtype.BPCharOID:
		return func(dst, raw []byte) ([]byte, error) { return appendText(dst, raw), nil }
	case pgtype.Int8OID, pgtype.Int4OID, pgtype.Int2OID:
		return appendInteger
	case pgtype.BoolOID:
		return appendBool
	case pgtype.Float8OID:
		return appendFloat
	case pgtype.TimestamptzOID:
		return appendTime
	case pgtype.JSONBOID:
		return appendJSONB
	case pgtype.TextArrayOID:
		return func(dst, raw []byte) ([]byte, error) {
			return appendArray(dst, raw, appendText[[]byte])
		}
	case pgtype.ByteaOID:
		return func(dst, raw []byte) ([]byte, error) { return base64Of(dst, raw), nil }
	case pgtype.ByteaArrayOID:
		return func(dst, raw []byte) ([]byte, error) { return appendArray(dst, raw, base64Of) }
	}
	return nil
}

// integerOf reads int2, int4 and int8.
func integerOf(raw []byte) int64 {
	switch len(raw) {
	case 8:
		return int64(binary.BigEndian.Uint64(raw))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(raw)))
	case 2:
		return int64(int16(binary.BigEndian.Uint16(raw)))
	}
	return 0
}

func floatOf(raw []byte) float64 {
	if len(raw) != 8 {
		return 0
	}
	return math.Float64frombits(binary.BigEndian.Uint64(raw))
}

func appendInteger(dst, raw []byte) ([]byte, error) {
	if n := len(raw); n != 8 && n != 4 && n != 2 {
		return dst, errEncoding
	}
	return strconv.AppendInt(dst, integerOf(raw), 10), nil
}

func appendBool(dst, raw []byte) ([]byte, error) {
	if len(raw) != 1 {
		return dst, errEncoding
	}
	return strconv.AppendBool(dst, raw[0] != 0), nil
}

// appendFloat writes what JSON has no number for as a string.
func appendFloat(dst, raw []byte) ([]byte, error) {
	if len(raw) != 8 {
		return dst, errEncoding
	}
	n := floatOf(raw)
	switch {
	case math.IsNaN(n):
		return append(dst, `"NaN"`...), nil
	case math.IsInf(n, 1):
		return append(dst, `"Infinity"`...), nil
	case math.IsInf(n, -1):
		return append(dst, `"-Infinity"`...), nil
	}
	return appendNumber(dst, n), nil
}

func appendNumber(dst []byte, n float64) []byte {
	format := byte('f')
	if abs := math.Abs(n); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, n, format, -1, 64)
}

// The instants that Postgres has beyond time.
const (
	timeInfinity    = math.MaxInt64
	timeMinusInfity = math.MinInt64
)

func appendTime(dst, raw []byte) ([]byte, error) {
	if len(raw) != 8 {
		return dst, errEncoding
	}
	micros := integerOf(raw)
	switch micros {
	case timeInfinity:
		return append(dst, `"infinity"`...), nil
	case timeMinusInfity:
		return append(dst, `"-infinity"`...), nil
	}
	dst = append(dst, '"')
	dst = timeOf(micros).AppendFormat(dst, time.RFC3339Nano)
	return append(dst, '"'), nil
}

func timeOf(micros int64) time.Time {
	return time.Unix(postgresEpoch.Unix()+floorDiv(micros, 1e6), floorMod(micros, 1e6)*1e3).UTC()
}

func floorMod(a, b int64) int64 { return (a%b + b) % b }

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

// timeValue is a parameter for an instant that Postgres gave.
func timeValue(micros int64) pgtype.Timestamptz {
	switch micros {
	case timeInfinity:
		return pgtype.Timestamptz{Valid: true, InfinityModifier: pgtype.Infinity}
	case timeMinusInfity:
		return pgtype.Timestamptz{Valid: true, InfinityModifier: pgtype.NegativeInfinity}
	}
	return pgtype.Timestamptz{Valid: true, Time: timeOf(micros)}
}

// appendJSONB drops the format's version; what follows is JSON as Postgres checked it.
func appendJSONB(dst, raw []byte) ([]byte, error) {
	if len(raw) < 2 || raw[0] != 1 {
		return dst, errEncoding
	}
	return append(dst, raw[1:]...), nil
}

// appendArray writes an array of one dimension.
func appendArray(dst, raw []byte, element func(dst, raw []byte) []byte) ([]byte, error) {
	const head, dimension = 12, 8
	if len(raw) < head {
		return dst, errEncoding
	}
	dimensions := binary.BigEndian.Uint32(raw)
	raw = raw[head:]
	if dimensions == 0 {
		return append(dst, "[]"...), nil
	}
	if dimensions != 1 || len(raw) < dimension {
		return dst, errEncoding
	}
	count := binary.BigEndian.Uint32(raw)
	raw = raw[dimension:]
	dst = append(dst, '[')
	for i := range count {
		if i > 0 {
			dst = append(dst, ',')
		}
		if len(raw) < 4 {
			return dst, errEncoding
		}
		size := int32(binary.BigEndian.Uint32(raw))
		raw = raw[4:]
		if size < 0 {
			dst = append(dst, "null"...)
			continue
		}
		if int(size) > len(raw) {
			return dst, errEncoding
		}
		dst = element(dst, raw[:size])
		raw = raw[size:]
	}
	return append(dst, ']'), nil
}

// appendText appends a text as a JSON string. It is UTF-8: Postgres, or a check before, saw to it.
func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := range len(text) {
		c := text[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, text[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		start = i + 1
	}
	return append(append(b, text[start:]...), '"')
}
