package query

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/foldstream/foldstream/pkg/projection"
)

// op is what a filter compares by. It is the end of a parameter's name, as in started_at.gte.
type op string

const (
	opEqual    op = "eq" // also without a name
	opNotEqual op = "ne"
	opLess     op = "lt"
	opAtMost   op = "lte"
	opMore     op = "gt"
	opAtLeast  op = "gte"
	opIn       op = "in"
	opLike     op = "like"
	opPrefix   op = "prefix"
	opHas      op = "has"
	opIsNull   op = "isnull"
)

// kind is the type of a column as this API sees it.
type kind uint8

const (
	kindOther   kind = iota // shown as text
	kindText                //
	kindInteger             // bigint, integer, smallint
	kindFloat               //
	kindBool                //
	kindTime                //
	kindTexts               // text[]
	kindJSON                //
	kindBytes               // shown in base64
	kindManyBytes
)

// column is one column of a view.
type column struct {
	name     string
	sqlType  string // as in the definition
	kind     kind
	nullable bool
	quoted   string
	member   string // `"name":`
}

func newColumn(c projection.Column) column {
	return column{
		name: c.Name, sqlType: c.Type, kind: kindOf(c.Type), nullable: c.Nullable, quoted: quote(c.Name),
		member: string(append(appendText(nil, c.Name), ':')),
	}
}

func kindOf(sqlType string) kind {
	switch sqlType {
	case "text":
		return kindText
	case "bigint", "integer", "smallint":
		return kindInteger
	case "double precision":
		return kindFloat
	case "boolean":
		return kindBool
	case "timestamptz":
		return kindTime
	case "text[]":
		return kindTexts
	case "jsonb":
		return kindJSON
	case "bytea":
		return kindBytes
	case "bytea[]":
		return kindManyBytes
	}
	return kindOther
}

// selected is the column in a select list, of a type that encode.go knows.
func (c *column) selected() string {
	if c.kind == kindOther {
		return c.quoted + "::text"
	}
	return c.quoted
}

// wire is the Postgres type that a parameter for the column travels as.
func (c *column) wire() string {
	switch c.kind {
	case kindInteger:
		return "bigint"
	case kindFloat:
		return "double precision"
	case kindBool:
		return "boolean"
	case kindTime:
		return "timestamptz"
	}
	return "text"
}

var (
	comparisons = []op{opEqual, opNotEqual, opLess, opAtMost, opMore, opAtLeast, opIn}
	opsOfKind   = map[kind][]op{
		kindText:    append(slices.Clone(comparisons), opLike, opPrefix, opIsNull),
		kindInteger: append(slices.Clone(comparisons), opIsNull),
		kindFloat:   append(slices.Clone(comparisons), opIsNull),
		kindTime:    append(slices.Clone(comparisons), opIsNull),
		kindBool:    {opEqual, opNotEqual, opIsNull},
		kindTexts:   {opHas, opIsNull},
	}
)

// ops are the operators that the column takes.
func (c *column) ops() []op {
	if all, known := opsOfKind[c.kind]; known {
		return all
	}
	return []op{opIsNull}
}

func (c *column) has(o op) bool { return slices.Contains(c.ops(), o) }

// sortable says whether rows can be ordered by the column.
func (c *column) sortable() bool {
	switch c.kind {
	case kindText, kindInteger, kindFloat, kindBool, kindTime:
		return true
	}
	return false
}

func (c *column) opNames() string {
	var names []string
	for _, o := range c.ops() {
		names = append(names, string(o))
	}
	return strings.Join(names, ", ")
}

// describe names the column's type for people.
func (c *column) describe() string {
	switch c.kind {
	case kindText, kindTexts:
		return c.sqlType
	case kindInteger:
		return c.sqlType + ", a whole number"
	case kindFloat:
		return c.sqlType + ", a number"
	case kindBool:
		return "boolean, true or false"
	case kindTime:
		return "timestamptz, a time as in RFC 3339 such as 2026-03-01T12:00:00Z"
	}
	return c.sqlType
}

// parse reads a value of the column's type from a parameter.
func (c *column) parse(text string) (any, error) {
	if len(text) > valueBytesMax {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(text), valueBytesMax)
	}
	return c.parseAny(text)
}

// parseAny is parse without a limit of length.
func (c *column) parseAny(text string) (any, error) {
	switch c.kind {
	case kindInteger:
		return c.parseInteger(text)
	case kindFloat:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) || strings.ContainsAny(text, "xX_pP") {
			return nil, fmt.Errorf("%q is no number", clip(text))
		}
		return n, nil
	case kindBool:
		switch text {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return nil, fmt.Errorf("%q is neither true nor false", clip(text))
	case kindTime:
		return parseTime(text)
	}
	return text, checkText(text)
}

func (c *column) parseInteger(text string) (any, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || strings.HasPrefix(text, "+") {
		return nil, fmt.Errorf("%q is no whole number of 64 bits", clip(text))
	}
	return n, nil
}

func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		return time.Time{}, fmt.Errorf("%q is no time as in RFC 3339, such as 2026-03-01T12:00:00Z, of the years 1 to 9999 (a + is written %%2B)", clip(text))
	}
	return t.UTC(), nil
}

// checkText finds what Postgres refuses in text.
func checkText(text string) error {
	switch {
	case strings.IndexByte(text, 0) >= 0:
		return fmt.Errorf("has a NUL character")
	case !utf8.ValidString(text):
		return fmt.Errorf("is not UTF-8")
	}
	return nil
}

// cursorText is a binary value of a sortable column as a cursor holds it; cursorValue reads it.
func (c *column) cursorText(raw []byte) string {
	switch c.kind {
	case kindInteger:
		return strconv.FormatInt(integerOf(raw), 10)
	case kindFloat:
		return strconv.FormatFloat(floatOf(raw), 'g', -1, 64)
	case kindBool:
		return strconv.FormatBool(len(raw) == 1 && raw[0] != 0)
	case kindTime:
		return strconv.FormatInt(integerOf(raw), 10)
	}
	return string(raw)
}

// cursorValue is the inverse of cursorText: a parameter's value.
func (c *column) cursorValue(text string) (any, error) {
	switch c.kind {
	case kindFloat: // NaN and infinities can be sorted by, too
		return strconv.ParseFloat(text, 64)
	case kindTime:
		micros, err := strconv.ParseInt(text, 10, 64)
		return timeValue(micros), err
	}
	return c.parseAny(text)
}

// base64Of is the form of bytes in answers.
func base64Of(dst, raw []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, '"')
}
