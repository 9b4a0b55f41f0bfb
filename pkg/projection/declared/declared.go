// Package declared reads views that are written as data: YAML files whose expressions are CEL.
//
//	view: invoice_list
//	version: 1
//	key: stream.id
//	columns: {total: bigint, status: text}
//	on:
//	  invoice.Issued: {set: {total: event.total, status: "'open'"}}
//	  invoice.Paid:   {set: {status: "'paid'"}}
//
// A file is checked whole against the project's schemas: every fault is reported, with file, line,
// column and what to write instead. What comes out is a projection.View like any other, so that
// the projector, a rebuild and a test run it unchanged. docs/views.md has the language.
//
// # How it is fast
//
// The payload is decoded into a Go struct that is made of the schema at the start (reflect.StructOf),
// by the same path as a team's own struct. Constants, paths, comparisons, logic, sums, and maps and
// lists of those become Go functions; the rest runs in CEL's interpreter, under a cost limit.
//
// # Concurrency
//
// Types and the views made here may be used from any goroutine.
package declared

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Dir is the folder of the views in a project.
const Dir = "views"

const (
	fileSuffix = ".yaml"
	testSuffix = ".test.yaml"
	filesMax   = 1_000
)

// Type is one version of an event type.
type Type struct {
	Name    string // <category>.<Name>
	Version int
	Kind    event.Kind // "" where it is not known yet
	Schema  *codec.Schema
}

// Types are what views may fold: the types of a project with all their versions.
type Types struct {
	byName map[string][]Type // by version

	mu     sync.Mutex
	shapes map[string]*shape
}

// NewTypes makes the catalogue of types, in any order.
func NewTypes(all ...Type) *Types {
	t := &Types{byName: map[string][]Type{}, shapes: map[string]*shape{}}
	for _, one := range all {
		t.byName[one.Name] = append(t.byName[one.Name], one)
	}
	for _, versions := range t.byName {
		slices.SortFunc(versions, func(a, b Type) int { return a.Version - b.Version })
	}
	return t
}

// find returns a version of a type; 0: the latest.
func (t *Types) find(name string, version int) (Type, bool) {
	versions := t.byName[name]
	if version == 0 && len(versions) > 0 {
		return versions[len(versions)-1], true
	}
	for _, one := range versions {
		if one.Version == version {
			return one, true
		}
	}
	return Type{}, false
}

func (t *Types) known(name string) bool { return len(t.byName[name]) > 0 }

func (t *Types) latest(name string) int {
	last, _ := t.find(name, 0)
	return last.Version
}

// events lists the names of the types that a view can fold.
func (t *Types) events() []string {
	var names []string
	for name, versions := range t.byName {
		if kind := versions[0].Kind; kind == "" || kind == event.KindEvent {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ofName finds an event type by its name without the category.
func (t *Types) ofName(name string) string {
	for _, full := range t.events() {
		if _, short, _ := strings.Cut(full, "."); strings.EqualFold(short, name) {
			return full
		}
	}
	return ""
}

// Categories lists the categories that have types, sorted.
func (t *Types) Categories() []string {
	var out []string
	for name := range t.byName {
		category, _, _ := strings.Cut(name, ".")
		out = append(out, category)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (t *Types) shapeOf(one Type) (*shape, error) {
	id := one.Name + "@" + strconv.Itoa(one.Version)
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.shapes[id]; s != nil {
		return s, nil
	}
	s, err := structOf(one.Name, one.Schema.Text())
	if err != nil {
		return nil, fmt.Errorf("%s version %d: %w", one.Name, one.Version, err)
	}
	t.shapes[id] = s
	return s, nil
}

// Compile reads and checks one view. file stands in errors, which join one *Fault for each thing
// that is wrong.
func Compile(file string, text []byte, types *Types) (projection.View, error) {
	f := &faults{file: file}
	r := &reader{faults: f}
	root, ok := r.root(text)
	if !ok {
		return projection.View{}, f.err()
	}
	def := r.definition(root)
	if len(f.all) > 0 {
		return projection.View{}, f.err()
	}
	c := &compiler{faults: f, types: types, def: def}
	view := c.view()
	return view, f.err()
}

var viewFile = regexp.MustCompile(`^([a-z][a-z0-9_]{0,30})\.v([1-9][0-9]{0,4})\.yaml$`)

// Load reads every <view>.v<version>.yaml of a folder, in the order of their names; a folder that
// is not there has none. label stands before file names in errors, which join one *Fault for each
// thing that is wrong in any file. Several versions of one view may stand beside each other.
func Load(fsys fs.FS, dir, label string, types *Types) ([]projection.View, error) {
	names, err := files(fsys, dir)
	if err != nil {
		return nil, err
	}
	var views []projection.View
	var wrong []error
	for _, name := range names {
		if strings.HasSuffix(name, testSuffix) {
			if !slices.Contains(names, strings.TrimSuffix(name, testSuffix)+fileSuffix) {
				wrong = append(wrong, &Fault{File: path.Join(label, dir, name), Problem: "there is no view beside this test", Remedy: "name it <view>.v<version>" + testSuffix})
			}
			continue
		}
		view, err := loadFile(fsys, dir, label, name, types)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		views = append(views, view)
	}
	return views, errors.Join(wrong...)
}

func files(fsys fs.FS, dir string) ([]string, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the folder of the views: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && (strings.HasSuffix(e.Name(), fileSuffix) || strings.HasSuffix(e.Name(), ".yml")) {
			names = append(names, e.Name())
		}
	}
	if len(names) > filesMax {
		return nil, fmt.Errorf("%s has %d views, at most %d are allowed", dir, len(names), filesMax)
	}
	return names, nil
}

func loadFile(fsys fs.FS, dir, label, name string, types *Types) (projection.View, error) {
	file := path.Join(label, dir, name)
	match := viewFile.FindStringSubmatch(name)
	if match == nil {
		return projection.View{}, &Fault{File: file, Problem: "the file's name does not say view and version", Remedy: "name it <view>.v<version>.yaml, such as invoice_list.v1.yaml"}
	}
	text, err := readFile(fsys, path.Join(dir, name))
	if err != nil {
		return projection.View{}, &Fault{File: file, Problem: err.Error()}
	}
	view, err := Compile(file, text, types)
	if err != nil {
		return view, err
	}
	if version, _ := strconv.Atoi(match[2]); view.Name != match[1] || view.Version != version {
		return view, &Fault{
			File: file, Line: 1, Problem: fmt.Sprintf("it declares version %d of %s", view.Version, view.Name),
			Remedy: fmt.Sprintf("name the file %s.v%d.yaml, or correct view and version", view.Name, view.Version),
		}
	}
	return view, nil
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, FileBytesMax+1))
}
