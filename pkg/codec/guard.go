package codec

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Limits bound one body. A field that is zero or negative means its default.
type Limits struct {
	// BytesMax bounds the body; default 1 MiB.
	BytesMax int
	// DepthMax bounds how deep records, unions, arrays and maps nest; default 64.
	DepthMax int
	// ValuesMax bounds the number of values, those of no bytes too; default 100,000.
	ValuesMax int
	// RegrowthSlotsMax bounds the items that a decoder copies when arrays and maps come in many
	// blocks; default 2^20. One block never counts.
	RegrowthSlotsMax int
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, value int) {
		if *field <= 0 {
			*field = value
		}
	}
	set(&l.BytesMax, 1<<20)
	set(&l.DepthMax, 64)
	set(&l.ValuesMax, 100_000)
	set(&l.RegrowthSlotsMax, 1<<20)
	return l
}

// Check walks a body against the schema and refuses what is malformed or beyond the limits,
// before anything is allocated for it. What passes is the canonical encoding of a value, but
// for the cut of arrays and maps into blocks. The error wraps ErrHostile and names byte and field.
//
// It demands: the body ends where the value ends; integers in as few bytes as possible and in
// range; booleans 0 or 1; union and enum indexes in range; no negative length; block sizes that
// match; strings in UTF-8; decimals no longer than their
// precision needs; dates and timestamps within the years 1 to 9999, times within a day.
func (s *Schema) Check(body []byte, limits Limits) error {
	return s.check(body, limits.withDefaults())
}

func (s *Schema) check(body []byte, limits Limits) error {
	if len(body) > limits.BytesMax {
		return &hostileError{reason: fmt.Sprintf("%d bytes, at most %d are allowed", len(body), limits.BytesMax)}
	}
	w := walker{body: body, valuesLeft: limits.ValuesMax, regrowthLeft: limits.RegrowthSlotsMax}
	if err := w.value(s.root, limits.DepthMax); err != nil {
		return err
	}
	if w.pos != len(body) {
		return w.refuse(strconv.Itoa(len(body)-w.pos) + " bytes follow the value")
	}
	return nil
}

type hostileError struct {
	at     int
	path   string
	reason string
}

func (e *hostileError) Error() string {
	if e.path == "" {
		return fmt.Sprintf("%s at byte %d: %s", ErrHostile, e.at, e.reason)
	}
	return fmt.Sprintf("%s at byte %d, field %s: %s", ErrHostile, e.at, e.path, e.reason)
}

func (e *hostileError) Unwrap() error { return ErrHostile }

// walker is the position in one body. It lives on the stack of check.
type walker struct {
	body         []byte
	pos          int
	valuesLeft   int
	regrowthLeft int
}

// refuse returns the concrete type, so that callers can add the path.
func (w *walker) refuse(reason string) *hostileError { return &hostileError{at: w.pos, reason: reason} }

// value walks one datum. depthLeft counts down at records, unions, arrays and maps. It returns
// *hostileError and not error so that a nil costs nothing; check converts.
func (w *walker) value(n *node, depthLeft int) *hostileError {
	w.valuesLeft--
	if w.valuesLeft < 0 {
		return w.refuse("too many values")
	}
	switch n.kind {
	case kindNull:
		return nil
	case kindBoolean:
		return w.boolean()
	case kindInt:
		return w.integer(n, math.MinInt32, math.MaxInt32)
	case kindLong:
		return w.integer(n, math.MinInt64, math.MaxInt64)
	case kindFloat:
		return w.skip(4)
	case kindDouble:
		return w.skip(8)
	case kindBytes, kindString:
		return w.block(n)
	case kindFixed:
		return w.skip(n.size)
	case kindEnum:
		_, err := w.index(n.size, "enum")
		return err
	}
	if depthLeft == 0 {
		return w.refuse("nested too deep")
	}
	switch n.kind {
	case kindRecord:
		return w.record(n, depthLeft-1)
	case kindUnion:
		i, err := w.index(len(n.children), "union")
		if err != nil {
			return err
		}
		return w.value(n.children[i], depthLeft-1)
	default:
		return w.items(n, depthLeft-1)
	}
}

