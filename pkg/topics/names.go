package topics

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ConsumerIngest is the consumer that reads every category's commands topic.
const ConsumerIngest = "ingest"

// ConsumerView names the consumer of one version of a view: "view.<name>.v<N>".
func ConsumerView(name string, version int) string {
	return "view." + name + ".v" + strconv.Itoa(version)
}

// ConsumerSaga names the consumer of a saga: "saga.<name>".
func ConsumerSaga(name string) string { return "saga." + name }

// Commands names the topic of requests to a category's aggregates.
func Commands(ns, category string) string { return ns + "." + category + ".commands" }

// Events names the topic that is a category's truth.
func Events(ns, category string) string { return ns + "." + category + ".events" }

// Snapshots names the compacted topic of a category's states.
func Snapshots(ns, category string) string { return ns + "." + category + ".snapshots" }

// SagaCommands names the topic that starts instances of a saga and takes their replies.
func SagaCommands(ns, saga string) string { return ns + ".saga." + saga + ".commands" }

// SagaEvents names the topic that is a saga's truth.
func SagaEvents(ns, saga string) string { return ns + ".saga." + saga + ".events" }

// SagaSnapshots names the compacted topic of a saga's states.
func SagaSnapshots(ns, saga string) string { return ns + ".saga." + saga + ".snapshots" }

// Replies names the topic of answers to requests.
func Replies(ns string) string { return ns + ".replies" }

// Schemas names the compacted topic that is the embedded registry.
func Schemas(ns string) string { return ns + ".schemas" }

// Corrections names the compacted topic of skips, edits and discards.
func Corrections(ns string) string { return ns + ".corrections" }

// Audit names the topic of what operators did.
func Audit(ns string) string { return ns + ".audit" }

// DeadLetters names the topic of what a consumer could not process.
func DeadLetters(ns, consumer string) string { return ns + ".dlq." + consumer }

// TransactionalID is what the owner of a category's events partition asks for a producer id
// under: "<ns>.<category>.events-<p>" (PROTOCOL D7).
func TransactionalID(ns, category string, partition int32) string {
	return TopicTransactionalID(Events(ns, category), partition)
}

// TopicTransactionalID is the transactional id of one partition of any topic that is written
// under the claim protocol: "<topic>-<p>".
func TopicTransactionalID(topic string, partition int32) string {
	return topic + "-" + strconv.FormatInt(int64(partition), 10)
}

// Group is the consumer group of a consumer: "<ns>.<consumer>".
func Group(ns, consumer string) string { return ns + "." + consumer }

var (
	namespacePattern = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	namePattern      = regexp.MustCompile(`^[a-z][a-z0-9_]{0,30}$`)
	versionPattern   = regexp.MustCompile(`^v[1-9][0-9]{0,5}$`)
)

// reserved words name topics, system views or Foldstream's own schemas.
var reserved = []string{
	"audit", "corrections", "dlq", "events", "foldstream", "letters", "offsets", "replies", "saga", "sagas", "schemas", "snapshots",
}

// systemViews are kept by the projector beside a project's own (DESIGN §6).
var systemViews = []string{"events", "letters", "offsets", "sagas", "snapshots"}

// Reserved returns the words that no category, view or saga may have as its name, sorted.
func Reserved() []string { return slices.Clone(reserved) }

// ValidateNamespace checks the prefix of every topic, group, transactional id and Postgres schema.
func ValidateNamespace(ns string) error {
	if !namespacePattern.MatchString(ns) {
		return fmt.Errorf("namespace %q: want a lower-case letter and up to 14 lower-case letters or digits", clip(ns))
	}
	return nil
}

// ValidateName checks the name of a category, view or saga; what is that word, for the message.
func ValidateName(what, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%s %q: want a lower-case letter and up to 30 lower-case letters, digits or underscores", what, clip(name))
	}
	if slices.Contains(reserved, name) {
		return fmt.Errorf("%s %q: the name is reserved (reserved are %s)", what, name, strings.Join(reserved, ", "))
	}
	return nil
}

// ValidateConsumer checks "ingest", "view.<name>.v<N>", "saga.<name>" or "sub.<name>". The name of
// a view is a project's or that of a system view.
func ValidateConsumer(consumer string) error {
	if consumer == ConsumerIngest {
		return nil
	}
	role, rest, _ := strings.Cut(consumer, ".")
	switch role {
	case "view":
		name, version, found := strings.Cut(rest, ".")
		if found && versionPattern.MatchString(version) {
			if slices.Contains(systemViews, name) {
				return nil // no view of a project's, but ours
			}
			return ValidateName("view", name)
		}
	case "saga":
		return ValidateName("saga", rest)
	case "sub":
		return ValidateName("subscription", rest)
	}
	return fmt.Errorf("consumer %q: want ingest, view.<name>.v<N>, saga.<name> or sub.<name>", clip(consumer))
}

// clip shortens foreign text for an error message.
func clip(text string) string {
	const clipBytes = 64
	if len(text) > clipBytes {
		return text[:clipBytes] + "…"
	}
	return text
}
