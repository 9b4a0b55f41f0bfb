// Package layering holds the order of the rooms: each package imports only rooms above it.
package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/foldstream/foldstream"

// floors lists the rooms in import order. Rooms on one floor never import each other; a package
// belongs to the room with the longest matching path. "" is the root package.
var floors = [][]string{
	{"", "schemas/avro", "deploy"},
	{"pkg/event"},
	{"pkg/topics"},
	{"pkg/codec"},
	{"pkg/deadletter"},
	{"pkg/decider", "pkg/projection", "pkg/saga"},
	{"pkg/snapshot"},
	{"pkg/client"},
	{"internal/service"},
	{"internal/engine/appender"}, // the topic registry writes under the claim protocol, too
	{"internal/registry", "internal/streams"},
	{"internal/engine"},
	{"internal/ingest", "internal/projector", "internal/sagas", "internal/query", "internal/replay", "internal/redrive", "internal/doctor"},
	{"internal/project"},
	{"internal/app"},
	{"pkg/app"},
	{"internal/domain"},
	{"internal/processlog", "internal/reference", "internal/importer"},
	{"internal/devstack"},
	{"internal/testkit"},
	{"internal/cli"},
	{"cmd", "test"},
}

// What only tests, and what only cmd/foldstream, may link.
const (
	testkitRoom  = "internal/testkit"
	devstackRoom = "internal/devstack"
	devstackUser = "cmd/foldstream"
)

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string

	TestImports, XTestImports []string
}

func TestEachPackageImportsOnlyRoomsAboveIt(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		from, known := roomOf(p.ImportPath)
		if !known {
			t.Errorf("package %s is in no room: give it a place in floors, and in the design", p.ImportPath)
			continue
		}
		for _, imported := range ours(p.Imports) {
			to, known := roomOf(imported)
			if known && !mayImport(from, to) {
				t.Errorf("%s imports %s: room %q may import only rooms above it, %q is not", p.ImportPath, imported, from, to)
			}
		}
	}
}

func TestPkgNeverImportsInternalButForTheDoor(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		name := short(p.ImportPath)
		if !strings.HasPrefix(name, "pkg/") || name == "pkg/app" {
			continue
		}
		for _, imported := range ours(p.Deps) {
			if strings.HasPrefix(short(imported), "internal/") {
				t.Errorf("%s depends on %s: pkg never imports internal", p.ImportPath, imported)
			}
		}
	}
}

func TestServicesLinkNeitherTheLocalStackNorTestHelpers(t *testing.T) {
	t.Parallel()
	commands := 0
	for _, p := range listPackages(t) {
		name := short(p.ImportPath)
		if !strings.HasPrefix(name, "cmd/") && name != "pkg/app" {
			continue
		}
		commands++
		for _, dep := range p.Deps {
			room, _ := roomOf(dep)
			switch {
			case room == testkitRoom || dep == "testing":
				t.Errorf("%s links %s, which is for tests", p.ImportPath, dep)
			case name != devstackUser && (room == devstackRoom || strings.HasSuffix(dep, "/pkg/kfake")):
				t.Errorf("%s links %s: only %s brings the local stack along", p.ImportPath, dep, devstackUser)
			}
		}
	}
	if commands < 2 {
		t.Errorf("looked at %d programs, want the commands and pkg/app", commands)
	}
}

func TestTheModuleOutsideImportsOnlyPkg(t *testing.T) {
	t.Parallel()
	for _, p := range list(t, 1, "example.com/shop/...") {
		for _, imported := range ours(append(append(p.Imports, p.TestImports...), p.XTestImports...)) {
			if !strings.HasPrefix(short(imported), "pkg/") {
				t.Errorf("%s imports %s: a module outside has pkg/ only", p.ImportPath, imported)
			}
		}
	}
}

func TestMayImport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"internal/ingest", "internal/engine", true},
		{"internal/engine", "internal/engine", true},
		{"internal/engine", "internal/ingest", false},
		{"internal/ingest", "internal/projector", false},
		{"pkg/decider", "pkg/projection", false},
		{"pkg/codec", "pkg/event", true},
		{"pkg/event", "pkg/codec", false},
	} {
		if got := mayImport(c.from, c.to); got != c.want {
			t.Errorf("mayImport(%q, %q): got %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

func mayImport(from, to string) bool {
	return from == to || floorOf(to) < floorOf(from)
}

func floorOf(room string) int {
	return slices.IndexFunc(floors, func(rooms []string) bool { return slices.Contains(rooms, room) })
}

// roomOf returns the room of a package of ours.
func roomOf(importPath string) (string, bool) {
	if importPath != module && !strings.HasPrefix(importPath, module+"/") {
		return "", false
	}
	name, best, found := short(importPath), "", false
	for _, rooms := range floors {
		for _, room := range rooms {
			inside := name == room || (room != "" && strings.HasPrefix(name, room+"/"))
			if inside && len(room) >= len(best) {
				best, found = room, true
			}
		}
	}
	return best, found
}

func short(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func ours(imports []string) []string {
	return slices.DeleteFunc(slices.Clone(imports), func(p string) bool {
		return p != module && !strings.HasPrefix(p, module+"/")
	})
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	const packagesMin = 10
	return list(t, packagesMin, module+"/...")
}

func list(t *testing.T, packagesMin int, pattern string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,Deps,TestImports,XTestImports", pattern)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	decoder := json.NewDecoder(&stdout)
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("read go list's output: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) < packagesMin {
		t.Fatalf("go list %s named %d packages, want at least %d", pattern, len(packages), packagesMin)
	}
	return packages
}
