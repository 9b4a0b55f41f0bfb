package project

import (
	"path"

	"github.com/foldstream/foldstream/pkg/projection/declared"
)

// views reads every views/<view>.v<version>.yaml. Where schemas are at fault already, what could
// be said of a view would only repeat it.
func (l *loader) views() {
	if len(l.faults) > 0 {
		return
	}
	views, err := declared.Load(l.fsys, declared.Dir, "", l.project.ViewTypes())
	for _, f := range declared.Faults(err) {
		f.File = path.Join(l.label, f.File)
		l.faults = append(l.faults, f)
	}
	if err != nil && len(l.faults) == 0 {
		l.fault(declared.Dir, 0, "", "%v", err)
	}
	l.project.Views = views
}

// ViewTypes are the types that the project's views may fold, for declared.Load and declared.Test.
func (p *Project) ViewTypes() *declared.Types {
	var types []declared.Type
	for _, s := range p.Schemas {
		if s.Category() != OwnFolder {
			types = append(types, declared.Type{Name: s.Type, Version: s.Version, Kind: s.Kind, Schema: s.Schema})
		}
	}
	return declared.NewTypes(types...)
}
