package project

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a project.
type Fault struct {
	File    string
	Line    int // 0 where no line can be named
	Column  int // 0 where only the line is known
	Problem string
	Remedy  string
}

func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.Line > 0 && f.Column > 0 {
		fmt.Fprintf(&b, ":%d", f.Column)
	}
	b.WriteString(": " + f.Problem)
	if f.Remedy != "" {
		b.WriteString(": " + f.Remedy)
	}
	return b.String()
}

// faultsMax bounds a report: beyond it more faults help nobody.
const faultsMax = 100

func (l *loader) fault(file string, line int, remedy, problem string, args ...any) {
	l.faults = append(l.faults, &Fault{File: path.Join(l.label, file), Line: line, Problem: fmt.Sprintf(problem, args...), Remedy: remedy})
}

func (l *loader) err() error {
	slices.SortStableFunc(l.faults, func(a, b *Fault) int {
		if a.File != b.File {
			return strings.Compare(a.File, b.File)
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	var all []error
	for _, f := range l.faults[:min(len(l.faults), faultsMax)] {
		all = append(all, f)
	}
	if more := len(l.faults) - faultsMax; more > 0 {
		all = append(all, fmt.Errorf("and %d more faults", more))
	}
	return errors.Join(all...)
}
