package domain_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/internal/project"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
)

// The folders of schemas that ship with the repository, and how many files each has at least.
var schemaFolders = []struct {
	name  string
	files fs.FS
	least int
}{
	{"schemas/avro", avro.Files, 28},
	{"examples/invoice/schemas", os.DirFS("../../examples/invoice/schemas"), 4},
}

func TestSchemasAreDocumentedAndClean(t *testing.T) {
	t.Parallel()
	for _, folder := range schemaFolders {
		paths, err := fs.Glob(folder.files, "*/*.avsc")
		if err != nil || len(paths) < folder.least {
			t.Fatalf("%s: got %d schemas (%v), want at least %d", folder.name, len(paths), err, folder.least)
		}
		for _, path := range paths {
			if strings.HasPrefix(path, "foldstream/") {
				continue // the envelopes are Foldstream's own, not a domain's
			}
			t.Run(folder.name+"/"+path, func(t *testing.T) { checkSchema(t, folder.files, path) })
		}
	}
}

func checkSchema(t *testing.T, files fs.FS, path string) {
	t.Helper()
	text, err := fs.ReadFile(files, path)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := codec.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(strings.TrimSuffix(path, ".v1.avsc"), "/", ".", 1); schema.Name() != want {
		t.Errorf("got the name %s, want %s", schema.Name(), want)
	}
	for _, fault := range codec.Lint(schema) {
		t.Errorf("lint: %+v", fault)
	}
	if err := codec.SecondOpinion(schema); err != nil {
		t.Errorf("second opinion: %v", err)
	}
	switch event.Kind(schema.Prop("fs.kind")) {
	case event.KindCommand, event.KindEvent, event.KindState:
	default:
		t.Errorf("got fs.kind %q, want command, event or state", schema.Prop("fs.kind"))
	}
	var doc struct {
		Doc    string
		Fields []struct{ Name, Doc string }
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Doc == "" {
		t.Error("the record has no doc")
	}
	for _, field := range doc.Fields {
		if field.Doc == "" {
			t.Errorf("field %s has no doc", field.Name)
		}
	}
}

// The kind in a schema is what the deciders register the type as.
func TestSchemasHaveTheKindOfTheirTypes(t *testing.T) {
	t.Parallel()
	kinds := map[string]event.Kind{}
	for _, d := range deciders {
		kinds[d.Category+".State"] = event.KindState
		for _, typ := range d.Types {
			kinds[typ.Name] = typ.Kind
		}
	}
	for typ, want := range kinds {
		text, err := fs.ReadFile(avro.Files, fmt.Sprintf("%s.v1.avsc", strings.Replace(typ, ".", "/", 1)))
		if err != nil {
			t.Error(err)
			continue
		}
		schema, err := codec.Parse(string(text))
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		if got := event.Kind(schema.Prop("fs.kind")); got != want {
			t.Errorf("%s: got fs.kind %s, want %s", typ, got, want)
		}
	}
}

func TestTheExampleIsAProject(t *testing.T) {
	t.Parallel()
	p, err := project.LoadDir("../../examples/invoice")
	if err != nil {
		t.Fatal(err)
	}
	if p.Namespace != "acme" || len(p.Categories) != 2 {
		t.Errorf("got namespace %s with %d categories, want acme with 2", p.Namespace, len(p.Categories))
	}
	for typ, want := range map[string]event.Kind{
		"invoice.Issued": event.KindEvent, "invoice.Paid": event.KindEvent, "mailer.Send": event.KindCommand, "mailer.Cancel": event.KindCommand,
	} {
		if s, ok := p.Schema(typ, 1); !ok || s.Kind != want {
			t.Errorf("%s: got kind %q, there %v, want %s", typ, s.Kind, ok, want)
		}
	}
}
