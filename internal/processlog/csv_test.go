package processlog

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// FuzzRecordsAgreeWithTheStandardLibrary holds that every file which encoding/csv reads whole
// has the same records here.
func FuzzRecordsAgreeWithTheStandardLibrary(f *testing.F) {
	for _, text := range []string{
		"a,b\n1,2\n", "a\r\n\"x\r\ny\"\r\n", "\"\",\"\"\"\"\n,\n", "\"a\n\n\nb\",c\nd,e", "a,b\n\n\r\nc,d\r", "\"a\",\"b\"\n\"c\n\",d\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "\n") >= recordLinesMax {
			return
		}
		want, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil {
			return
		}
		got, err := readAll(text)
		if err != nil {
			t.Fatalf("%q: got %v, want %q", text, err, want)
		}
		if !slices.EqualFunc(got, want, slices.Equal[[]string]) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}

func readAll(text string) ([][]string, error) {
	r := recordReader{lines: lineReader{in: bufio.NewReaderSize(strings.NewReader(text), 16), bytesMax: 1 << 20}}
	var all [][]string
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if rec.fault != "" {
			return nil, &LineError{Line: rec.line, Reason: rec.fault}
		}
		var fields []string
		for _, field := range rec.fields {
			fields = append(fields, string(field))
		}
		r.columns = len(fields)
		all = append(all, fields)
	}
}

// TestLongLinesAreCut reads lines around the limit with a buffer that is smaller than they are.
func TestLongLinesAreCut(t *testing.T) {
	t.Parallel()
	const bytesMax = 100
	for _, end := range []string{"\n", "\r\n"} {
		for length := 90; length <= 400; length++ {
			text := strings.Repeat("x", length) + end + "next" + end
			r := lineReader{in: bufio.NewReaderSize(strings.NewReader(text), 16), bytesMax: bytesMax}
			first, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := len(first.text), min(length, bytesMax); got != want || first.cut != (length > bytesMax) {
				t.Errorf("%d bytes and %q: got %d bytes, cut %v, want %d, %v", length, end, got, first.cut, want, length > bytesMax)
			}
			if second, err := r.next(); err != nil || string(second.text) != "next" || second.number != 2 {
				t.Errorf("%d bytes and %q: got then %q (%d), %v, want the next line", length, end, second.text, second.number, err)
			}
		}
	}
}
