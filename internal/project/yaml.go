package project

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/snapshot"
	"github.com/foldstream/foldstream/pkg/topics"
	"go.yaml.in/yaml/v3"
)

// The rules for new schema versions that a project may choose from.
const (
	CompatibilityBackward           = "BACKWARD"
	CompatibilityBackwardTransitive = "BACKWARD_TRANSITIVE"
	CompatibilityNone               = "NONE" // not even old events need be readable
	CompatibilityDefault            = CompatibilityBackwardTransitive
)

var compatibilities = []string{CompatibilityBackwardTransitive, CompatibilityBackward, CompatibilityNone}

// Defaults and limits of a category's settings.
const (
	DedupeIDsDefault = 128
	DedupeAgeDefault = time.Hour

	dedupeIDsMax = 100_000
	dedupeAgeMax = 24 * time.Hour

	snapshotEventsMax = 1_000_000
	snapshotTimeMax   = 24 * time.Hour
	historyAgeMax     = 100 * 365 * 24 * time.Hour

	replicationMax = 100
	fileBytesMax   = 1 << 20
	categoriesMax  = 1000
)

// loader reads a project and gathers what is wrong.
type loader struct {
	fsys    fs.FS
	label   string
	project *Project
	faults  []*Fault
}

// setting reads one key of a mapping.
type setting struct {
	name string
	read func(value *yaml.Node)
}

// yaml reads foldstream.yaml; false means that there is nothing to go on with.
func (l *loader) yaml() bool {
	text, err := l.readFile(File)
	if errors.Is(err, fs.ErrNotExist) {
		l.fault(File, 0, "name the project's folder by --project, or write the file (namespace, categories)", "there is no such file")
		return false
	}
	if err != nil {
		l.fault(File, 0, "", "%v", err)
		return false
	}
	root, ok := l.document(text)
	if !ok {
		return false
	}
	p := l.project
	l.mapping(root, "the project", []setting{
		{"namespace", func(v *yaml.Node) { l.namespace(v) }},
		{"schemas", func(v *yaml.Node) { l.schemasDir(v) }},
		{"categories", func(v *yaml.Node) { l.categories(v) }},
		{"partitions", func(v *yaml.Node) {
			p.PartitionsDefault = int32(l.integer(v, "partitions", int(topics.PartitionsMax)))
		}},
		{"replication_factor", func(v *yaml.Node) {
			p.ReplicationFactor = int16(l.integer(v, "replication_factor", replicationMax))
		}},
		{"min_insync_replicas", func(v *yaml.Node) { p.MinInsyncReplicas = l.integer(v, "min_insync_replicas", replicationMax) }},
		{"registry", func(v *yaml.Node) { l.registry(v) }},
	})
	if p.Namespace == "" && len(l.faults) == 0 {
		l.fault(File, root.Line, "add a line such as `namespace: acme`; it is the prefix of every topic and Postgres schema", "namespace is missing")
	}
	if p.ReplicationFactor > 0 && p.MinInsyncReplicas > int(p.ReplicationFactor) {
		l.fault(File, root.Line, "lower it, or raise replication_factor", "min_insync_replicas %d is above replication_factor %d: nothing could be written", p.MinInsyncReplicas, p.ReplicationFactor)
	}
	return true
}

func (l *loader) readFile(name string) ([]byte, error) {
	f, err := l.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err == nil && len(text) > fileBytesMax {
		return nil, fmt.Errorf("is larger than %d bytes", fileBytesMax)
	}
	return text, err
}

// document returns the root of a YAML file that holds exactly one mapping.
func (l *loader) document(text []byte) (*yaml.Node, bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			l.fault(File, 1, "write at least `namespace: acme` and `categories:`", "the file is empty")
			return nil, false
		}
		line, problem := yamlError(err)
		l.fault(File, line, "", "%s", problem)
		return nil, false
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		l.fault(File, max(second.Line, 1), "keep one document; views and sagas have files of their own", "the file holds more than one YAML document")
	}
	root := deref(doc.Content[0])
	if root.Kind != yaml.MappingNode {
		l.fault(File, root.Line, "write `key: value` lines", "want a mapping, got %s", kindOf(root))
		return nil, false
	}
	return root, true
}

// yamlError takes the line out of the YAML parser's "yaml: line 3: …".
func yamlError(err error) (int, string) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, found := strings.CutPrefix(text, "line "); found {
		number, problem, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return line, problem
		}
	}
	return 0, text
}

