// Package project loads what a team writes (DESIGN §12): foldstream.yaml, and beside it the Avro
// schemas and the views.
//
// A project is checked whole: every fault is reported, each with file, line, what is wrong and
// what to do, not only the first. What needs the program's Go types (which types of a decider's
// category are commands, which events) is completed by Resolve. A loaded Project is read-only
// and may be shared.
package project

import (
	"io/fs"
	"os"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
)

// File is the name of the file that makes a folder a project.
const File = "foldstream.yaml"

// SchemasDefault is the folder of the schemas where the project names none.
const SchemasDefault = "schemas"

// Project is a checked project.
type Project struct {
	Namespace  string
	Categories []Category // in the order of the file
	// Schemas of the categories, ordered by type and version, and Foldstream's own at the end.
	Schemas []SchemaFile
	// Views that are declared in files of the folder views, in the order of their names. Resolve
	// gives their types the upcasters of the program's deciders.
	Views []projection.View
	// SchemasDir is the folder of the schemas, relative to the project.
	SchemasDir string
	// Compatibility is the rule for new schema versions, as registries spell it.
	Compatibility string
	// PartitionsDefault of categories that name no count; 0 means topics.PartitionsDefault.
	PartitionsDefault int32
	ReplicationFactor int16 // 0: the broker's default
	MinInsyncReplicas int   // 0: derived from the replication factor
}

// Category is one kind of aggregate.
type Category struct {
	Name       string
	Mode       topics.Mode
	Partitions int32         // 0: the project's default
	Retention  time.Duration // of the events; 0: without limit
	// AllowAppends lets a decider's category take ready events too. Always true in append mode.
	AllowAppends bool
	// DedupeIDs and DedupeAge bound how long a command id is remembered (PROTOCOL W13).
	DedupeIDs int
	DedupeAge time.Duration
	// Snapshots say when the category's streams are saved.
	Snapshots snapshot.Settings

	line int
}

// SchemaFile is one .avsc.
type SchemaFile struct {
	Path    string // relative to the project; "foldstream:<path>" for Foldstream's own
	Type    string
	Version int
	Kind    event.Kind // "" in a decider's category until Resolve
	Text    string
	Schema  *codec.Schema
}

// Category returns the part of the type before the dot.
func (s SchemaFile) Category() string { return category(s.Type) }

// LoadDir loads the project in a folder.
func LoadDir(dir string) (*Project, error) { return Load(os.DirFS(dir), dir) }

// Load loads the project at the root of fsys. label stands before file names in errors; "" for
// none. The error joins one *Fault for each thing that is wrong.
func Load(fsys fs.FS, label string) (*Project, error) {
	l := &loader{fsys: fsys, label: label, project: &Project{SchemasDir: SchemasDefault, Compatibility: CompatibilityDefault}}
	if !l.yaml() {
		return nil, l.err()
	}
	l.schemas()
	l.views()
	l.notYetRead()
	if err := l.err(); err != nil {
		return nil, err
	}
	return l.project, nil
}

// Layout is the project as far as topics follow from it. The program adds its views' consumers.
func (p *Project) Layout() topics.Layout {
	layout := topics.Layout{
		Namespace: p.Namespace, ReplicationFactor: p.ReplicationFactor,
		MinInsyncReplicas: p.MinInsyncReplicas, DefaultPartitions: p.PartitionsDefault,
	}
	for _, c := range p.Categories {
		layout.Categories = append(layout.Categories, topics.Category{
			Name: c.Name, Mode: c.Mode, Partitions: c.Partitions, Retention: c.Retention,
		})
	}
	return layout
}

// Category returns a category by name.
func (p *Project) Category(name string) (Category, bool) {
	for _, c := range p.Categories {
		if c.Name == name {
			return c, true
		}
	}
	return Category{}, false
}

// Schema returns one version of a type.
func (p *Project) Schema(typ string, version int) (SchemaFile, bool) {
	for _, s := range p.Schemas {
		if s.Type == typ && s.Version == version {
			return s, true
		}
	}
	return SchemaFile{}, false
}
