package project

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/pkg/projection/declared"
)

// Fault is one thing that is wrong with a project.
type Fault = declared.Fault

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
