// Package app turns a program, which is a project and what it has in Go, into commands: the
// services and the tools around them. pkg/app is its public face; cmd/foldstream adds the local
// stack.
//
// A command first makes an Environment: the configuration is loaded, the project is checked
// whole, program and project are held against each other. Only then is anything connected.
// A service next checks that every topic and every schema is there, and names the command that
// creates what is missing; it never creates them itself.
//
// Data goes to stdout, all else to stderr. Exit codes are those of internal/service.
package app

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/internal/query"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
)

// Program is what a team's binary is made of.
type Program struct {
	Name     string // of the binary, in help and remedies; "foldstream" when empty
	Project  fs.FS  // its root holds foldstream.yaml; nil: --project must name a folder
	Deciders []decider.Any
	Views    []projection.View
	// Answers are what the read side says beyond the rows of the views.
	Answers query.Definitions
	// Stock is set by the binaries that we ship: a project named by --project is somebody
	// else's, so it runs without this program's deciders and views.
	Stock bool
}

func (p Program) withDefaults() Program {
	if p.Name == "" {
		p.Name = "foldstream"
	}
	return p
}

func (p Program) definitions() []decider.Definition {
	var all []decider.Definition
	for _, d := range p.Deciders {
		all = append(all, d.Definition())
	}
	return all
}

// deciderOf are the definitions by category.
func (p Program) deciderOf() map[string]*decider.Definition {
	all := map[string]*decider.Definition{}
	for _, d := range p.definitions() {
		all[d.Category] = &d
	}
	return all
}

// consumers are the dead-letter topics' owners that the project does not know of.
func (p Program) consumers() []string {
	var all []string
	for _, v := range p.Views {
		all = append(all, topics.ConsumerView(v.Name, v.Version))
	}
	return all
}

// agree holds the views against the project and joins all faults. Deciders are held against it
// by project.Resolve.
func (p Program) agree(in *project.Project) error {
	var faults []error
	seen := map[string]bool{}
	for _, v := range p.Views {
		id := topics.ConsumerView(v.Name, v.Version)
		if seen[id] {
			faults = append(faults, fmt.Errorf("the program has version %d of view %s twice: give each version a number of its own", v.Version, v.Name))
		}
		seen[id] = true
		faults = append(faults, v.Validate(), viewAgrees(v, in))
	}
	return errors.Join(faults...)
}

func viewAgrees(v projection.View, in *project.Project) error {
	var faults []error
	for _, name := range v.Categories {
		c, known := in.Category(name)
		switch {
		case !known:
			faults = append(faults, fmt.Errorf("view %s reads category %s, which %s does not have: add it there", v.Name, name, project.File))
		case c.Mode == topics.ModeExternal:
			faults = append(faults, fmt.Errorf("view %s reads category %s, which is in mode external and has no events", v.Name, name))
		}
	}
	for _, t := range v.Types {
		s, there := in.Schema(t.Name, t.Version)
		switch {
		case !there:
			faults = append(faults, fmt.Errorf("view %s folds version %d of %s, which has no schema: add %s", v.Name, t.Version, t.Name, schemaPath(in, t.Name, t.Version)))
		case s.Kind != event.KindEvent:
			faults = append(faults, fmt.Errorf("view %s folds %s, which is of kind %s: only events are folded", v.Name, t.Name, s.Kind))
		}
	}
	return errors.Join(faults...)
}

func schemaPath(in *project.Project, typ string, version int) string {
	category, name, _ := strings.Cut(typ, ".")
	return fmt.Sprintf("%s/%s/%s.v%d.avsc", in.SchemasDir, category, name, version)
}

// layout is every topic that the program's project needs.
func (p Program) layout(in *project.Project) topics.Layout {
	layout := in.Layout()
	layout.Consumers = slices.Concat(layout.Consumers, p.consumers())
	return layout
}