func (w *walker) record(n *node, depthLeft int) *hostileError {
	for i, child := range n.children {
		if err := w.value(child, depthLeft); err != nil {
			return err.within(n.fields[i].name)
		}
	}
	return nil
}

// within adds the enclosing field to the path, on the way out.
func (e *hostileError) within(name string) *hostileError {
	const pathBytesMax = 200
	switch {
	case e.path == "":
		e.path = name
	case len(e.path)+len(name) < pathBytesMax:
		e.path = name + "." + e.path
	}
	return e
}

// items walks the blocks of an array or a map.
//
// A decoder copies what it has at every new block, so n one-item blocks cost it n²/2 slots:
// regrowthLeft pays for these copies before they are made.
func (w *walker) items(n *node, depthLeft int) *hostileError {
	total := 0
	for {
		count, end, err := w.blockHeader()
		if err != nil {
			return err
		}
		if count == 0 {
			return nil
		}
		if count > w.valuesLeft {
			return w.refuse("too many values")
		}
		if w.regrowthLeft -= total; w.regrowthLeft < 0 {
			return w.refuse("too many blocks")
		}
		total += count
		if n.item.minBytes == 0 && n.kind == kindArray && total > emptyItemsMax {
			return w.refuse("too many items of no bytes")
		}
		if err := w.blockItems(n, count, depthLeft); err != nil {
			return err
		}
		if end >= 0 && w.pos != end {
			return w.refuse("block size does not match the block's items")
		}
	}
}

func (w *walker) blockItems(n *node, count, depthLeft int) *hostileError {
	for range count {
		if n.kind == kindMap {
			if err := w.text(true); err != nil {
				return err
			}
		}
		if err := w.value(n.item, depthLeft); err != nil {
			return err
		}
	}
	return nil
}

// blockHeader reads a block's item count, and the position where it must end, or -1.
func (w *walker) blockHeader() (count, end int, err *hostileError) {
	n, err := w.varint()
	if err != nil || n >= 0 {
		return clampCount(n), -1, err
	}
	if n == math.MinInt64 {
		return 0, -1, w.refuse("block count out of range")
	}
	size, err := w.varint()
	if err != nil {
		return 0, -1, err
	}
	if size < 0 || size > int64(len(w.body)-w.pos) {
		return 0, -1, w.refuse("block size beyond the end of the body")
	}
	return clampCount(-n), w.pos + int(size), nil
}

// emptyItemsMax is the Avro library's own bound on an array of items that may take no bytes.
const emptyItemsMax = 4096

// clampCount keeps a count an int everywhere; no limit is as high as the clamp.
func clampCount(n int64) int { return int(min(n, math.MaxInt32)) }

func (w *walker) boolean() *hostileError {
	if w.pos >= len(w.body) {
		return w.refuse("body ends inside a boolean")
	}
	if w.body[w.pos] > 1 {
		return w.refuse("boolean is neither 0 nor 1")
	}
	w.pos++
	return nil
}

func (w *walker) integer(n *node, low, high int64) *hostileError {
	start := w.pos
	v, err := w.varint()
	if err != nil {
		return err
	}
	if n.rule == ruleRange {
		low, high = n.low, n.high
	}
	if v < low || v > high {
		w.pos = start
		return w.refuse("integer out of range for " + n.describe())
	}
	return nil
}

func (w *walker) index(count int, what string) (int, *hostileError) {
	start := w.pos
	i, err := w.varint()
	if err != nil {
		return 0, err
	}
	if i < 0 || i >= int64(count) {
		w.pos = start
		return 0, w.refuse(what + " index out of range")
	}
	return int(i), nil
}

// varint reads a zigzag integer in its only canonical spelling: at most 10 bytes, no overflow,
// no last byte of zero.
func (w *walker) varint() (int64, *hostileError) {
	if w.pos < len(w.body) && w.body[w.pos] < 0x80 {
		u := uint64(w.body[w.pos])
		w.pos++
		return int64(u>>1) ^ -int64(u&1), nil
	}
	u, n := binary.Uvarint(w.body[w.pos:])
	switch {
	case n == 0:
		return 0, w.refuse("body ends inside an integer")
	case n < 0:
		return 0, w.refuse("integer has more than 64 bits")
	case n > 1 && w.body[w.pos+n-1] == 0:
		return 0, w.refuse("integer is padded with zero bytes")
	}
	w.pos += n
	return int64(u>>1) ^ -int64(u&1), nil
}

