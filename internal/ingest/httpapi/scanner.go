package httpapi

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/foldstream/foldstream/internal/service/web"
)

// scanner reads one JSON text value by value, without copies but for texts with escapes. It is
// strict (RFC 8259): no trailing commas, no control characters in texts, no lone surrogates, and
// besides no member twice. Values that are skipped by raw are only matched bracket by bracket;
// whoever takes them checks them. It keeps the path of where it is, for faults.
//
// The first fault ends it: err is set, and every later call does nothing. The text must be UTF-8.
type scanner struct {
	b    []byte
	pos  int
	path []segment
	err  *Fault
}

// segment is one step of a path: a member's name or, where that is nil, an index.
type segment struct {
	name  []byte
	index int
}

// root begins every path.
const root = "body"

// location writes the path of where the scanner is.
func (s *scanner) location() string {
	out := []byte(root)
	for _, seg := range s.path {
		if seg.name == nil {
			out = append(strconv.AppendInt(append(out, '['), int64(seg.index), 10), ']')
			continue
		}
		out = append(append(out, '.'), web.Clip(string(seg.name))...)
	}
	return string(out)
}

// fail notes the first fault.
func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = &Fault{Location: s.location(), Message: fmt.Sprintf(format, args...)}
	}
}

// want is fail with what stands there instead.
func (s *scanner) want(what string) { s.fail("want %s, got %s (at byte %d)", what, s.what(), s.pos) }

