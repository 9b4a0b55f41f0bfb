package processlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// recordLinesMax bounds over how many lines one row's quoted fields may go.
const recordLinesMax = 64

// record is one row of the file, good or not. Its slices are valid until the next one is read.
type record struct {
	line   int // of its first line, from 1
	text   []byte
	fields [][]byte
	fault  string // why it is no row; "" for a row
	cut    bool   // text is only its beginning
}

// recordReader splits a file into rows as RFC 4180 has them, with LF or CRLF, without empty
// lines.
//
// A quote that is never closed must not swallow the rest of the file: where the lines joined
// make no row of the header's width, the first line alone is bad, and reading goes on at the
// second.
type recordReader struct {
	lines   lineReader
	columns int // 0 before the header is known
	line    int // number of the last line that was part of a record
	fields  [][]byte
	scratch []byte
}

// next returns io.EOF at the end; other errors are the file's.
func (r *recordReader) next() (record, error) {
	for {
		first, err := r.lines.next()
		if err != nil {
			return record{}, err
		}
		r.line = first.number
		if len(first.text) == 0 {
			continue
		}
		rec := record{line: first.number, text: first.text, cut: first.cut}
		if first.cut {
			rec.fault = fmt.Sprintf("the line is longer than %d bytes", r.lines.bytesMax)
			return rec, nil
		}
		fault, open := r.split(first.text)
		if open {
			return r.join(first)
		}
		rec.fields, rec.fault = r.fields, fault
		return rec, nil
	}
}

// join reads further lines until the open quote of the first is closed.
func (r *recordReader) join(first line) (record, error) {
	text := bytes.Clone(first.text)
	alone := record{line: first.number, text: text[:len(text):len(text)], fault: "a quoted field is not closed"}
	var held []line
	quotes := bytes.Count(text, quote)
	for len(held) < recordLinesMax-1 {
		next, err := r.lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return record{}, err
		}
		next.text = bytes.Clone(next.text)
		held = append(held, next)
		if next.cut || len(text)+1+len(next.text) > r.lines.bytesMax {
			break
		}
		text = append(append(text, '\n'), next.text...)
		quotes += bytes.Count(next.text, quote)
		if quotes%2 != 0 {
			continue
		}
		fault, open := r.split(text)
		if fault == "" && !open && (r.columns == 0 || len(r.fields) == r.columns) {
			r.line = next.number
			return record{line: first.number, text: text, fields: r.fields}, nil
		}
		break
	}
	r.lines.back(held)
	return alone, nil
}

var quote = []byte{'"'}

// split cuts a row into r.fields. It returns what is wrong, or that a quote is still open at
// the end.
func (r *recordReader) split(text []byte) (fault string, open bool) {
	r.fields, r.scratch = r.fields[:0], r.scratch[:0]
	for {
		var field []byte
		if len(text) > 0 && text[0] == '"' {
			var rest []byte
			if field, rest, fault, open = r.quoted(text[1:]); fault != "" || open {
				return fault, open
			}
			text = rest
		} else {
			end := bytes.IndexByte(text, ',')
			if end < 0 {
				end = len(text)
			}
			field, text = text[:end], text[end:]
			if bytes.IndexByte(field, '"') >= 0 {
				return fmt.Sprintf("field %d has a quote inside: quote the whole field and double the quotes in it", len(r.fields)+1), false
			}
		}
		r.fields = append(r.fields, field)
		if len(text) == 0 {
			return "", false
		}
		text = text[1:] // the comma
	}
}

// quoted reads a field whose opening quote is gone; rest begins with a comma or is empty.
func (r *recordReader) quoted(text []byte) (field, rest []byte, fault string, open bool) {
	begin := len(r.scratch)
	for {
		end := bytes.IndexByte(text, '"')
		if end < 0 {
			return nil, nil, "", true
		}
		r.scratch = append(r.scratch, text[:end]...)
		text = text[end+1:]
		switch {
		case len(text) == 0 || text[0] == ',':
			return r.scratch[begin:len(r.scratch):len(r.scratch)], text, "", false
		case text[0] == '"':
			r.scratch = append(r.scratch, '"')
			text = text[1:]
		default:
			return nil, nil, fmt.Sprintf("field %d has text after its closing quote", len(r.fields)+1), false
		}
	}
}

// line is one line of the file, without its end.
type line struct {
	number int
	text   []byte // valid until the next line is read
	cut    bool   // the line is longer than bytesMax; the rest was passed over
}

// lineReader reads lines of bounded length.
type lineReader struct {
	in       *bufio.Reader
	bytesMax int
	number   int
	queue    []line // given back
	long     []byte
}

// back gives lines back that were read too far. They must be owned by the caller.
func (r *lineReader) back(lines []line) { r.queue = append(lines, r.queue...) }

func (r *lineReader) next() (line, error) {
	if len(r.queue) > 0 {
		l := r.queue[0]
		r.queue = r.queue[1:]
		return l, nil
	}
	text, err := r.in.ReadSlice('\n')
	cut := false
	if errors.Is(err, bufio.ErrBufferFull) {
		text, cut, err = r.rest(text)
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(text) == 0) {
		return line{}, err
	}
	r.number++
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte{'\n'}), []byte{'\r'})
	if len(text) > r.bytesMax {
		text, cut = text[:r.bytesMax], true
	}
	return line{number: r.number, text: text, cut: cut}, nil
}

// rest gathers a line that is longer than the buffer, and passes over what is beyond bytesMax.
func (r *lineReader) rest(begin []byte) (text []byte, cut bool, err error) {
	r.long = append(r.long[:0], begin...)
	for {
		part, err := r.in.ReadSlice('\n')
		if room := r.bytesMax + len("\r\n") - len(r.long); len(part) > room {
			part, cut = part[:max(room, 0)], true
		}
		r.long = append(r.long, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return r.long, cut, err
		}
	}
}
