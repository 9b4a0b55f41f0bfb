package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
)

// bodyBytesMax bounds a request's body: a schema of the largest size, with every byte escaped.
const bodyBytesMax = 2*codec.SchemaBytesMax + 64<<10

// submitted is the body that a schema comes in, with what it means.
type submitted struct {
	Schema     string            `json:"schema"`
	SchemaType string            `json:"schemaType"`
	References []json.RawMessage `json:"references"`
	RuleSet    json.RawMessage   `json:"ruleSet"`
	Metadata   json.RawMessage   `json:"metadata"`
	ID         int64             `json:"id"`
	Version    int               `json:"version"`

	parsed *codec.Schema
}

// readSchema reads a body and parses the schema in it.
func readSchema(c *call) (*submitted, error) {
	var in submitted
	if err := readJSON(c, &in); err != nil {
		return nil, err
	}
	if t := in.SchemaType; t != "" && !strings.EqualFold(t, "AVRO") {
		return nil, unprocessable(codeInvalidSchema, "schemaType %q is not served: this registry holds Avro schemas only", clip(t))
	}
	if len(in.References) > 0 {
		return nil, unprocessable(codeInvalidSchema, "the schema has references, which this registry does not resolve: write the types out in the one schema that uses them")
	}
	if strings.TrimSpace(in.Schema) == "" {
		return nil, unprocessable(codeInvalidSchema, `the body has no "schema": send {"schema": "<the Avro schema as a string>"}`)
	}
	if len(in.Schema) > codec.SchemaBytesMax {
		return nil, unprocessable(codeSchemaTooLarge, "the schema has %d bytes, at most %d are allowed", len(in.Schema), codec.SchemaBytesMax)
	}
	parsed, err := codec.Parse(in.Schema)
	if err != nil {
		return nil, unprocessable(codeInvalidSchema, "%v", err)
	}
	if !parsed.IsRecord() {
		return nil, unprocessable(codeInvalidSchema, "the schema is no record: wrap it in one, only records are registered")
	}
	in.parsed = parsed
	return &in, nil
}

// readJSON reads a bounded body of one JSON object.
func readJSON(c *call, into any) error {
	if err := checkMediaType(c.request.Header.Get("Content-Type")); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.writer, c.request.Body, bodyBytesMax))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return faultf(http.StatusRequestEntityTooLarge, http.StatusRequestEntityTooLarge, "the body has more than %d bytes", bodyBytesMax)
	case err != nil:
		return faultf(http.StatusBadRequest, http.StatusBadRequest, "the body broke off")
	}
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		return faultf(http.StatusBadRequest, http.StatusBadRequest, "the body is no JSON object")
	}
	if err := json.Unmarshal(body, into); err != nil {
		return faultf(http.StatusBadRequest, http.StatusBadRequest, "the body does not parse: %s", clip(err.Error()))
	}
	return nil
}

func checkMediaType(header string) error {
	if header == "" {
		return nil
	}
	media, _, err := mime.ParseMediaType(header)
	if err == nil {
		switch media {
		case mediaV1, mediaDefault, mediaJSON, "application/octet-stream":
			return nil
		}
	}
	return faultf(http.StatusUnsupportedMediaType, http.StatusUnsupportedMediaType, "Content-Type %q: send %s or %s", clip(header), mediaV1, mediaJSON)
}

// given says whether a JSON value is there and is not empty.
func given(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "{}":
		return false
	}
	return true
}
