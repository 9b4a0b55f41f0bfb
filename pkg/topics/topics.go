// Package topics is the single list of Foldstream's topics: each role's name, key, partition
// count, cleanup policy, retention, and who may write and read it.
//
// Names are derived from a namespace and a word, never configured one by one:
//
//	fs.workflow.commands   fs.workflow.events   fs.workflow.snapshots
//	fs.saga.remind.commands   fs.saga.remind.events   fs.saga.remind.snapshots
//	fs.replies   fs.schemas   fs.corrections   fs.audit   fs.dlq.view.workflow_list.v1
//
// A [Layout] says what a project has; [Layout.Specs] is every topic that follows from it.
// [MakePlan] compares the specs with a broker, [Apply] creates and corrects, and [IDs] reads
// what the services need of a topic that is there. The partition of a stream is decided by
// [Partition] alone, whatever the client's own partitioner does.
//
// Everything but the broker side is a pure function of its arguments; all of it may be used
// from any goroutine.
package topics

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// PartitionsDefault is the partition count of a category's topics where nothing else is said.
const PartitionsDefault int32 = 12

// PartitionsMax is the highest partition count that a layout may ask for.
const PartitionsMax int32 = 10_000

// Mode says who reads a category's commands topic.
type Mode string

// The modes of a category.
const (
	ModeDecider  Mode = "decider"  // ingest decides commands by a decider written in Go
	ModeAppend   Mode = "append"   // ingest appends ready events under the expected version
	ModeExternal Mode = "external" // a program of somebody else's reads the commands; no events here
)

// Category is one kind of aggregate.
type Category struct {
	Name string
	Mode Mode
	// Partitions of the category's commands, events and snapshots topics, fixed for good.
	// 0 means the layout's default.
	Partitions int32
	// Retention of the events. 0 keeps them without limit. A finite one is for logs whose
	// older part was exported and verified.
	Retention time.Duration
}

// Layout is what a project has, as far as topics follow from it.
type Layout struct {
	Namespace  string
	Categories []Category
	// Consumers that may fail, each with a dead-letter topic: "view.<name>.v<N>", "saga.<name>",
	// "sub.<name>". "ingest" is always there when some category is not external, and each saga
	// is always there.
	Consumers []string
	Sagas     []string
	// ReplicationFactor of every topic; 0 means the broker's default.
	ReplicationFactor int16
	// MinInsyncReplicas of every topic; 0 derives it: 2 where the replication factor is 3 or
	// more, else 1.
	MinInsyncReplicas int
	// DefaultPartitions of categories and sagas that name no count; 0 means PartitionsDefault.
	DefaultPartitions int32
}

// Validate checks names, counts and retention, and joins all faults.
func (l Layout) Validate() error {
	faults := []error{ValidateNamespace(l.Namespace)}
	faults = append(faults, l.validateNumbers()...)
	seen := map[string]bool{}
	for _, c := range l.Categories {
		if seen[c.Name] {
			faults = append(faults, fmt.Errorf("category %q is named twice", c.Name))
		}
		seen[c.Name] = true
		faults = append(faults, c.validate())
	}
	sagas := map[string]bool{}
	for _, s := range l.Sagas {
		if sagas[s] {
			faults = append(faults, fmt.Errorf("saga %q is named twice", s))
		}
		sagas[s] = true
		faults = append(faults, ValidateName("saga", s))
	}
	for _, c := range l.Consumers {
		faults = append(faults, ValidateConsumer(c))
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return l.validateCollisions()
}

func (l Layout) validateNumbers() []error {
	var faults []error
	if l.DefaultPartitions < 0 || l.DefaultPartitions > PartitionsMax {
		faults = append(faults, fmt.Errorf("default partitions %d: want 1 to %d, or 0 for %d", l.DefaultPartitions, PartitionsMax, PartitionsDefault))
	}
	if l.ReplicationFactor < 0 {
		faults = append(faults, fmt.Errorf("replication factor %d: want 1 or more, or 0 for the broker's default", l.ReplicationFactor))
	}
	if l.MinInsyncReplicas < 0 {
		faults = append(faults, fmt.Errorf("min in-sync replicas %d: want 1 or more, or 0 to derive it", l.MinInsyncReplicas))
	}
	if l.ReplicationFactor > 0 && l.MinInsyncReplicas > int(l.ReplicationFactor) {
		faults = append(faults, fmt.Errorf("min in-sync replicas %d is above the replication factor %d: nothing could be written", l.MinInsyncReplicas, l.ReplicationFactor))
	}
	return faults
}

func (c Category) validate() error {
	faults := []error{ValidateName("category", c.Name)}
	if !slices.Contains([]Mode{ModeDecider, ModeAppend, ModeExternal}, c.Mode) {
		faults = append(faults, fmt.Errorf("category %q has mode %q: want %s, %s or %s", c.Name, c.Mode, ModeDecider, ModeAppend, ModeExternal))
	}
	if c.Partitions < 0 || c.Partitions > PartitionsMax {
		faults = append(faults, fmt.Errorf("category %q has %d partitions: want 1 to %d, or 0 for the default", c.Name, c.Partitions, PartitionsMax))
	}
	if c.Retention < 0 || (c.Retention > 0 && c.Retention < time.Hour) {
		faults = append(faults, fmt.Errorf("category %q keeps its events for %s: want an hour or more, or 0 for no limit", c.Name, c.Retention))
	}
	return errors.Join(faults...)
}

// validateCollisions refuses two topics whose names differ in "." and "_" only: Kafka's metric
// names cannot tell them apart, so brokers refuse the second. A category "saga_x" beside a saga
// "x" is such a pair.
func (l Layout) validateCollisions() error {
	var faults []error
	first := map[string]string{}
	for _, s := range l.Specs() {
		folded := strings.ReplaceAll(s.Name, ".", "_")
		if other, taken := first[folded]; taken {
			faults = append(faults, fmt.Errorf("topics %s and %s differ only in '.' and '_', which brokers refuse: rename the category or the saga", other, s.Name))
			continue
		}
		first[folded] = s.Name
	}
	return errors.Join(faults...)
}
