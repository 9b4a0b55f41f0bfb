package codec

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"
)

// jsonAppender walks a body and writes its JSON as it goes. It lives on the stack of AppendJSON.
//
// The guard has walked the body before; that a read beyond its end is a fault here too, and no
// panic, costs next to nothing. Every value writes at least one byte and max bounds the text, so
// it ends whatever it reads.
type jsonAppender struct {
	walker
	max   int // of len(dst)
	fault *hostileError
}

// fail notes the first fault. Callers return, up to the root, as soon as there is one.
func (a *jsonAppender) fail(reason string) {
	if a.fault == nil {
		a.fault = a.refuse(reason)
	}
}

// failed notes a fault of the walker, if it is one.
func (a *jsonAppender) failed(err *hostileError) bool {
	if err != nil && a.fault == nil {
		a.fault = err
	}
	return err != nil
}

func (a *jsonAppender) value(n *jsonNode, dst []byte, depthLeft int) []byte {
	switch n.form {
	case formNull:
		return append(dst, "null"...)
	case formBoolean:
		return a.appendBoolean(dst)
	case formInt:
		return strconv.AppendInt(dst, a.long(n), 10)
	case formFloat:
		if b := a.take(4); b != nil {
			return a.appendFloat(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)
		}
	case formDouble:
		if b := a.take(8); b != nil {
			return a.appendFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)), 64)
		}
	case formRecord, formArray, formMap, formMaybe, formUnion:
		return a.container(n, dst, depthLeft)
	case formString, formUUID:
		return appendJSONString(dst, a.content(true))
	case formDate:
		return append(appendDate(append(dst, '"'), a.long(n)), '"')
	case formTime:
		return append(appendClock(append(dst, '"'), a.long(n)*n.unit), '"')
	case formTimestamp:
		return appendTimestamp(dst, a.long(n), n.unit, n.isLocal)
	case formEnum:
		i, err := a.index(len(n.symbols), "enum")
		if !a.failed(err) {
			return append(dst, n.symbols[i]...)
		}
	default:
		return a.binary(n, dst)
	}
	return dst
}

// binary writes what is bytes or fixed in Avro.
func (a *jsonAppender) binary(n *jsonNode, dst []byte) []byte {
	var b []byte
	if n.form == formBytes || n.form == formBigDecimal || n.form == formDecimal && n.size == 0 {
		b = a.content(false)
	} else {
		b = a.take(n.size)
	}
	if a.fault == nil && n.form == formDecimal && len(b) > decimalBytesMax {
		a.fail("decimal has more bytes than its precision needs")
	}
	if a.fault != nil {
		return dst
	}
	dst = append(dst, '"')
	switch n.form {
	case formUUIDFixed:
		dst = appendUUID(dst, b)
	case formDecimal:
		dst = appendTwosComplement(dst, b, n.scale)
	case formBigDecimal:
		dst = a.bigDecimal(dst, b)
	case formDuration:
		return appendDuration(dst[:len(dst)-1], b)
	default:
		dst = base64.StdEncoding.AppendEncode(dst, b)
	}
	return append(dst, '"')
}

func (a *jsonAppender) container(n *jsonNode, dst []byte, depthLeft int) []byte {
	if depthLeft <= 0 {
		a.fail("nested too deep")
		return dst
	}
	if len(dst) > a.max {
		a.fail("its JSON has more than " + strconv.Itoa(jsonGrowthMax) + " times the bytes that a body may have")
		return dst
	}
	switch n.form {
	case formRecord:
		return a.record(n, dst, depthLeft-1)
	case formArray:
		return a.array(n, dst, depthLeft-1)
	case formMap:
		return a.entries(n, dst, depthLeft-1)
	default:
		return a.union(n, dst, depthLeft-1)
	}
}

func (a *jsonAppender) record(n *jsonNode, dst []byte, depthLeft int) []byte {
	if len(n.fields) == 0 {
		return append(dst, "{}"...)
	}
	for i := range n.fields {
		f := &n.fields[i]
		dst = append(dst, f.opening...)
		if dst = a.value(f.node, dst, depthLeft); a.fault != nil {
			a.fault = a.fault.within(f.name)
			return dst
		}
	}
	return append(dst, '}')
}

func (a *jsonAppender) array(n *jsonNode, dst []byte, depthLeft int) []byte {
	dst = append(dst, '[')
	isFirst := true
	for count := a.blockCount(); count > 0; count = a.blockCount() {
		for ; count > 0; count-- {
			if !isFirst {
				dst = append(dst, ',')
			}
			isFirst = false
			if dst = a.item(n, dst, depthLeft); a.fault != nil {
				return dst
			}
		}
	}
	return append(dst, ']')
}

