package query

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
)

// cursorPart is one value of the row at which a page ended, in the order of the sort's terms.
type cursorPart struct {
	null  bool
	value any // a parameter
}

// checksumBytes bind a cursor to its list. They are against mistakes: a cursor that is made up can
// do no more than a filter.
const checksumBytes = 8

// checksum is over all that makes pages of one list fit together.
func (s *selection) checksum() []byte {
	h := sha256.New()
	part := func(texts ...string) {
		for _, text := range texts {
			fmt.Fprintf(h, "%d:%s,", len(text), text)
		}
	}
	part("v1", s.view.id(), s.search)
	for _, t := range s.sort {
		part("sort", t.column.name, fmt.Sprint(t.descend))
	}
	for i := range s.filters {
		part("filter", s.filters[i].name(), s.filters[i].text)
	}
	return h.Sum(nil)[:checksumBytes]
}

// cursor is the text for a row: checksum, then the values as JSON, in base64.
func (s *selection) cursor(values []*string) (string, error) {
	text, err := json.Marshal(values)
	if err != nil {
		return "", fmt.Errorf("write the cursor: %w", err)
	}
	out := base64.RawURLEncoding.EncodeToString(append(s.checksum(), text...))
	if len(out) > cursorBytesMax {
		return "", problem(http.StatusUnprocessableEntity, codeCursor, "the values sorted by are too long for a cursor: sort by other columns")
	}
	return out, nil
}

// parseCursor reads a cursor of this very list.
func (s *selection) parseCursor(text string) ([]cursorPart, error) {
	wrong := func(reason string) error {
		return faulty(codeCursor, Fault{Location: "query." + paramCursor, Message: reason + ": begin again without a cursor"})
	}
	if len(text) > cursorBytesMax {
		return nil, wrong("is too long")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < checksumBytes {
		return nil, wrong("is none of ours")
	}
	if string(raw[:checksumBytes]) != string(s.checksum()) {
		return nil, wrong("is of another view, version, sort or filter")
	}
	var values []*string
	if err := json.Unmarshal(raw[checksumBytes:], &values); err != nil || len(values) != len(s.sort) {
		return nil, wrong("is none of ours")
	}
	parts := make([]cursorPart, len(values))
	for i, value := range values {
		if value == nil {
			parts[i].null = true
			continue
		}
		if parts[i].value, err = s.sort[i].column.cursorValue(*value); err != nil {
			return nil, wrong("is none of ours")
		}
	}
	return parts, nil
}