// mapping reads each key once, by its setting, and refuses keys that are unknown or twice there.
func (l *loader) mapping(node *yaml.Node, what string, settings []setting) {
	node = deref(node)
	if node.Kind != yaml.MappingNode {
		l.fault(File, node.Line, "write `key: value` lines", "%s: want a mapping, got %s", what, kindOf(node))
		return
	}
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, s.name)
	}
	for _, pair := range l.pairs(node, what) {
		i := slices.Index(names, pair.key.Value)
		if i < 0 {
			l.fault(File, pair.key.Line, unknownKeyRemedy(pair.key.Value, names), "%s: key %q is unknown", what, pair.key.Value)
			continue
		}
		settings[i].read(deref(pair.value))
	}
}

type pair struct{ key, value *yaml.Node }

// pairs returns a mapping's entries in order, the first of each key.
func (l *loader) pairs(node *yaml.Node, what string) []pair {
	var pairs []pair
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := deref(node.Content[i])
		if line, twice := first[key.Value]; twice {
			l.fault(File, key.Line, "remove one of them", "%s: key %q stands in line %d already", what, key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		pairs = append(pairs, pair{key, node.Content[i+1]})
	}
	return pairs
}

func (l *loader) namespace(v *yaml.Node) {
	name := l.text(v, "namespace")
	if name == "" {
		return
	}
	if err := topics.ValidateNamespace(name); err != nil {
		l.fault(File, v.Line, "rename it", "%v", err)
	}
	l.project.Namespace = name
}

func (l *loader) schemasDir(v *yaml.Node) {
	dir := strings.TrimPrefix(strings.TrimSuffix(l.text(v, "schemas"), "/"), "./")
	if dir == "" {
		return
	}
	if !fs.ValidPath(dir) {
		l.fault(File, v.Line, "name a folder below the project's, with slashes, such as `schemas`", "schemas: %q is no folder inside the project", dir)
		return
	}
	l.project.SchemasDir = dir
}

func (l *loader) registry(v *yaml.Node) {
	l.mapping(v, "registry", []setting{{"compatibility", func(v *yaml.Node) {
		l.project.Compatibility = l.oneOf(v, "registry.compatibility", compatibilities)
	}}})
}

func (l *loader) categories(v *yaml.Node) {
	if v.Kind != yaml.MappingNode {
		l.fault(File, v.Line, "write one line per category, such as `invoice: {mode: append}`", "categories: want a mapping, got %s", kindOf(v))
		return
	}
	pairs := l.pairs(v, "categories")
	if len(pairs) > categoriesMax {
		l.fault(File, v.Line, "split the project", "%d categories, at most %d are allowed", len(pairs), categoriesMax)
		return
	}
	for _, pair := range pairs {
		name := pair.key.Value
		if err := topics.ValidateName("category", name); err != nil {
			l.fault(File, pair.key.Line, "rename it", "%v", err)
		}
		l.project.Categories = append(l.project.Categories, l.category(name, pair))
	}
}

func (l *loader) category(name string, at pair) Category {
	c := Category{Name: name, DedupeIDs: DedupeIDsDefault, DedupeAge: DedupeAgeDefault, line: at.key.Line}
	what := "category " + name
	before := len(l.faults)
	var appends *yaml.Node
	l.mapping(at.value, what, []setting{
		{"mode", func(v *yaml.Node) { c.Mode = topics.Mode(l.oneOf(v, what+".mode", modes)) }},
		{"partitions", func(v *yaml.Node) {
			c.Partitions = int32(l.integer(v, what+".partitions", int(topics.PartitionsMax)))
		}},
		{"retention", func(v *yaml.Node) { c.Retention = l.retention(v, what+".retention") }},
		{"allow_appends", func(v *yaml.Node) { appends, c.AllowAppends = v, l.boolean(v, what+".allow_appends") }},
		{"dedupe", func(v *yaml.Node) { l.dedupe(v, what+".dedupe", &c) }},
		{"snapshots", func(v *yaml.Node) { l.snapshots(v, what+".snapshots", &c.Snapshots) }},
	})
	switch {
	case c.Mode == "" && len(l.faults) == before:
		l.fault(File, at.key.Line, "say `mode: append` (ready events), `decider` (decided by Go) or `external` (read by another program)", "%s: mode is missing", what)
	case appends != nil && c.Mode != topics.ModeDecider:
		l.fault(File, appends.Line, "remove it", "%s: allow_appends is for mode decider; this one is %s", what, c.Mode)
	}
	c.AllowAppends = c.AllowAppends || c.Mode == topics.ModeAppend
	return c
}

var modes = []string{string(topics.ModeAppend), string(topics.ModeDecider), string(topics.ModeExternal)}

func (l *loader) dedupe(v *yaml.Node, what string, c *Category) {
	l.mapping(v, what, []setting{
		{"ids", func(v *yaml.Node) { c.DedupeIDs = l.integer(v, what+".ids", dedupeIDsMax) }},
		{"age", func(v *yaml.Node) { c.DedupeAge = l.duration(v, what+".age", time.Second, dedupeAgeMax) }},
	})
}

func (l *loader) snapshots(v *yaml.Node, what string, s *snapshot.Settings) {
	l.mapping(v, what, []setting{
		{"every_events", func(v *yaml.Node) { s.EveryEvents = l.integer(v, what+".every_events", snapshotEventsMax) }},
		{"every", func(v *yaml.Node) { s.Every = l.duration(v, what+".every", 100*time.Millisecond, snapshotTimeMax) }},
		{"load_time_above", func(v *yaml.Node) {
			s.LoadTimeAbove = l.duration(v, what+".load_time_above", time.Millisecond, snapshotTimeMax)
		}},
		{"history_every", func(v *yaml.Node) { s.HistoryEvery = l.integer(v, what+".history_every", snapshotEventsMax) }},
		{"history_age", func(v *yaml.Node) { s.HistoryAge = l.duration(v, what+".history_age", time.Hour, historyAgeMax) }},
		{"checkpoint", func(v *yaml.Node) {
			s.Checkpoint = l.duration(v, what+".checkpoint", 100*time.Millisecond, snapshotTimeMax)
		}},
	})
}

func (l *loader) text(v *yaml.Node, what string) string {
	if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || v.Value == "" {
		l.fault(File, v.Line, "give it a text", "%s: want a text, got %s", what, kindOf(v))
		return ""
	}
	return v.Value
}

func (l *loader) oneOf(v *yaml.Node, what string, known []string) string {
	if v.Kind != yaml.ScalarNode || !slices.Contains(known, v.Value) {
		l.fault(File, v.Line, "want "+strings.Join(known, ", ")+didYouMean(v.Value, known), "%s: %s is unknown", what, kindOf(v))
		return ""
	}
	return v.Value
}

// integer reads a whole number from 1 to high.
func (l *loader) integer(v *yaml.Node, what string, high int) int {
	n, err := strconv.Atoi(v.Value)
	if v.Kind != yaml.ScalarNode || err != nil || n < 1 || n > high {
		l.fault(File, v.Line, fmt.Sprintf("want a whole number from 1 to %d", high), "%s: got %s", what, kindOf(v))
		return 0
	}
	return n
}

func (l *loader) boolean(v *yaml.Node, what string) bool {
	if v.Kind != yaml.ScalarNode || v.Tag != "!!bool" {
		l.fault(File, v.Line, "want true or false", "%s: got %s", what, kindOf(v))
		return false
	}
	return strings.EqualFold(v.Value, "true")
}

func (l *loader) duration(v *yaml.Node, what string, low, high time.Duration) time.Duration {
	d, err := parseDuration(v.Value)
	if v.Kind != yaml.ScalarNode || err != nil || d < low || d > high {
		l.fault(File, v.Line, fmt.Sprintf("want a time from %s to %s, such as 90s, 12h or 30d", low, high), "%s: got %s", what, kindOf(v))
		return 0
	}
	return d
}

// retention reads how long events are kept: "forever", or a time.
func (l *loader) retention(v *yaml.Node, what string) time.Duration {
	if v.Kind == yaml.ScalarNode && v.Value == "forever" {
		return 0
	}
	const century = 100 * 365 * 24 * time.Hour
	return l.duration(v, what, time.Hour, century)
}

// parseDuration reads Go's form, and whole days, "30d", which Go's lacks.
func parseDuration(text string) (time.Duration, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// kindOf shows a node in a message.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	const shownMax = 64
	if len(n.Value) > shownMax {
		return strconv.Quote(n.Value[:shownMax]) + "…"
	}
	return strconv.Quote(n.Value)
}

func unknownKeyRemedy(key string, known []string) string {
	if near := didYouMean(key, known); near != "" {
		return strings.TrimPrefix(near, "; ")
	}
	return "known are " + strings.Join(known, ", ")
}

func didYouMean(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}
