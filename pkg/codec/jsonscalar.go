package codec

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
)

// textValue encodes a value that is a string in JSON.
func (e *jsonEncoder) textValue(n *jsonNode, text []byte) bool {
	wrong := ""
	switch n.form {
	case formString:
		e.appendText(text)
	case formUUID:
		if _, ok := parseUUID(text); !ok {
			wrong = "want " + n.want
		}
		e.appendText(text)
	case formUUIDFixed:
		id, ok := parseUUID(text)
		if !ok {
			wrong = "want " + n.want
		}
		e.out = append(e.out, id[:]...)
	case formEnum:
		i, ok := n.index[string(text)]
		if !ok {
			wrong = "want " + n.want
		}
		e.out = binary.AppendVarint(e.out, int64(i))
	case formBytes, formFixed:
		wrong = e.base64(n, text)
	case formDecimal:
		wrong = e.decimal(n, text)
	case formBigDecimal:
		wrong = e.bigDecimal(n, text)
	default:
		var v int64
		v, wrong = n.parseTime(text)
		e.out = binary.AppendVarint(e.out, v)
	}
	return wrong == "" || e.fault(wrong)
}

// base64 decodes the standard alphabet with padding. The library's decoder takes line breaks for
// nothing; the length tells when it did.
func (e *jsonEncoder) base64(n *jsonNode, text []byte) (wrong string) {
	const notBase64 = "the string is not base64 in the standard alphabet with padding"
	if len(text)%4 != 0 {
		return notBase64
	}
	size := len(text) / 4 * 3
	for i := len(text) - 1; i >= 0 && i >= len(text)-2 && text[i] == '='; i-- {
		size--
	}
	if n.form == formBytes {
		e.out = binary.AppendVarint(e.out, int64(size))
	}
	start := len(e.out)
	out, err := base64.StdEncoding.Strict().AppendDecode(e.out, text)
	if err != nil || len(out)-start != size {
		return notBase64
	}
	e.out = out
	if n.form == formFixed && size != n.size {
		return "want " + n.want + ", got " + strconv.Itoa(size)
	}
	return ""
}

// decimal encodes two's complement, as few bytes as hold the number, or all of a fixed.
func (e *jsonEncoder) decimal(n *jsonNode, text []byte) (wrong string) {
	d, ok := parseDecimal(text, false)
	switch {
	case !ok:
		return "want " + n.want
	case len(d.fraction) > n.scale:
		return "the decimal has more than " + strconv.Itoa(n.scale) + " digits after the point"
	}
	var buf [32]byte
	unscaled, ok := d.unscaled(buf[:0], n.scale, n.precision)
	if !ok || n.size > 0 && len(unscaled) > n.size {
		return "the decimal has more than " + strconv.Itoa(n.precision) + " digits in all"
	}
	if n.size == 0 {
		e.appendText(unscaled)
		return ""
	}
	for pad := len(unscaled); pad < n.size; pad++ {
		e.out = append(e.out, byte(int8(unscaled[0])>>7)) // the sign
	}
	e.out = append(e.out, unscaled...)
	return ""
}

// bigDecimal encodes bytes that hold the unscaled number's bytes and the scale.
func (e *jsonEncoder) bigDecimal(n *jsonNode, text []byte) (wrong string) {
	d, ok := parseDecimal(text, true)
	if !ok {
		return "want " + n.want
	}
	scale := len(d.fraction) - d.exponent
	if scale < -DecimalPrecisionMax || scale > DecimalPrecisionMax {
		return "the decimal's scale is beyond " + strconv.Itoa(DecimalPrecisionMax)
	}
	var buf [32]byte
	unscaled, ok := d.unscaled(buf[:0], len(d.fraction), n.precision)
	if !ok {
		return "the decimal has more than " + strconv.Itoa(n.precision) + " digits in all"
	}
	var head, tail [binary.MaxVarintLen64]byte
	headSize := binary.PutVarint(head[:], int64(len(unscaled)))
	tailSize := binary.PutVarint(tail[:], int64(scale))
	e.out = binary.AppendVarint(e.out, int64(headSize+len(unscaled)+tailSize))
	e.out = append(append(append(e.out, head[:headSize]...), unscaled...), tail[:tailSize]...)
	return ""
}

