package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service/web"
)

// documentPath is where the OpenAPI document is served, without a token.
const documentPath = "/openapi.json"

// apiVersion is that of what is documented, not of the program.
const apiVersion = "1"

// newDocument is the document without operations.
func newDocument() *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Foldstream", Version: apiVersion,
			Description: "Append events, send commands, read and follow streams. Errors are problem documents (RFC 9457).",
		},
		Components: &huma.Components{
			Schemas:         huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "Where http.token_file is configured"}},
		},
		// Either is enough: whether a token is needed is a setting.
		Security: []map[string][]string{{}, {"token": {}}},
	}
}

// document adds an operation. Responses are completed with those that every route may give.
func (a *API) document(op *huma.Operation) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	for status, description := range map[int]string{
		http.StatusUnauthorized:       "A token is needed, where one is configured; code unauthorized",
		http.StatusTooManyRequests:    "As many requests are worked on as may be; code overloaded, with Retry-After",
		http.StatusServiceUnavailable: "Something that this needs is away; code unavailable, with Retry-After",
	} {
		if _, there := op.Responses[strconv.Itoa(status)]; !there {
			op.Responses[strconv.Itoa(status)] = a.problemResponse(description)
		}
	}
	a.openapi.AddOperation(op)
}

// problemResponse documents a problem.
func (a *API) problemResponse(description string) *huma.Response {
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{web.ContentTypeProblem: {Schema: a.schemaOf(reflect.TypeFor[Problem]())}}}
}

// jsonResponse documents an answer of a Go type with json tags.
func (a *API) jsonResponse(description string, t reflect.Type) *huma.Response {
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{"application/json": {Schema: a.schemaOf(t)}}}
}

// schemaOf is the schema of a Go type, by reference where it is a struct.
func (a *API) schemaOf(t reflect.Type) *huma.Schema {
	return a.openapi.Components.Schemas.Schema(t, true, t.Name())
}

// serveDocument closes the document and serves it; then the paths that nothing serves.
func (a *API) serveDocument() error {
	text, err := json.MarshalIndent(a.openapi, "", "  ")
	if err != nil {
		return fmt.Errorf("httpapi: write the OpenAPI document: %w", err)
	}
	text = append(text, '\n')
	a.served = text
	a.mux.HandleFunc("GET "+documentPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(a.served)))
		_, _ = w.Write(a.served)
	})
	a.mux.HandleFunc("/", a.notFound)
	return nil
}
