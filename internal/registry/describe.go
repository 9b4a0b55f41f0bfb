package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// Properties of a schema that Foldstream reads.
const (
	PropKind = "fs.kind" // command, event, state or system
	PropType = "fs.type" // the ce_type, where the full name is another
)

// Describe says which type a schema is of and of which kind: the properties fs.type and fs.kind,
// else the full name and defaultKind.
func Describe(schema *codec.Schema, defaultKind event.Kind) (typ string, kind event.Kind) {
	typ, kind = schema.Prop(PropType), event.Kind(schema.Prop(PropKind))
	if typ == "" {
		typ = schema.Name()
	}
	if kind == "" {
		kind = defaultKind
	}
	return typ, kind
}

var typePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}\.[A-Za-z][A-Za-z0-9_]{0,150}$`)

// checkType refuses what is no <category>.<Name>, and names the remedy for subjects that a
// client's default naming strategy makes out of topics.
func checkType(typ string) error {
	if topicSubject(typ) {
		return fmt.Errorf("subject %q is named after a topic: Foldstream's subjects are record names; "+
			"set the serializer's subject name strategy to RecordNameStrategy and register the schema under its record's name", clip(typ))
	}
	if !typePattern.MatchString(typ) {
		return fmt.Errorf("type %q: want <category>.<Name>, such as order.Placed; name the record so, or set the schema's property %s", clip(typ), PropType)
	}
	return nil
}

// CheckSubject refuses a subject that is named after a topic, and says what to do instead.
func CheckSubject(subject string) error {
	if topicSubject(subject) {
		return checkType(subject)
	}
	return nil
}

func topicSubject(subject string) bool {
	return strings.HasSuffix(subject, "-value") || strings.HasSuffix(subject, "-key")
}

func checkKind(kind event.Kind) error {
	switch kind {
	case event.KindCommand, event.KindEvent, event.KindState, event.KindSystem:
		return nil
	case "":
		return fmt.Errorf("the kind is not known: set the schema's property %s to command, event or state", PropKind)
	}
	return fmt.Errorf("kind %q: want command, event, state or system; set the schema's property %s", clip(string(kind)), PropKind)
}

// normal is a schema's text in a form in which two texts that mean the same are equal: no
// white space, keys sorted, doc texts left out. Unlike the parsing canonical form it keeps
// defaults, aliases and properties. A text that is no JSON is its own normal form.
func normal(text string) string {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return text
	}
	if _, err := decoder.Token(); err != io.EOF {
		return text
	}
	out, err := json.Marshal(withoutDocs(tree))
	if err != nil {
		return text
	}
	return string(out)
}

// SameSchema says whether two schemas are one and the same to a registry: they differ in white
// space, in the order of keys, and in doc texts at most.
func SameSchema(a, b *codec.Schema) bool { return normal(a.Text()) == normal(b.Text()) }

// SameBytes says whether what is written with one schema is written with the other, too: names,
// types, logical types and the order of fields are equal. Defaults, aliases, doc texts and
// properties, which only readers look at, may differ.
func SameBytes(a, b *codec.Schema) bool {
	return a.Canonical() == b.Canonical() && len(codec.CheckCompatible(a, b)) == 0
}

// withoutDocs drops "doc" wherever it is a doc text; below "default" it is data.
func withoutDocs(tree any) any {
	switch v := tree.(type) {
	case map[string]any:
		delete(v, "doc")
		for key, value := range v {
			if key != "default" {
				v[key] = withoutDocs(value)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutDocs(v[i])
		}
	}
	return tree
}

// withKind writes the kind into a text that does not say it, for registries that keep nothing
// but the text.
func withKind(text string, schema *codec.Schema, kind event.Kind) (string, error) {
	if schema.Prop(PropKind) != "" {
		return text, nil
	}
	open := strings.IndexByte(text, '{')
	if open < 0 {
		return "", fmt.Errorf("the schema is no JSON object, so its kind cannot be written into it")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `%s"%s": %q, %s`, text[:open+1], PropKind, string(kind), text[open+1:])
	return b.String(), nil
}

// clip shortens foreign text for an error message.
func clip(text string) string {
	const clipBytes = 64
	if len(text) > clipBytes {
		return text[:clipBytes] + "…"
	}
	return text
}
