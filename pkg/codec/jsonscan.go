package codec

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonScanner reads JSON by RFC 8259 and nothing more lax, from front to back, each byte once.
// Its methods say whether reading can go on: after a fault of the syntax it cannot, after others
// it can until there are JSONFaultsMax of them.
type jsonScanner struct {
	text    []byte
	pos     int
	scratch []byte // the last string that had escapes
	out     []byte // what was encoded so far; the path's keys are in it
	path    []pathPart
	faults  []JSONFault
}

// pathPart is a step from a value to one in it. It holds places and no texts, since most paths
// are never written down.
type pathPart struct {
	name           string // of a field or branch; "" for the others
	index          int    // of an item, or -1
	keyAt, keyEnds int    // in out, of a map's key
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *jsonScanner) peek() byte {
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		if c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
		s.pos++
	}
	return 0
}

// fault notes that the value at the path is wrong.
func (s *jsonScanner) fault(message string) bool {
	s.faults = append(s.faults, JSONFault{Path: s.renderPath(), Message: message})
	return len(s.faults) < JSONFaultsMax
}

func (s *jsonScanner) renderPath() string {
	var out []byte
	for _, part := range s.path {
		if part.index >= 0 {
			out = append(strconv.AppendInt(append(out, '['), int64(part.index), 10), ']')
			continue
		}
		name := part.name
		if name == "" {
			name = string(s.out[part.keyAt:part.keyEnds])
		}
		switch name = clip(name); {
		case !isIdentifier(name):
			out = append(strconv.AppendQuote(append(out, '['), name), ']')
		case len(out) == 0:
			out = append(out, name...)
		default:
			out = append(append(out, '.'), name...)
		}
	}
	return string(out)
}

func isIdentifier(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// stop notes a fault after which nothing more is read.
func (s *jsonScanner) stop(message string) bool {
	s.fault(message)
	return false
}

// syntax notes that the text at the position is not JSON.
func (s *jsonScanner) syntax(want string) bool {
	if s.pos >= len(s.text) {
		return s.stop("the text ends, want " + want)
	}
	return s.stop("not JSON at byte " + strconv.Itoa(s.pos) + ", want " + want)
}

// more reads what follows a member or an item: a comma, and another comes, or the end.
func (s *jsonScanner) more(end byte) (another, ok bool) {
	switch s.peek() {
	case ',':
		s.pos++
		return true, true
	case end:
		s.pos++
		return false, true
	}
	return false, s.syntax("a comma or " + string(rune(end)))
}

// isEmpty reads an opening bracket, and the closing one if it follows at once.
func (s *jsonScanner) isEmpty(end byte) bool {
	s.pos++
	if s.peek() != end {
		return false
	}
	s.pos++
	return true
}

// key reads a name and its colon. It is valid until the next string is read.
func (s *jsonScanner) key() ([]byte, bool) {
	if s.peek() != '"' {
		return nil, s.syntax("a name in double quotes")
	}
	key, ok := s.str()
	if !ok {
		return nil, false
	}
	if s.peek() != ':' {
		return nil, s.syntax("a colon")
	}
	s.pos++
	return key, true
}

// keyUnder is key with its faults at the value that holds it: part is the last of the path.
func (s *jsonScanner) keyUnder(part int) ([]byte, bool) {
	s.path = s.path[:part]
	key, ok := s.key()
	s.path = s.path[:part+1]
	return key, ok
}

// literal reads true, false or null.
func (s *jsonScanner) literal(word string) bool {
	end := s.pos + len(word)
	if end > len(s.text) || string(s.text[s.pos:end]) != word {
		return s.syntax(word)
	}
	s.pos = end
	return true
}

// str reads a string, whose first quote is at the position. The result references the text, or
// scratch until the next string is read.
func (s *jsonScanner) str() ([]byte, bool) {
	start, high := s.pos+1, byte(0)
	for i := start; i < len(s.text); i++ {
		c := s.text[i]
		if c == '"' {
			s.pos = i + 1
			return s.checked(s.text[start:i], high >= utf8.RuneSelf)
		}
		if c < ' ' || c == '\\' {
			return s.escaped(start, i)
		}
		high |= c
	}
	s.pos = len(s.text)
	return nil, s.syntax("the string's closing quote")
}

func (s *jsonScanner) checked(content []byte, mayBeInvalid bool) ([]byte, bool) {
	if mayBeInvalid && !utf8.Valid(content) {
		return content, s.fault("the string is not UTF-8")
	}
	return content, true
}

// escaped goes on with a string from the first byte that does not stand for itself.
func (s *jsonScanner) escaped(start, at int) ([]byte, bool) {
	out := s.scratch[:0]
	out = append(out, s.text[start:at]...)
	isWhole := true
	for s.pos = at; s.pos < len(s.text); {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			s.scratch = out
			if !isWhole && !s.fault("the string holds half of a surrogate pair") {
				return nil, false
			}
			return s.checked(out, true)
		case c < ' ':
			return nil, s.syntax("control characters in a string to be escaped")
		case c != '\\':
			out = append(out, c)
			s.pos++
		default:
			r, ok := s.escape()
			if !ok {
				return nil, false
			}
			isWhole = isWhole && r >= 0
			out = utf8.AppendRune(out, r) // a half becomes U+FFFD
		}
	}
	s.scratch = out
	return nil, s.syntax("the string's closing quote")
}

