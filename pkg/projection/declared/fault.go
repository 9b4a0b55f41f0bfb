package declared

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a definition.
type Fault struct {
	File    string
	Line    int // from 1; 0 where no place can be named
	Column  int // in bytes, from 1; 0 where only the line is known
	Problem string
	Remedy  string // what to write instead; may be empty
}

// Error returns "file:line:column: problem: remedy".
func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
		if f.Column > 0 {
			fmt.Fprintf(&b, ":%d", f.Column)
		}
	}
	b.WriteString(": " + f.Problem)
	if f.Remedy != "" {
		b.WriteString(": " + f.Remedy)
	}
	return b.String()
}

// faultsMax bounds a report of one file: beyond it more faults help nobody.
const faultsMax = 100

// faults gathers what is wrong with one file.
type faults struct {
	file string
	all  []*Fault
}

func (f *faults) add(at position, remedy, problem string, args ...any) {
	f.all = append(f.all, &Fault{File: f.file, Line: at.line, Column: at.column, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

// full says that reading on would only add to a report that is long enough.
func (f *faults) full() bool { return len(f.all) >= faultsMax }

// err joins the faults in the order of their places; nil for none.
func (f *faults) err() error {
	slices.SortStableFunc(f.all, func(a, b *Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	var all []error
	for _, fault := range f.all[:min(len(f.all), faultsMax)] {
		all = append(all, fault)
	}
	return errors.Join(all...)
}

// Faults returns the faults that an error of this package joins, in order.
func Faults(err error) []*Fault {
	var out []*Fault
	var fault *Fault
	switch joined := err.(type) { //nolint:errorlint // it walks the tree itself
	case nil:
	case interface{ Unwrap() []error }:
		for _, one := range joined.Unwrap() {
			out = append(out, Faults(one)...)
		}
	default:
		if errors.As(err, &fault) {
			out = append(out, fault)
		}
	}
	return out
}

// didYouMean returns "did you mean X?", or what is known.
func didYouMean(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	const shownMax = 12
	switch {
	case len(known) == 0:
		return ""
	case len(known) > shownMax:
		return "known are " + strings.Join(known[:shownMax], ", ") + ", …"
	}
	return "known are " + strings.Join(known, ", ")
}

// nearest returns the known word with the smallest edit distance to word, or "" when none is
// nearer than half of word's length.
func nearest(word string, known []string) string {
	const wordMax = 200
	if len(word) > wordMax {
		return ""
	}
	best, nearest := len(word)/2+1, ""
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), strings.ToLower(k)); d < best {
			best, nearest = d, k
		}
	}
	return nearest
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
