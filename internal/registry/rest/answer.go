package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/pkg/codec"
)

// Error codes, as Confluent's clients know them.
const (
	codeSubjectNotFound = 40401
	codeVersionNotFound = 40402
	codeSchemaNotFound  = 40403
	codeIncompatible    = 409
	codeInvalidSchema   = 42201
	codeInvalidVersion  = 42202
	codeInvalidLevel    = 42203
	codeInvalidMode     = 42204
	codeNotPermitted    = 42205
	codeInvalidSubject  = 42208
	codeSchemaTooLarge  = 42209
)

// fault is an answer that is no success.
type fault struct {
	Status  int    `json:"-"`
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

func (f *fault) Error() string { return f.Message }

func faultf(status, code int, format string, args ...any) error {
	return &fault{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func unprocessable(code int, format string, args ...any) error {
	return faultf(http.StatusUnprocessableEntity, code, format, args...)
}

func notFound(code int, format string, args ...any) error {
	return faultf(http.StatusNotFound, code, format, args...)
}

// retryAfterSeconds is what a client waits that the registry could not answer.
const retryAfterSeconds = 1

// writeFault answers with an error. One that is no fault of the request is the registry's: its
// cause is for the log, the client is told to ask again.
func (s *server) writeFault(w http.ResponseWriter, r *http.Request, err error) {
	var known *fault
	switch {
	case errors.As(err, &known):
	case errors.Is(err, codec.ErrIncompatible):
		known = &fault{http.StatusConflict, codeIncompatible, err.Error()}
	case errors.Is(err, registry.ErrRefused):
		known = &fault{http.StatusUnprocessableEntity, codeInvalidSchema, err.Error()}
	default:
		s.log.Warn("schema registry could not answer", "method", r.Method, "error", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
		known = &fault{http.StatusServiceUnavailable, http.StatusServiceUnavailable, "the schema registry's store does not answer: try again"}
	}
	s.write(w, r, known.Status, &fault{known.Status, known.Code, shorten(known.Message, messageBytesMax)})
}

// messageBytesMax bounds a message: a schema may have thousands of faults.
const messageBytesMax = 4 << 10

// text is an answer that is JSON already: a schema.
type text string

func (s *server) write(w http.ResponseWriter, r *http.Request, status int, value any) {
	body, err := encode(value)
	if err != nil {
		s.log.Error("schema registry: an answer does not encode", "error", err)
		status, body = http.StatusServiceUnavailable, []byte(`{"error_code":503,"message":"the answer does not encode"}`)
	}
	header := w.Header()
	header.Set("Content-Type", mediaType(r.Header.Values("Accept")))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nothing to do
}

func encode(value any) ([]byte, error) {
	if raw, is := value.(text); is {
		return []byte(raw), nil
	}
	return json.Marshal(value)
}

// The media types of bodies, in both directions.
const (
	mediaV1      = "application/vnd.schemaregistry.v1+json"
	mediaDefault = "application/vnd.schemaregistry+json"
	mediaJSON    = "application/json"
)

// mediaType answers what was asked for, where it is one of ours; nobody is refused for it.
func mediaType(accept []string) string {
	asked := strings.ToLower(strings.Join(accept, ","))
	switch {
	case strings.Contains(asked, mediaV1):
		return mediaV1
	case strings.Contains(asked, mediaDefault):
		return mediaDefault
	case strings.Contains(asked, mediaJSON), strings.Contains(asked, "text/html"):
		return mediaJSON
	}
	return mediaV1
}

// clip shortens foreign text for a message.
func clip(foreign string) string { return shorten(foreign, 80) }

func shorten(long string, bytesMax int) string {
	if len(long) > bytesMax {
		return strings.ToValidUTF8(long[:bytesMax], "") + "…"
	}
	return long
}
