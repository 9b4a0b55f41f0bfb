package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

func TestTheCommittedDocumentIsTheOneServed(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, documentPath, http.NoBody))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("got %d %s, want the document", w.Code, w.Header().Get("Content-Type"))
	}
	path := filepath.Join("..", "..", "..", "docs", "openapi.json")
	if *update {
		if err := os.WriteFile(path, w.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, w.Body.Bytes()) {
		t.Error("docs/openapi.json differs from what is served: go test ./internal/ingest/httpapi -run TheCommittedDocument -update")
	}
}

func TestEveryOperationIsDocumentedWhole(t *testing.T) {
	t.Parallel()
	api := lone(t, accepting)
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string                      `json:"operationId"`
			Summary     string                      `json:"summary"`
			Parameters  []struct{ Name, In string } `json:"parameters"`
			Responses   map[string]json.RawMessage  `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(api.served, &doc); err != nil {
		t.Fatal(err)
	}
	operations := 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			operations++
			for _, status := range []string{"200", "400", "401", "429", "503"} {
				if _, has := op.Responses[status]; !has {
					t.Errorf("%s %s has no response %s", method, path, status)
				}
			}
			if op.OperationID == "" || op.Summary == "" {
				t.Errorf("%s %s has no id or no summary", method, path)
			}
			named := map[string]bool{}
			for _, p := range op.Parameters {
				if named[p.In+p.Name] {
					t.Errorf("%s %s has parameter %s twice", method, path, p.Name)
				}
				named[p.In+p.Name] = true
			}
			for _, segment := range strings.Split(path, "/") {
				if name, is := strings.CutPrefix(segment, "{"); is && !named["path"+strings.TrimSuffix(name, "}")] {
					t.Errorf("%s %s does not document %s", method, path, segment)
				}
			}
		}
	}
	routes := 0
	for _, methods := range api.paths {
		routes += len(methods)
	}
	if doc.OpenAPI != "3.1.0" || operations != routes || routes < 7 {
		t.Errorf("got OpenAPI %s with %d operations, %d are served", doc.OpenAPI, operations, routes)
	}
}