func (s *scanner) space() {
	for s.pos < len(s.b) {
		switch s.b[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek is the next byte behind white space; 0 at the end, and for a NUL, which begins no value.
func (s *scanner) peek() byte {
	s.space()
	if s.err != nil || s.pos >= len(s.b) {
		return 0
	}
	return s.b[s.pos]
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c || c == 0 {
		return false
	}
	s.pos++
	return true
}

// end demands that nothing follows.
func (s *scanner) end() {
	if s.space(); s.err == nil && s.pos < len(s.b) {
		s.want("the end")
	}
}

// object is where the scanner is in an object; names is which of the known names it had.
type object struct {
	open  bool
	name  []byte // of the member whose value comes next
	names uint32
}

// openObject begins an object. Use:
//
//	var o object
//	for s.openObject(); s.member(&o); {
//		switch string(o.name) {
//		case "a":
//			s.once(&o, 0)
//			… read the value …
//		default:
//			s.unknown()
//		}
//	}
func (s *scanner) openObject() {
	if !s.take('{') {
		s.want("an object")
	}
}

// member goes on to the next member and reads its name; false at the end, or at a fault.
func (s *scanner) member(o *object) bool {
	if o.open && s.err == nil {
		s.path = s.path[:len(s.path)-1]
	}
	if s.err != nil {
		return false
	}
	if s.take('}') && s.err == nil {
		return false
	}
	if o.open && !s.take(',') {
		s.want("a comma or the object's end")
		return false
	}
	if s.peek() != '"' {
		s.want("a member's name")
		return false
	}
	o.open, o.name = true, s.name()
	s.path = append(s.path, segment{name: o.name})
	if s.err == nil && len(s.path) > depthMax {
		s.fail("is nested more than %d levels deep", depthMax)
	}
	if !s.take(':') {
		s.want("a colon")
	}
	return s.err == nil
}

// once notes a known name, which may not come again.
func (s *scanner) once(o *object, bit int) {
	if o.names&(1<<bit) != 0 {
		s.fail("stands twice")
	}
	o.names |= 1 << bit
}

func (s *scanner) unknown() { s.fail("is unknown") }

// had says whether a known name came.
func (o *object) had(bit int) bool { return o.names&(1<<bit) != 0 }

// array is where the scanner is in an array; index is of the item that comes next.
type array struct {
	open  bool
	index int
}

// openArray begins an array; item goes on, as member does for objects.
func (s *scanner) openArray() {
	if !s.take('[') {
		s.want("an array")
	}
}

func (s *scanner) item(a *array) bool {
	if a.open && s.err == nil {
		s.path = s.path[:len(s.path)-1]
	}
	if s.err != nil || s.take(']') {
		return false
	}
	if a.open && !s.take(',') {
		s.want("a comma or the array's end")
		return false
	}
	if a.open {
		a.index++
	}
	a.open = true
	s.path = append(s.path, segment{index: a.index})
	return true
}

// string reads a text, which is a copy of its own.
func (s *scanner) string() string {
	if s.peek() != '"' {
		s.want("a string")
		return ""
	}
	return string(s.text())
}

// name reads a member's name; it may reference the text, and is never nil.
func (s *scanner) name() []byte {
	if name := s.text(); name != nil {
		return name
	}
	return []byte{}
}

// text reads what begins with a quotation mark; it may reference the scanner's bytes.
func (s *scanner) text() []byte {
	s.pos++
	for i := s.pos; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			text := s.b[s.pos:i:i]
			s.pos = i + 1
			return text
		case c == '\\':
			return s.escaped(i)
		case c < 0x20:
			s.pos = i
			s.fail("a string has a control character: escape it")
			return nil
		}
	}
	s.pos = len(s.b)
	s.fail("a string does not end")
	return nil
}

// escaped reads on from the first escape, at i.
func (s *scanner) escaped(i int) []byte {
	out := append(make([]byte, 0, i-s.pos+32), s.b[s.pos:i]...)
	for i < len(s.b) {
		c := s.b[i]
		switch {
		case c == '"':
			s.pos = i + 1
			return out
		case c < 0x20:
			s.pos = i
			s.fail("a string has a control character: escape it")
			return nil
		case c != '\\':
			out = append(out, c)
			i++
			continue
		}
		var n int
		if out, n = appendEscape(out, s.b[i:]); n == 0 {
			s.pos = i
			s.fail("a string has an escape that is none, or half of a surrogate pair")
			return nil
		}
		i += n
	}
	s.pos = len(s.b)
	s.fail("a string does not end")
	return nil
}

// appendEscape reads the escape that b begins with; n is how long it is, 0 for none.
func appendEscape(out, b []byte) (_ []byte, n int) {
	if len(b) < 2 {
		return out, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return append(out, b[1]), 2
	case 'b':
		return append(out, '\b'), 2
	case 'f':
		return append(out, '\f'), 2
	case 'n':
		return append(out, '\n'), 2
	case 'r':
		return append(out, '\r'), 2
	case 't':
		return append(out, '\t'), 2
	case 'u':
		r, ok := hex4(b[2:])
		if !ok {
			return out, 0
		}
		if !utf16.IsSurrogate(r) {
			return utf8.AppendRune(out, r), 6
		}
		if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
			return out, 0
		}
		low, ok := hex4(b[8:])
		pair := utf16.DecodeRune(r, low)
		if !ok || pair == utf8.RuneError {
			return out, 0
		}
		return utf8.AppendRune(out, pair), 12
	}
	return out, 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// raw passes over one value and returns its bytes. Brackets must match and are counted; inside
// them nothing else is looked at.
func (s *scanner) raw() []byte {
	switch c := s.peek(); {
	case s.err != nil:
		return nil
	case c == '{', c == '[':
		return s.rawNested()
	case c == '"':
		start := s.pos
		s.skipText()
		return s.b[start:s.pos]
	case c == 0:
		s.want("a value")
		return nil
	}
	return s.word()
}

// word passes over a number or a literal.
func (s *scanner) word() []byte {
	start := s.pos
	for s.pos < len(s.b) && isWordByte(s.b[s.pos]) {
		s.pos++
	}
	if s.pos == start {
		s.want("a value")
		return nil
	}
	return s.b[start:s.pos]
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '+' || c == '.'
}

func (s *scanner) rawNested() []byte {
	start, base := s.pos, len(s.path)
	depth := base
	var curly uint64 // bit d: the bracket at depth d is a curly one
	for s.pos < len(s.b) {
		switch c := s.b[s.pos]; c {
		case '{', '[':
			if depth == depthMax {
				s.fail("is nested more than %d levels deep", depthMax)
				return nil
			}
			curly <<= 1
			if c == '{' {
				curly |= 1
			}
			depth++
		case '}', ']':
			if (curly&1 == 1) != (c == '}') {
				s.fail("brackets do not match")
				return nil
			}
			curly >>= 1
			depth--
			if depth == base {
				s.pos++
				return s.b[start:s.pos]
			}
		case '"':
			if s.skipText(); s.err != nil {
				return nil
			}
			continue
		}
		s.pos++
	}
	s.fail("does not end")
	return nil
}

// skipText passes over what begins with a quotation mark.
func (s *scanner) skipText() {
	for i := s.pos + 1; i < len(s.b); i++ {
		switch s.b[i] {
		case '"':
			s.pos = i + 1
			return
		case '\\':
			i++
		}
	}
	s.pos = len(s.b)
	s.fail("a string does not end")
}

// what names the next token, for a fault.
func (s *scanner) what() string {
	switch c := s.peek(); {
	case s.pos >= len(s.b):
		return "the end"
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == 't', c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == '-', c >= '0' && c <= '9':
		return "a number"
	default:
		r, _ := utf8.DecodeRune(s.b[s.pos:])
		return strconv.QuoteRune(r)
	}
}
