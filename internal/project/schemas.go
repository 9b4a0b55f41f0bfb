package project

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/foldstream/foldstream/schemas/avro"
)

// OwnFolder is the schema folder of Foldstream's own envelopes, reserved in every project.
const OwnFolder = "foldstream"

const (
	kindProperty   = "fs.kind"
	typeProperty   = "fs.type"
	schemaSuffix   = ".avsc"
	schemaFilesMax = 10_000
	versionMax     = 99_999
)

// schemaName matches <Name>.v<version>.avsc. The name is an Avro name.
var schemaName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,99})\.v([1-9][0-9]{0,4})\.avsc$`)

// schemas reads every <category>/<Name>.v<version>.avsc.
func (l *loader) schemas() {
	dir := l.project.SchemasDir
	folders, err := fs.ReadDir(l.fsys, dir)
	if err != nil {
		l.noSchemas(dir, err)
		return
	}
	for _, folder := range folders {
		at := path.Join(dir, folder.Name())
		switch {
		case folder.IsDir() && folder.Name() == OwnFolder:
			l.ownCopies(at)
		case folder.IsDir():
			l.folder(at, folder.Name())
		case strings.HasSuffix(folder.Name(), schemaSuffix):
			l.fault(at, 0, "move it to "+dir+"/<category>/<Name>.v<version>.avsc", "a schema lies in the folder of its category")
		}
	}
	l.order()
	l.versions()
	l.withoutSchemas()
	l.own()
}

func (l *loader) noSchemas(dir string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		l.fault(dir, 0, "make it, with one folder per category, or name another by `schemas:` in "+File, "the folder of the schemas is not there")
		return
	}
	l.fault(dir, 0, "", "%v", err)
}

func (l *loader) folder(at, name string) {
	c, known := l.project.Category(name)
	if !known {
		l.fault(at, 0, fmt.Sprintf("add `%s: {mode: …}` to categories in %s, or rename the folder%s", name, File, didYouMean(name, l.categoryNames())),
			"the folder is named for a category that the project does not have")
		return
	}
	entries, err := fs.ReadDir(l.fsys, at)
	if err != nil {
		l.fault(at, 0, "", "%v", err)
		return
	}
	for _, e := range entries {
		switch {
		case !strings.HasSuffix(e.Name(), schemaSuffix):
		case len(l.project.Schemas) >= schemaFilesMax:
			l.fault(at, 0, "split the project", "more than %d schemas", schemaFilesMax)
			return
		default:
			l.schema(path.Join(at, e.Name()), e.Name(), c)
		}
	}
}

func (l *loader) categoryNames() []string {
	var names []string
	for _, c := range l.project.Categories {
		names = append(names, c.Name)
	}
	return names
}

// schema reads one file. Faults of its JSON have a line where the parser tells the place.
func (l *loader) schema(at, name string, c Category) {
	match := schemaName.FindStringSubmatch(name)
	if match == nil {
		l.fault(at, 0, "name it <Name>.v<version>.avsc, with versions from 1, such as Issued.v1.avsc", "the file's name does not say type and version")
		return
	}
	text, err := l.readFile(at)
	if err != nil {
		l.fault(at, 0, "", "%v", err)
		return
	}
	schema, err := codec.Parse(string(text))
	if err != nil {
		l.fault(at, 0, "", "%v", err)
		return
	}
	version, _ := strconv.Atoi(match[2])
	f := SchemaFile{Path: at, Type: c.Name + "." + match[1], Version: version, Text: string(text), Schema: schema}
	if named := typeOf(schema); named != f.Type {
		l.fault(at, lineOf(text, `"name"`), fmt.Sprintf(`set "namespace": %q and "name": %q, or move the file`, c.Name, match[1]),
			"the schema is of type %s, but folder and file say %s", named, f.Type)
	}
	for _, lint := range codec.Lint(schema) {
		l.fault(at, lineOf(text, `"`+lastName(lint.Path)+`"`), lint.Remedy, "%s: %s", lint.Path, lint.Message)
	}
	f.Kind = l.kind(at, text, schema, c)
	l.project.Schemas = append(l.project.Schemas, f)
}

// typeOf is the type that a schema says it is of: its property, or its record's full name.
func typeOf(schema *codec.Schema) string {
	if said := schema.Prop(typeProperty); said != "" {
		return said
	}
	return schema.Name()
}

// kind is the schema's own word, else what the category's mode implies (PROTOCOL D11).
func (l *loader) kind(at string, text []byte, schema *codec.Schema, c Category) event.Kind {
	said := event.Kind(schema.Prop(kindProperty))
	allowed := kindsOf(c.Mode)
	switch {
	case said != "" && !slices.Contains(allowed, said):
		l.fault(at, lineOf(text, `"`+kindProperty+`"`), fmt.Sprintf("want one of %v, or leave it out", allowed),
			"%s %q is not for a category of mode %s", kindProperty, said, c.Mode)
	case said == "" && c.Mode == topics.ModeAppend:
		return event.KindEvent
	case said == "" && c.Mode == topics.ModeExternal:
		return event.KindCommand
	}
	return said
}

func kindsOf(mode topics.Mode) []event.Kind {
	switch mode {
	case topics.ModeAppend:
		return []event.Kind{event.KindEvent}
	case topics.ModeExternal:
		return []event.Kind{event.KindCommand}
	}
	return []event.Kind{event.KindCommand, event.KindEvent, event.KindState}
}

func (l *loader) order() {
	slices.SortFunc(l.project.Schemas, func(a, b SchemaFile) int {
		if a.Type != b.Type {
			return strings.Compare(a.Type, b.Type)
		}
		return a.Version - b.Version
	})
}

// versions holds each type's versions to 1, 2, 3 …, as a registry counts them.
func (l *loader) versions() {
	want, typ := 0, ""
	for _, s := range l.project.Schemas {
		if s.Type != typ {
			want, typ = 0, s.Type
		}
		want++
		if s.Version != want {
			l.fault(s.Path, 0, fmt.Sprintf("rename it to v%d, or add what is missing", want), "version %d of %s follows version %d; versions count from 1 without a gap", s.Version, typ, want-1)
			want = s.Version
		}
	}
}

// withoutSchemas finds categories that could never take an event.
func (l *loader) withoutSchemas() {
	for _, c := range l.project.Categories {
		has := slices.ContainsFunc(l.project.Schemas, func(s SchemaFile) bool { return s.Category() == c.Name })
		if !has && c.Mode != topics.ModeExternal && c.Mode != "" && len(l.faults) == 0 {
			l.fault(File, c.line, fmt.Sprintf("add %s/%s/<Name>.v1.avsc", l.project.SchemasDir, c.Name), "category %s has no schema, so nothing could be written to it", c.Name)
		}
	}
}

// ownCopies allows a project to hold copies of Foldstream's own schemas, as the reference project
// does, as long as they are the same.
func (l *loader) ownCopies(at string) {
	entries, err := fs.ReadDir(l.fsys, at)
	if err != nil {
		l.fault(at, 0, "", "%v", err)
		return
	}
	for _, e := range entries {
		ours, err := fs.ReadFile(avro.Files, path.Join(OwnFolder, e.Name()))
		text, readErr := l.readFile(path.Join(at, e.Name()))
		if err != nil || readErr != nil || string(text) != string(ours) {
			l.fault(path.Join(at, e.Name()), 0, "rename the folder; Foldstream brings its own schemas along", "the folder %s is reserved for Foldstream's own schemas, and this is none of them", OwnFolder)
		}
	}
}

// own adds Foldstream's envelopes, which every project registers.
func (l *loader) own() {
	entries, err := fs.ReadDir(avro.Files, OwnFolder)
	if err != nil {
		l.fault(OwnFolder, 0, "", "%v", err)
		return
	}
	for _, e := range entries {
		match := schemaName.FindStringSubmatch(e.Name())
		text, err := fs.ReadFile(avro.Files, path.Join(OwnFolder, e.Name()))
		if match == nil || err != nil {
			l.fault("foldstream:"+e.Name(), 0, "", "cannot be read: %v", err)
			continue
		}
		schema, err := codec.Parse(string(text))
		if err != nil {
			l.fault("foldstream:"+e.Name(), 0, "", "%v", err)
			continue
		}
		version, _ := strconv.Atoi(match[2])
		l.project.Schemas = append(l.project.Schemas, SchemaFile{
			Path: "foldstream:" + e.Name(), Type: OwnFolder + "." + match[1], Version: version,
			Kind: event.KindSystem, Text: string(text), Schema: schema,
		})
	}
}

// notYetRead refuses what this version would silently ignore.
func (l *loader) notYetRead() {
	const sagas = "sagas"
	if entries, err := fs.ReadDir(l.fsys, sagas); err == nil && len(entries) > 0 {
		l.fault(path.Join(sagas, entries[0].Name()), 0, "write it in Go (pkg/app's Program), or move the folder away", "this version does not read sagas from files")
	}
}

func category(typ string) string {
	name, _, _ := strings.Cut(typ, ".")
	return name
}

// lineOf returns the line where a piece of text first stands, or 0.
func lineOf(text []byte, piece string) int {
	before, _, found := strings.Cut(string(text), piece)
	if !found {
		return 0
	}
	return strings.Count(before, "\n") + 1
}

func lastName(at string) string { return at[strings.LastIndexAny(at, "./[]")+1:] }

func nearest(word string, known []string) string { return service.Nearest(word, known) }