// escape reads from a backslash on. Half of a surrogate pair is -1.
func (s *jsonScanner) escape() (rune, bool) {
	if s.pos+1 >= len(s.text) {
		s.pos = len(s.text)
		return 0, s.syntax("the string's closing quote")
	}
	c := s.text[s.pos+1]
	switch c {
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case '"', '\\', '/':
	case 'u':
		return s.escapedRune()
	default:
		return 0, s.syntax("one of JSON's escapes")
	}
	s.pos += 2
	return rune(c), true
}

func (s *jsonScanner) escapedRune() (rune, bool) {
	r := s.hex4()
	if r < 0 {
		return 0, s.syntax("four hex digits after \\u")
	}
	s.pos += 6
	if !utf16.IsSurrogate(r) {
		return r, true
	}
	if low := s.hex4(); low >= 0 {
		if whole := utf16.DecodeRune(r, low); whole != utf8.RuneError {
			s.pos += 6
			return whole, true
		}
	}
	return -1, true
}

// hex4 returns the code unit of a \u escape, with its four digits, at the position, or -1.
func (s *jsonScanner) hex4() rune {
	if s.pos+6 > len(s.text) || s.text[s.pos] != '\\' || s.text[s.pos+1] != 'u' {
		return -1
	}
	r := rune(0)
	for _, c := range s.text[s.pos+2 : s.pos+6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return r
}

// number reads a number's text.
func (s *jsonScanner) number() ([]byte, bool) {
	start := s.pos
	if s.text[s.pos] == '-' {
		s.pos++
	}
	switch n := s.digits(); {
	case n == 0:
		return nil, s.syntax("a digit")
	case n > 1 && s.text[s.pos-n] == '0':
		s.pos -= n
		return nil, s.syntax("a number without leading zeros")
	}
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		if s.digits() == 0 {
			return nil, s.syntax("a digit")
		}
	}
	if s.pos < len(s.text) && s.text[s.pos]|0x20 == 'e' {
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		if s.digits() == 0 {
			return nil, s.syntax("a digit")
		}
	}
	return s.text[start:s.pos], true
}

func (s *jsonScanner) digits() int {
	digits, _ := leadingDigits(s.text[s.pos:])
	s.pos += len(digits)
	return len(digits)
}

// kindOfValue names the JSON kind of a value by its first byte, "" for none.
func kindOfValue(first byte) string {
	switch {
	case first == '{':
		return "an object"
	case first == '[':
		return "an array"
	case first == '"':
		return "a string"
	case first == 't' || first == 'f':
		return "a boolean"
	case first == 'n':
		return "null"
	case first == '-' || first >= '0' && first <= '9':
		return "a number"
	}
	return ""
}

// wrong notes that a value of another kind stands at the position, and steps over it.
func (s *jsonScanner) wrong(want string) bool {
	got := kindOfValue(s.peek())
	if got == "" {
		return s.syntax(want)
	}
	return s.fault("want "+want+", got "+got) && s.skip()
}

// skip steps over one value of any kind, without recursion.
func (s *jsonScanner) skip() bool {
	const depthMax = 64
	var ends [depthMax]byte // of the arrays and objects around the position
	depth := 0
	for {
		opened, ok := s.skipStart(ends[:], depth)
		if !ok {
			return false
		}
		if depth += opened; opened == 0 {
			if depth, ok = s.skipEnds(ends[:], depth); !ok {
				return false
			}
		}
		if depth == 0 {
			return true
		}
		if ends[depth-1] == '}' {
			if _, ok := s.key(); !ok {
				return false
			}
		}
	}
}

// skipStart steps over a scalar or an empty array or object, or into one: then it returns 1.
func (s *jsonScanner) skipStart(ends []byte, depth int) (opened int, ok bool) {
	switch c := s.peek(); kindOfValue(c) {
	case "":
		return 0, s.syntax("a value")
	case "a string":
		_, ok = s.str()
	case "a number":
		_, ok = s.number()
	case "a boolean":
		ok = s.literal(map[bool]string{true: "true", false: "false"}[c == 't'])
	case "null":
		ok = s.literal("null")
	default:
		end := c + 2 // '[' and ']', '{' and '}'
		if s.isEmpty(end) {
			return 0, true
		}
		if depth == len(ends) {
			return 0, s.stop("nested deeper than " + strconv.Itoa(len(ends)) + " levels")
		}
		ends[depth] = end
		return 1, true
	}
	return 0, ok
}

// skipEnds steps over the commas and brackets that follow a value, up to the next value.
func (s *jsonScanner) skipEnds(ends []byte, depth int) (int, bool) {
	for depth > 0 {
		another, ok := s.more(ends[depth-1])
		if !ok {
			return depth, false
		}
		if another {
			return depth, true
		}
		depth--
	}
	return 0, true
}