// parseUUID reads the form with hyphens, in either case.
func parseUUID(text []byte) (id [16]byte, ok bool) {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return id, false
	}
	at := 0
	for _, part := range [...][]byte{text[:8], text[9:13], text[14:18], text[19:23], text[24:]} {
		n, err := hex.Decode(id[at:], part)
		if err != nil {
			return id, false
		}
		at += n
	}
	return id, true
}

func (e *jsonEncoder) boolean(n *jsonNode, c byte) bool {
	switch c {
	case 't':
		e.out = append(e.out, 1)
		return e.literal("true")
	case 'f':
		e.out = append(e.out, 0)
		return e.literal("false")
	}
	return e.wrong(n.want)
}

func (e *jsonEncoder) numberValue(n *jsonNode, c byte) bool {
	switch isNumber := c == '-' || c >= '0' && c <= '9'; {
	case isNumber && n.form == formInt:
		return e.integer(n)
	case isNumber:
		return e.float(n)
	case c == '"' && n.isLong:
		return e.longText(n)
	}
	return e.wrong(n.want)
}

// integer reads a number at the position. Nearly all are a few digits; the others are read by
// the book.
func (e *jsonEncoder) integer(n *jsonNode) bool {
	const safeDigits = 18 // of an int64
	i := e.pos
	if e.text[i] == '-' {
		i++
	}
	first, v := i, int64(0)
	for i < len(e.text) && i < first+safeDigits && e.text[i]-'0' <= 9 {
		v = v*10 + int64(e.text[i]-'0')
		i++
	}
	isPlain := i > first && (e.text[first] != '0' || i == first+1)
	if isPlain && i < len(e.text) {
		c := e.text[i]
		isPlain = c-'0' > 9 && c != '.' && c|0x20 != 'e'
	}
	if isPlain {
		if e.text[e.pos] == '-' {
			v = -v
		}
		e.pos = i
		return e.appendInt(n, v, "")
	}
	number, ok := e.number()
	if !ok {
		return false
	}
	v, wrong := integral(number)
	return e.appendInt(n, v, wrong)
}

// longText reads a long in a string, for clients whose numbers hold 53 bits.
func (e *jsonEncoder) longText(n *jsonNode) bool {
	text, ok := e.str()
	if !ok {
		return false
	}
	d, ok := parseDecimal(text, false)
	if !ok || d.fraction != nil {
		return e.fault("want an integer, or its digits in a string")
	}
	v, wrong := integral(text)
	return e.appendInt(n, v, wrong)
}

func (e *jsonEncoder) appendInt(n *jsonNode, v int64, wrong string) bool {
	if wrong == "" && (v < n.low || v > n.high) {
		wrong = outOfRange
	}
	if wrong != "" {
		if wrong == outOfRange {
			wrong += " of " + strconv.FormatInt(n.low, 10) + " to " + strconv.FormatInt(n.high, 10)
		}
		return e.fault(wrong)
	}
	e.out = binary.AppendVarint(e.out, v)
	return true
}

const (
	outOfRange  = "the integer is out of the range"
	notIntegral = "want an integer, got a number with a fraction"
)