func (a *jsonAppender) entries(n *jsonNode, dst []byte, depthLeft int) []byte {
	dst = append(dst, '{')
	isFirst := true
	for count := a.blockCount(); count > 0; count = a.blockCount() {
		for ; count > 0; count-- {
			if !isFirst {
				dst = append(dst, ',')
			}
			isFirst = false
			dst = append(appendJSONString(dst, a.content(true)), ':')
			if dst = a.item(n, dst, depthLeft); a.fault != nil {
				return dst
			}
		}
	}
	return append(dst, '}')
}

// item writes one of an array or a map. Items that are no containers do not look at max, and may
// take no bytes of the body.
func (a *jsonAppender) item(n *jsonNode, dst []byte, depthLeft int) []byte {
	if a.fault == nil && len(dst) > a.max {
		a.fail("its JSON has more than " + strconv.Itoa(jsonGrowthMax) + " times the bytes that a body may have")
	}
	if a.fault != nil {
		return dst
	}
	return a.value(n.item, dst, depthLeft)
}

// blockCount returns the items of the next block, 0 after the last and after a fault.
func (a *jsonAppender) blockCount() int {
	count, _, err := a.blockHeader()
	if a.failed(err) {
		return 0
	}
	return count
}

func (a *jsonAppender) union(n *jsonNode, dst []byte, depthLeft int) []byte {
	i, err := a.index(len(n.branches), "union")
	if a.failed(err) {
		return dst
	}
	b := &n.branches[i]
	switch {
	case i == n.null:
		return append(dst, "null"...)
	case n.form == formMaybe:
		return a.value(b.node, dst, depthLeft)
	}
	dst = append(dst, b.opening...)
	return append(a.value(b.node, dst, depthLeft), '}')
}

func (a *jsonAppender) appendBoolean(dst []byte) []byte {
	start := a.pos
	if a.failed(a.boolean()) {
		return dst
	}
	return strconv.AppendBool(dst, a.body[start] == 1)
}

func (a *jsonAppender) long(n *jsonNode) int64 {
	v, err := a.varint()
	if !a.failed(err) && (v < n.low || v > n.high) {
		a.fail("integer out of range")
	}
	return v
}

// take returns the next size bytes, or nil.
func (a *jsonAppender) take(size int) []byte {
	start := a.pos
	if a.failed(a.skip(size)) {
		return nil
	}
	return a.body[start:a.pos:a.pos]
}

// content returns the bytes after a length.
func (a *jsonAppender) content(isUTF8 bool) []byte {
	size, err := a.varint()
	if a.failed(err) {
		return nil
	}
	if size < 0 || size > int64(len(a.body)-a.pos) {
		a.fail("length is negative or beyond the end of the body")
		return nil
	}
	b := a.take(int(size))
	if isUTF8 && !utf8.Valid(b) {
		a.fail("string is not UTF-8")
		return nil
	}
	return b
}

// appendFloat writes the shortest number that reads back as f, as JavaScript would.
func (a *jsonAppender) appendFloat(dst []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		a.fail("a number that is not finite has no JSON; read the event as Avro")
		return dst
	}
	abs := math.Abs(f)
	if abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, bits)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, bits)
	if n := len(dst); dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' { // e-07 is e-7
		dst = append(dst[:n-2], dst[n-1])
	}
	return dst
}

// bigDecimal writes the number in a big-decimal's bytes: a length, an unscaled value, a scale.
func (a *jsonAppender) bigDecimal(dst, b []byte) []byte {
	inner := jsonAppender{walker: walker{body: b}}
	unscaled := inner.content(false)
	scale, err := inner.varint()
	if inner.failed(err) || inner.fault != nil || len(unscaled) > decimalBytesMax || scale < -DecimalPrecisionMax || scale > DecimalPrecisionMax || inner.pos != len(b) {
		a.fail("big-decimal is malformed")
		return dst
	}
	if scale >= 0 {
		return appendTwosComplement(dst, unscaled, int(scale))
	}
	dst = append(appendTwosComplement(dst, unscaled, 0), 'e')
	return strconv.AppendInt(dst, -scale, 10)
}

func appendDuration(dst, b []byte) []byte {
	dst = strconv.AppendUint(append(dst, `{"months":`...), uint64(binary.LittleEndian.Uint32(b)), 10)
	dst = strconv.AppendUint(append(dst, `,"days":`...), uint64(binary.LittleEndian.Uint32(b[4:])), 10)
	dst = strconv.AppendUint(append(dst, `,"millis":`...), uint64(binary.LittleEndian.Uint32(b[8:])), 10)
	return append(dst, '}')
}

func appendUUID(dst, b []byte) []byte {
	from := 0
	for i, to := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, b[from:to])
		from = to
	}
	return dst
}

// appendJSONString writes s, which is UTF-8, in quotes.
func appendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	start := 0
	for i, c := range s {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, c)
		start = i + 1
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscape(dst []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
}
