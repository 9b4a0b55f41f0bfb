package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/foldstream/foldstream/internal/service"
	"go.yaml.in/yaml/v3"
)

// Format is how a command prints its data (-o).
type Format string

// The formats.
const (
	FormatTable Format = "table" // for people; may change
	FormatJSON  Format = "json"
	FormatYAML  Format = "yaml"
)

var formats = []string{string(FormatTable), string(FormatJSON), string(FormatYAML)}

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Set implements pflag.Value.
func (f *Format) Set(text string) error {
	if !slices.Contains(formats, text) {
		return fmt.Errorf("want %s", strings.Join(formats, ", "))
	}
	*f = Format(text)
	return nil
}

// Type implements pflag.Value.
func (f *Format) Type() string { return strings.Join(formats, "|") }

// Table is the form of data for people: a heading and rows.
type Table struct {
	Columns []string
	Rows    [][]string
}

// Print writes a value as JSON or YAML, by its json tags, or the table for people.
func Print(w io.Writer, f Format, value any, table Table) error {
	switch f {
	case FormatJSON:
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	case FormatYAML:
		return printYAML(w, value)
	}
	return table.write(w)
}

// printYAML goes through JSON, so that both have the same names in the same order.
func printYAML(w io.Writer, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	toBlockStyle(&node)
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return encoder.Close()
}

func toBlockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = quoteIfNeeded(n.Value)
	}
	for _, child := range n.Content {
		toBlockStyle(child)
	}
}

// quoteIfNeeded keeps a text a text: 007 and true would come back as something else.
func quoteIfNeeded(text string) yaml.Style {
	var back yaml.Node
	if yaml.Unmarshal([]byte(text), &back) != nil || len(back.Content) != 1 || back.Content[0].Tag != "!!str" {
		return yaml.DoubleQuotedStyle
	}
	return 0
}

func (t Table) write(w io.Writer) error {
	var buffer bytes.Buffer
	tabs := tabwriter.NewWriter(&buffer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tabs, strings.ToUpper(strings.Join(t.Columns, "\t")))
	for _, row := range t.Rows {
		fmt.Fprintln(tabs, strings.Join(row, "\t"))
	}
	if err := tabs.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for line := range strings.Lines(buffer.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	}
	return nil
}

// confirmation is the word that commands which delete or overwrite need: without execute they
// only show what they would do.
type confirmation struct {
	execute, yes bool
	terminal     bool
	in           io.Reader
	out          io.Writer
}

// ask returns whether to act. On a terminal a person is asked, unless yes is given; elsewhere yes
// must be given.
func (c confirmation) ask(question string) (bool, error) {
	switch {
	case !c.execute:
		return false, nil
	case c.yes:
		return true, nil
	case !c.terminal:
		return false, service.Exitf(service.ExitUsage, "%s: there is no terminal to ask on; say --yes", question)
	}
	fmt.Fprintf(c.out, "%s [y/N] ", question)
	var answer string
	if _, err := fmt.Fscanln(c.in, &answer); err != nil {
		return false, nil //nolint:nilerr // an empty line is a no
	}
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes"), nil
}