func (w *walker) skip(n int) *hostileError {
	if n > len(w.body)-w.pos {
		return w.refuse("body ends inside a value")
	}
	w.pos += n
	return nil
}

// block walks bytes or a string.
func (w *walker) block(n *node) *hostileError {
	if n.kind == kindString {
		return w.text(true)
	}
	start := w.pos
	if err := w.text(false); err != nil {
		return err
	}
	if n.rule == ruleDecimal || n.rule == ruleBigDecimal {
		return w.decimal(n, start)
	}
	return nil
}

// decimal checks bytes that were just walked, from their length at start. A decoder multiplies
// and divides numbers of that many digits, and by ten to the power of the scale, so both are
// bounded.
func (w *walker) decimal(n *node, start int) *hostileError {
	inner := walker{body: w.body[:w.pos], pos: start}
	if _, err := inner.varint(); err != nil {
		return err
	}
	if n.rule == ruleDecimal {
		return inner.decimalSize(w.pos-inner.pos, n.size)
	}
	size, err := inner.varint()
	if err != nil {
		return err
	}
	if size < 0 || size > int64(w.pos-inner.pos) {
		return inner.refuse("big-decimal is malformed")
	}
	if err := inner.decimalSize(int(size), n.size); err != nil {
		return err
	}
	inner.pos += int(size)
	scale, err := inner.varint()
	if err != nil {
		return err
	}
	if scale < -DecimalPrecisionMax || scale > DecimalPrecisionMax || inner.pos != w.pos {
		return inner.refuse("big-decimal's scale is out of range or not its last value")
	}
	return nil
}

func (w *walker) decimalSize(size, sizeMax int) *hostileError {
	if size > sizeMax {
		return w.refuse("decimal has more bytes than its precision needs")
	}
	return nil
}

// decimalBytes is the length of two's complement that holds every decimal of a precision.
func decimalBytes(precision int) int {
	return int(math.Ceil((float64(precision)*math.Log2(10) + 1) / 8))
}

// text walks a length and that many bytes.
func (w *walker) text(isUTF8 bool) *hostileError {
	n, err := w.varint()
	if err != nil {
		return err
	}
	if n < 0 || n > int64(len(w.body)-w.pos) {
		return w.refuse("length is negative or beyond the end of the body")
	}
	end := w.pos + int(n)
	if isUTF8 && !utf8.Valid(w.body[w.pos:end]) {
		return w.refuse("string is not UTF-8")
	}
	w.pos = end
	return nil
}

// rule is what a logical type demands beyond its base type.
type rule uint8

const (
	ruleNone       rule = iota
	ruleRange           // an integer between low and high
	ruleDecimal         // bytes: at most size of them
	ruleBigDecimal      // bytes that hold at most size unscaled bytes, and a scale
)

var (
	yearFirst = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	yearLast  = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
)

func (n *node) setRule() {
	span := func(low, high int64) { n.rule, n.low, n.high = ruleRange, low, high }
	switch {
	case n.kind == kindLong && (n.logical == "timestamp-millis" || n.logical == "local-timestamp-millis"):
		span(yearFirst.UnixMilli(), yearLast.UnixMilli())
	case n.kind == kindLong && (n.logical == "timestamp-micros" || n.logical == "local-timestamp-micros"):
		span(yearFirst.UnixMicro(), yearLast.UnixMicro())
	case n.kind == kindLong && n.logical == "time-micros":
		span(0, 24*3600*1e6-1)
	case n.kind == kindInt && n.logical == "time-millis":
		span(0, 24*3600*1e3-1)
	case n.kind == kindInt && n.logical == "date":
		span(yearFirst.Unix()/86400, yearLast.Unix()/86400)
	case n.kind == kindBytes && n.logical == "decimal":
		n.rule, n.size = ruleDecimal, decimalBytes(n.precision)
	case n.kind == kindBytes && n.logical == "big-decimal":
		n.rule, n.size = ruleBigDecimal, decimalBytes(DecimalPrecisionMax)
	}
}

func (n *node) describe() string {
	if n.logical != "" {
		return n.logical
	}
	return n.kind.String()
}
