package codec

import (
	"math/big"
	"strconv"
)

// decimalBytesMax is the length of two's complement that holds DecimalPrecisionMax digits.
const decimalBytesMax = 416

// appendDecimal writes unscaled·10^-scale with all digits of the scale.
func appendDecimal(dst []byte, unscaled int64, scale int) []byte {
	var buf [20]byte
	digits := strconv.AppendInt(buf[:0], unscaled, 10)
	if unscaled < 0 {
		dst, digits = append(dst, '-'), digits[1:]
	}
	return appendPoint(dst, digits, scale)
}

// appendPoint writes digits with the last scale of them behind the point.
func appendPoint(dst, digits []byte, scale int) []byte {
	whole := len(digits) - scale
	if whole > 0 {
		dst = append(dst, digits[:whole]...)
		digits = digits[whole:]
	} else {
		dst = append(dst, '0')
	}
	if scale == 0 {
		return dst
	}
	dst = append(dst, '.')
	for ; whole < 0; whole++ {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

// appendTwosComplement writes the decimal whose unscaled value is b, most significant byte first.
func appendTwosComplement(dst, b []byte, scale int) []byte {
	isNegative := len(b) > 0 && b[0]&0x80 != 0
	if len(b) <= 8 {
		v := int64(0)
		if isNegative {
			v = -1
		}
		for _, c := range b {
			v = v<<8 | int64(c)
		}
		return appendDecimal(dst, v, scale)
	}
	v := new(big.Int).SetBytes(b)
	if isNegative {
		v.Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))), v)
		dst = append(dst, '-')
	}
	return appendPoint(dst, v.Append(nil, 10), scale)
}

// decimalText is a decimal number taken apart; its parts reference the text.
type decimalText struct {
	isNegative bool
	whole      []byte // "0", or digits that begin with none
	fraction   []byte
	exponent   int
}

// parseDecimal takes a number apart: sign, digits, point, and an exponent where it is allowed.
func parseDecimal(text []byte, mayExponent bool) (d decimalText, ok bool) {
	if len(text) > 0 && text[0] == '-' {
		d.isNegative, text = true, text[1:]
	}
	d.whole, text = leadingDigits(text)
	if len(d.whole) == 0 || len(d.whole) > 1 && d.whole[0] == '0' {
		return d, false
	}
	if len(text) > 0 && text[0] == '.' {
		d.fraction, text = leadingDigits(text[1:])
		if len(d.fraction) == 0 {
			return d, false
		}
	}
	if mayExponent && len(text) > 1 && text[0]|0x20 == 'e' {
		digits := text[1:]
		isNegative := digits[0] == '-'
		if isNegative || digits[0] == '+' {
			digits = digits[1:]
		}
		digits, text = leadingDigits(digits)
		if len(digits) == 0 {
			return d, false
		}
		if d.exponent = clampedInt(digits); isNegative {
			d.exponent = -d.exponent
		}
	}
	return d, len(text) == 0
}

func leadingDigits(text []byte) (digits, rest []byte) {
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		n++
	}
	return text[:n], text[n:]
}

// clampedInt reads digits up to a number that is beyond every limit.
func clampedInt(digits []byte) int {
	const most = 1 << 30
	v := 0
	for _, c := range digits {
		v = min(v*10+int(c-'0'), most)
	}
	return v
}

// unscaled appends the two's complement of the number times 10^scale, as few bytes as hold it.
// scale is at least the number of digits of the fraction. It fails where there are more than
// precision digits.
func (d *decimalText) unscaled(dst []byte, scale, precision int) ([]byte, bool) {
	if len(d.whole) > precision {
		return dst, false
	}
	digits := make([]byte, 0, 64)
	if d.whole[0] != '0' {
		digits = append(digits, d.whole...)
	}
	for _, c := range d.fraction {
		if c != '0' || len(digits) > 0 {
			digits = append(digits, c)
		}
		if len(digits) > precision {
			return dst, false
		}
	}
	for n := len(d.fraction); n < scale && len(digits) > 0 && len(digits) <= precision; n++ {
		digits = append(digits, '0')
	}
	switch {
	case len(digits) > precision:
		return dst, false
	case len(digits) <= 18:
		return appendInt64(dst, d.small(digits)), true
	}
	v, ok := new(big.Int).SetString(string(digits), 10)
	return appendBig(dst, v, d.isNegative), ok
}

func (d *decimalText) small(digits []byte) int64 {
	v := int64(0)
	for _, c := range digits {
		v = v*10 + int64(c-'0')
	}
	if d.isNegative {
		return -v
	}
	return v
}

// appendInt64 appends two's complement in as few bytes as hold it.
func appendInt64(dst []byte, v int64) []byte {
	size := 1
	for size < 8 && v>>(8*size-1) != 0 && v>>(8*size-1) != -1 {
		size++
	}
	for size--; size >= 0; size-- {
		dst = append(dst, byte(v>>(8*size)))
	}
	return dst
}

// appendBig does the same for a number above zero, or for its negative.
func appendBig(dst []byte, v *big.Int, isNegative bool) []byte {
	if isNegative { // -v is the complement of v-1
		v.Sub(v, big.NewInt(1))
	}
	start := len(dst)
	dst = append(dst, make([]byte, v.BitLen()/8+1)...)
	b := v.FillBytes(dst[start:])
	if isNegative {
		for i := range b {
			b[i] = ^b[i]
		}
	}
	return dst
}
