// Package rule holds the checks on single values that the reference project's deciders share.
//
// Each check returns nil or what is broken. They are pure, and look at nothing but their
// arguments. Messages quote at most the beginning of a value.
package rule

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/foldstream/foldstream/pkg/decider"
)

// Codes of rejections that several deciders share. Each is stable: programs branch on it.
const (
	CodeExists   = "exists"    // the stream is there already
	CodeNotFound = "not-found" // the stream, or what the command names in it, is not there
	CodeValue    = "value"     // a field has no usable value: empty, no UTF-8, unknown, negative
	CodeLimit    = "limit"     // a field or the aggregate would grow beyond its limit
)

// Limits on maps of settings, inputs and attributes, and on free text. Bytes are of UTF-8.
const (
	MapEntriesMax    = 50
	MapKeyBytesMax   = 128
	MapValueBytesMax = 4096
	ReasonBytesMax   = 1024
)

// Broken is a rule that a command breaks.
type Broken struct {
	Code    string
	Message string
}

// Reject turns it into the decision.
func (b *Broken) Reject() (decider.Decision, error) { return decider.Reject(b.Code, b.Message) }

func broken(code, format string, args ...any) *Broken {
	return &Broken{Code: code, Message: fmt.Sprintf(format, args...)}
}

// First returns the first of the results that is not nil.
func First(results ...*Broken) *Broken {
	for _, b := range results {
		if b != nil {
			return b
		}
	}
	return nil
}

// Name checks a text that must be there: 1 to bytesMax bytes of UTF-8.
func Name(field, value string, bytesMax int) *Broken {
	if value == "" {
		return broken(CodeValue, "%s is empty", field)
	}
	return Text(field, value, bytesMax)
}

// Text checks a text that may be empty: at most bytesMax bytes of UTF-8.
func Text(field, value string, bytesMax int) *Broken {
	switch {
	case len(value) > bytesMax:
		return broken(CodeLimit, "%s has %d bytes, at most %d are allowed", field, len(value), bytesMax)
	case !utf8.ValidString(value):
		return broken(CodeValue, "%s is not UTF-8: %.40q", field, value)
	}
	return nil
}

// Set checks a list of names, of which each may stand once.
func Set(field string, values []string, entriesMax, bytesMax int) *Broken {
	if len(values) > entriesMax {
		return broken(CodeLimit, "%s has %d entries, at most %d are allowed", field, len(values), entriesMax)
	}
	for i, value := range values {
		if b := Name(fmt.Sprintf("%s[%d]", field, i), value, bytesMax); b != nil {
			return b
		}
		if slices.Contains(values[:i], value) {
			return broken(CodeValue, "%s has %.40q twice", field, value)
		}
	}
	return nil
}

// Map checks a map of texts against the limits above. Of several faults it names the one of the
// least key, so that the same command always has the same answer.
func Map(field string, m map[string]string) *Broken {
	if len(m) > MapEntriesMax {
		return broken(CodeLimit, "%s has %d entries, at most %d are allowed", field, len(m), MapEntriesMax)
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if b := Name(field+" key", key, MapKeyBytesMax); b != nil {
			return b
		}
		if b := Text(fmt.Sprintf("%s[%.40q]", field, key), m[key], MapValueBytesMax); b != nil {
			return b
		}
	}
	return nil
}
