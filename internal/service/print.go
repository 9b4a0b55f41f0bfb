package service

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Print writes the configuration as YAML, in the form of a configuration file, with secrets
// redacted (--print-config).
func (c Config) Print(w io.Writer) error {
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(printable(reflect.ValueOf(c))); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return encoder.Close()
}

// printable returns a struct as an ordered mapping of its koanf keys.
func printable(v reflect.Value) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for i := range v.NumField() {
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: v.Type().Field(i).Tag.Get("koanf")}
		node.Content = append(node.Content, key, printableValue(v.Field(i)))
	}
	return node
}

func printableValue(v reflect.Value) *yaml.Node {
	switch value := v.Interface().(type) {
	case time.Duration:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: value.String()}
	case Secret:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: redactSecret(value), Style: yaml.DoubleQuotedStyle}
	}
	if v.Kind() == reflect.Struct {
		return printable(v)
	}
	node := &yaml.Node{}
	if err := node.Encode(v.Interface()); err != nil {
		return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v.Interface())}
	}
	return node
}

// redactSecret keeps what a DSN says beside its password, which an operator needs to see.
func redactSecret(s Secret) string {
	if strings.Contains(s.Reveal(), "=") || strings.Contains(s.Reveal(), "://") {
		return RedactDSN(s.Reveal())
	}
	return s.String()
}
