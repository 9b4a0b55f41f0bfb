package codec

import (
	"fmt"
	"strings"
)

// JSONFault is one thing wrong with a JSON text.
type JSONFault struct {
	// Path leads to the value from the root, such as lines[2].price or tags["a b"]; "" is the root.
	Path    string
	Message string
}

// String returns "path: message".
func (f JSONFault) String() string {
	if f.Path == "" {
		return f.Message
	}
	return f.Path + ": " + f.Message
}

// JSONError lists what is wrong with a JSON text, in the order of the text. It wraps ErrBadData.
type JSONError struct{ Faults []JSONFault }

func (e *JSONError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = f.String()
	}
	return fmt.Sprintf("%s: %s", ErrBadData, strings.Join(texts, "; "))
}

func (e *JSONError) Unwrap() error { return ErrBadData }

// AppendJSON appends the payload's body as plain JSON (docs/http-api.md, "Data as JSON").
func (c *Codec) AppendJSON(dst []byte, p Payload) ([]byte, error) {
	return dst, p.made()
}

// EncodeJSON appends the Avro body (no framing) of a JSON text by a registered schema. A fault
// of the data is a *JSONError.
func (c *Codec) EncodeJSON(dst []byte, reg *Registered, text []byte) ([]byte, error) {
	return dst, &JSONError{Faults: []JSONFault{{Message: fmt.Sprintf("%d bytes for %s", len(text), reg.Type)}}}
}
