package httpapi

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/foldstream/foldstream/internal/service/web"
	"github.com/foldstream/foldstream/pkg/event"
)

// readParams reads parameters and gathers what is wrong with them.
type readParams struct {
	values url.Values
	faults []Fault
}

func (p *readParams) fault(name, format string, args ...any) {
	p.faults = append(p.faults, Fault{Location: "query." + name, Message: fmt.Sprintf(format, args...)})
}

// add takes the faults of another reader of parameters.
func (p *readParams) add(err error) {
	var other *Problem
	if errors.As(err, &other) {
		p.faults = append(p.faults, other.Errors...)
	}
}

func (p *readParams) err() error {
	if len(p.faults) == 0 {
		return nil
	}
	return faulty(codeParameter, p.faults...)
}

// integer reads a whole number from 1 on.
func (p *readParams) integer(name string, fallback, most int64) int64 {
	if !p.values.Has(name) {
		return fallback
	}
	text := p.values.Get(name)
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most || strings.HasPrefix(text, "+") {
		p.fault(name, "%q: want a whole number from 1 to %d", web.Clip(text), most)
		return fallback
	}
	return n
}

// choice reads one of some words; the first is the default.
func (p *readParams) choice(name string, words ...string) string {
	if !p.values.Has(name) {
		return words[0]
	}
	text := p.values.Get(name)
	if !slices.Contains(words, text) {
		p.fault(name, "%q: want %s", web.Clip(text), strings.Join(words, " or "))
		return words[0]
	}
	return text
}

// time reads a time as in RFC 3339; the zero time without one.
func (p *readParams) time(name string) time.Time {
	if !p.values.Has(name) {
		return time.Time{}
	}
	t, err := parseTime(p.values.Get(name))
	if err != nil {
		p.fault(name, "%s", err)
	}
	return t
}

func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 || t.IsZero() {
		return time.Time{}, fmt.Errorf("%q: want a time as in RFC 3339, such as 2026-03-01T12:00:00Z, of the years 1 to 9999", web.Clip(text))
	}
	return t.UTC(), nil
}

// textFault says what is wrong with a text that came in a path or a header, or "".
func textFault(text string, bytesMax int) string {
	switch {
	case text == "":
		return "is empty"
	case len(text) > bytesMax:
		return fmt.Sprintf("has %d bytes, at most %d are allowed", len(text), bytesMax)
	case !utf8.ValidString(text):
		return "is not UTF-8"
	case strings.ContainsFunc(text, unicode.IsControl):
		return "has control characters"
	}
	return ""
}

// For the document.

func readPathParams() []*huma.Param {
	return []*huma.Param{
		{Name: "category", In: "path", Required: true, Description: "A category of the project", Schema: &huma.Schema{Type: huma.TypeString}},
		{Name: "id", In: "path", Required: true, Description: "The aggregate's id, percent-encoded: 1 to 255 bytes of UTF-8 without control characters",
			Schema: &huma.Schema{Type: huma.TypeString, MinLength: count(1), MaxLength: count(event.StreamIDBytesMax)}},
	}
}

func queryParam(name, description string, schema *huma.Schema) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: schema}
}

func versionSchema() *huma.Schema {
	return &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: number(1), Maximum: number(versionMax)}
}

func durationSchema() *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|ms|s))+$`, Examples: []any{"5s"}}
}

func number(n float64) *float64 { return &n }

func count(n int) *int { return &n }