// integral reads a JSON number that must be an integer, such as 12, 1e3 or 5.0, in one pass over
// its text, however large its exponent.
func integral(number []byte) (v int64, wrong string) {
	d, _ := parseDecimal(number, true)
	sum, zeros, isHuge := uint64(0), 0, false // zeros: since the last other digit
	for _, part := range [...][]byte{d.whole, d.fraction} {
		for _, c := range part {
			if c == '0' {
				zeros++
				continue
			}
			if sum == 0 {
				zeros = 0
			}
			sum, isHuge = timesTen(sum, zeros+1, isHuge)
			if sum > math.MaxUint64-9 {
				isHuge = true
			}
			sum += uint64(c - '0')
			zeros = 0
		}
	}
	if sum == 0 && !isHuge {
		return 0, ""
	}
	zeros += d.exponent - len(d.fraction)
	if zeros < 0 {
		return 0, notIntegral
	}
	sum, isHuge = timesTen(sum, zeros, isHuge)
	switch {
	case isHuge, sum > 1<<63, sum == 1<<63 && !d.isNegative:
		return 0, outOfRange
	case d.isNegative:
		return -int64(sum), ""
	}
	return int64(sum), ""
}

// timesTen multiplies by 10^n, and says when the product is beyond 64 bits.
func timesTen(v uint64, n int, isHuge bool) (uint64, bool) {
	for ; n > 0 && v > 0 && !isHuge; n-- {
		if v > math.MaxUint64/10 {
			return v, true
		}
		v *= 10
	}
	return v, isHuge
}

func (e *jsonEncoder) float(n *jsonNode) bool {
	number, ok := e.number()
	if !ok {
		return false
	}
	bits := 64
	if n.form == formFloat {
		bits = 32
	}
	v, err := strconv.ParseFloat(string(number), bits)
	if err != nil {
		return e.fault("the number is out of the range of " + strconv.Itoa(bits) + " bits")
	}
	if bits == 32 {
		e.out = binary.LittleEndian.AppendUint32(e.out, math.Float32bits(float32(v)))
	} else {
		e.out = binary.LittleEndian.AppendUint64(e.out, math.Float64bits(v))
	}
	return true
}

var durationParts = [...]string{"months", "days", "millis"}

// duration reads three members into a fixed of 12 bytes.
func (e *jsonEncoder) duration(n *jsonNode, c byte) bool {
	if c != '{' {
		return e.wrong(n.want)
	}
	start := len(e.out)
	e.out = append(e.out, make([]byte, n.size)...)
	e.path = append(e.path, pathPart{index: -1})
	var seen [len(durationParts)]bool
	ok := e.durationMembers(start, &seen)
	for i := 0; ok && i < len(seen); i++ {
		if !seen[i] {
			e.path[len(e.path)-1].name = durationParts[i]
			ok = e.fault("the field is missing and has no default")
		}
	}
	e.path = e.path[:len(e.path)-1]
	return ok
}

func (e *jsonEncoder) durationMembers(start int, seen *[len(durationParts)]bool) bool {
	if e.isEmpty('}') {
		return true
	}
	for another := true; another; {
		key, ok := e.keyUnder(len(e.path) - 1)
		if !ok {
			return false
		}
		i := 0
		for i < len(durationParts) && string(key) != durationParts[i] {
			i++
		}
		e.path[len(e.path)-1].name = string(key)
		switch {
		case i == len(durationParts):
			ok = e.fault("there is no such field") && e.skip()
		case seen[i]:
			ok = e.fault("the field is there twice") && e.skip()
		default:
			seen[i] = true
			ok = e.durationPart(start + 4*i)
		}
		if !ok {
			return false
		}
		if another, ok = e.more('}'); !ok {
			return false
		}
	}
	return true
}

func (e *jsonEncoder) durationPart(at int) bool {
	const want = "an integer from 0 to 4294967295"
	if c := e.peek(); c != '-' && (c < '0' || c > '9') {
		return e.wrong(want)
	}
	number, ok := e.number()
	if !ok {
		return false
	}
	v, wrong := integral(number)
	if wrong != "" || v < 0 || v > math.MaxUint32 {
		return e.fault("want " + want)
	}
	binary.LittleEndian.PutUint32(e.out[at:], uint32(v))
	return true
}
