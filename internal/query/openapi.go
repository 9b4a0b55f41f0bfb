package query

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service/web"
)

// newDocument is the document without operations.
func newDocument(version string) *huma.OpenAPI {
	return &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Foldstream queries", Version: version,
			Description: "Read the views, wait for what was just written, follow a correlation. Errors are problem documents (RFC 9457).",
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
	for _, status := range []int{http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		if _, there := op.Responses[strconv.Itoa(status)]; !there {
			op.Responses[strconv.Itoa(status)] = a.problemResponse(http.StatusText(status))
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
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{contentTypeJSON: {Schema: a.schemaOf(t)}}}
}

// schemaOf is the schema of a Go type, by reference where it is a struct.
func (a *API) schemaOf(t reflect.Type) *huma.Schema {
	return a.openapi.Components.Schemas.Schema(t, true, t.Name())
}

// refTo adds a named schema that is not made of a Go type.
func (a *API) refTo(name string, schema *huma.Schema) *huma.Schema {
	a.openapi.Components.Schemas.Map()[name] = schema
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

// schemaOfColumn is how a column's values look in answers.
func (a *API) schemaOfColumn(c *column, held reflect.Type) *huma.Schema {
	s := &huma.Schema{Nullable: c.nullable}
	switch c.kind {
	case kindInteger:
		s.Type, s.Format = huma.TypeInteger, "int64"
	case kindFloat:
		s.Type, s.Format = huma.TypeNumber, "double"
	case kindBool:
		s.Type = huma.TypeBoolean
	case kindTime:
		s.Type, s.Format = huma.TypeString, "date-time"
	case kindTexts:
		s.Type, s.Items = huma.TypeArray, &huma.Schema{Type: huma.TypeString}
	case kindJSON:
		if held != nil {
			return a.schemaOf(held)
		}
		return &huma.Schema{Description: "Any JSON"}
	default:
		s.Type = huma.TypeString
	}
	return s
}

// serveDocument closes the document and serves it; then the paths that nothing serves.
func (a *API) serveDocument() error {
	text, err := json.MarshalIndent(a.openapi, "", "  ")
	if err != nil {
		return fmt.Errorf("query: write the OpenAPI document: %w", err)
	}
	a.served = slices.Concat(text, []byte{'\n'})
	a.mux.HandleFunc("GET "+a.cfg.DocumentPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentTypeJSON)
		w.Header().Set("Content-Length", strconv.Itoa(len(a.served)))
		_, _ = w.Write(a.served)
	})
	a.mux.HandleFunc("/", a.notFound)
	return nil
}

func appendJSON(dst []byte, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return dst, fmt.Errorf("write the answer: %w", err)
	}
	return append(dst, text...), nil
}
