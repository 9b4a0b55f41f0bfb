package codec

import (
	"fmt"
	"strings"
)

// Limits on what the JSON methods read and write, beside the Limits of the codec.
const (
	// JSONFaultsMax is the most faults that one JSONError lists. The text is read no further.
	JSONFaultsMax = 20
	// jsonGrowthMax bounds a JSON text, in both directions, to so many times Limits.BytesMax.
	// Names of fields repeat in JSON; a body of honest records grows three to six times.
	jsonGrowthMax = 16
)

// JSONFault is one thing wrong with a JSON text.
type JSONFault struct {
	// Path leads to the value from the root, such as lines[2].price or tags["a b"]; "" is the
	// root itself.
	Path string
	// Message says what is wrong and what was wanted. It quotes no value of the text.
	Message string
}

// String returns "path: message".
func (f JSONFault) String() string {
	if f.Path == "" {
		return f.Message
	}
	return f.Path + ": " + f.Message
}

// JSONError lists what is wrong with a JSON text, in the order in which it was found, at most
// JSONFaultsMax. It wraps ErrBadData.
type JSONError struct{ Faults []JSONFault }

func (e *JSONError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = f.String()
	}
	return fmt.Sprintf("%s: %s", ErrBadData, strings.Join(texts, "; "))
}

func (e *JSONError) Unwrap() error { return ErrBadData }

// AppendJSON appends the payload's body as plain JSON by the schema that wrote it
// (docs/http-api.md, "Data as JSON"), without white space, fields in the schema's order.
// EncodeJSON of that text by the same schema gives the body again, where arrays and maps were
// written as one block and maps in the order of their keys.
//
// Floats and doubles are written in the fewest digits that read back as the same value, longs as
// numbers whatever their size, times without trailing zeros. It fails on a float or double that
// is not finite, for which JSON has no number, and on a text of more than 16 times
// Limits.BytesMax. On an error dst is returned as it was; the error is an *Error and wraps
// ErrBadData.
func (c *Codec) AppendJSON(dst []byte, p Payload) ([]byte, error) {
	if err := p.made(); err != nil {
		return dst, err
	}
	a := jsonAppender{
		walker: walker{body: p.Body},
		max:    len(dst) + jsonGrowthMax*c.config.Limits.BytesMax,
	}
	out := a.value(p.Registered.Schema.jsonPlan().root, dst, c.config.Limits.DepthMax)
	if a.fault == nil && a.pos != len(p.Body) {
		a.fail("bytes follow the value")
	}
	if a.fault != nil {
		return dst, &Error{Op: OpDecode, Type: p.Registered.Type, SchemaID: p.Registered.ID, Err: a.fault.asJSON()}
	}
	return out, nil
}

// EncodeJSON appends the Avro body, without framing, of a JSON text by a registered schema. What
// it appends has passed the guard, and equal values have equal bytes: the entries of maps are in
// the order of their keys. Absent fields take their default.
//
// A fault of the text is a *JSONError, and dst is returned as it was. It refuses unknown fields
// (aliases too: they are for readers of old data), names that come twice, values of a wrong type
// or out of range, text that is not UTF-8, what is beyond the codec's Limits, and a text of more
// than 16 times Limits.BytesMax. The text is read once, and the guard reads the result once. At
// each level where names came out of order, a map's keys are sorted and what is below is moved: the
// work is bounded by the text's size times its depth, and that of sorting, whatever is in the text.
func (c *Codec) EncodeJSON(dst []byte, reg *Registered, text []byte) ([]byte, error) {
	if reg == nil {
		return dst, &Error{Op: OpEncode, Err: fmt.Errorf("%w: no schema is given", ErrBinding)}
	}
	plan := reg.Schema.jsonPlan()
	e := plan.borrow()
	defer plan.giveBack(e)
	e.begin(dst, text, c.config.Limits)
	if e.document(plan.root) {
		e.recheck(reg.Schema)
	}
	if len(e.faults) > 0 {
		return dst, &JSONError{Faults: e.faults}
	}
	return e.out, nil
}

// asJSON is the error of a body that has no JSON.
func (e *hostileError) asJSON() error {
	if e.path == "" {
		return fmt.Errorf("%w at byte %d: %s", ErrBadData, e.at, e.reason)
	}
	return fmt.Errorf("%w at byte %d, field %s: %s", ErrBadData, e.at, e.path, e.reason)
}
