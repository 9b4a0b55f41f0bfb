package topics

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Role says what a topic is for.
type Role string

// The roles.
const (
	RoleCommands    Role = "commands"
	RoleEvents      Role = "events"
	RoleSnapshots   Role = "snapshots"
	RoleReplies     Role = "replies"
	RoleDeadLetters Role = "dead-letters"
	RoleCorrections Role = "corrections"
	RoleSchemas     Role = "schemas"
	RoleAudit       Role = "audit"
)

// Who writes and reads topics; a dead-letter topic is written by its consumer's own name.
const (
	PartyAnyone      = "anyone"
	PartyClient      = "client"
	PartyParticipant = "participant"
	PartyExternal    = "external"
	PartyIngest      = "ingest"
	PartyProjector   = "projector"
	PartySaga        = "saga"
	PartyAdmin       = "admin"
	PartyDLQAdmin    = "dlq-admin"
	PartySchema      = "schema"
	PartyServices    = "services"
)

// Spec is one topic as it should be.
type Spec struct {
	Name string
	Role Role
	// Key says in words what a record's key is.
	Key        string
	Partitions int32
	// ReplicationFactor is -1 where the broker's default is asked for.
	ReplicationFactor int16
	// Configs are the topic settings, all written explicitly since defaults differ between
	// brokers. min.insync.replicas is absent where it depends on the broker's default
	// replication factor; MakePlan derives it then.
	Configs   map[string]string
	WrittenBy []string
	ReadBy    []string
}

// Topic settings that Foldstream writes.
const (
	configCleanupPolicy   = "cleanup.policy"
	configCompression     = "compression.type"
	configDeleteRetention = "delete.retention.ms"
	configDirtyRatio      = "min.cleanable.dirty.ratio"
	configCompactionLag   = "max.compaction.lag.ms"
	configMaxMessage      = "max.message.bytes"
	configMinInsync       = "min.insync.replicas"
	configRetentionBytes  = "retention.bytes"
	configRetention       = "retention.ms"
	configSegmentBytes    = "segment.bytes"
	configSegment         = "segment.ms"
	configTimestampType   = "message.timestamp.type"
	configUncleanElection = "unclean.leader.election.enable"
)

const (
	day              = 24 * time.Hour
	keepForever      = time.Duration(-1)
	messageBytesMax  = 1 << 20 // the appender's batches stay below
	letterBytesMax   = 2 << 20 // a letter is a whole record and the story of its failure
	schemasBytesMax  = 4 << 20 // all schemas of a project are registered in one batch
	segmentBytesLog  = 1 << 30
	segmentBytesTidy = 64 << 20 // of topics that are compacted or short-lived

	partitionsDeadLetters = 3
)

// Specs returns every topic of the layout, ordered by name. The layout must be valid.
func (l Layout) Specs() []Spec {
	var specs []Spec
	for _, c := range l.Categories {
		specs = append(specs, l.category(c)...)
	}
	for _, s := range l.Sagas {
		specs = append(specs, l.saga(s)...)
	}
	for _, c := range l.consumers() {
		specs = append(specs, l.deadLetters(c))
	}
	specs = append(specs, l.shared()...)
	slices.SortFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	return specs
}

// consumers are the layout's own and those that follow from it, once each.
func (l Layout) consumers() []string {
	all := slices.Clone(l.Consumers)
	for _, s := range l.Sagas {
		all = append(all, ConsumerSaga(s))
	}
	if slices.ContainsFunc(l.Categories, func(c Category) bool { return c.Mode != ModeExternal }) {
		all = append(all, ConsumerIngest)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (l Layout) category(c Category) []Spec {
	partitions := l.partitions(c.Partitions)
	commands := Spec{
		Name: Commands(l.Namespace, c.Name), Role: RoleCommands, Key: "aggregate id", Partitions: partitions,
		Configs:   expiring(7*day, day),
		WrittenBy: []string{PartyClient, PartySaga, PartyIngest}, ReadBy: []string{PartyIngest},
	}
	if c.Mode == ModeExternal {
		commands.WrittenBy, commands.ReadBy = []string{PartyClient, PartySaga}, []string{PartyExternal}
		return []Spec{l.complete(commands)}
	}
	retention := keepForever
	if c.Retention > 0 {
		retention = c.Retention
	}
	return []Spec{
		l.complete(commands),
		l.complete(Spec{
			Name: Events(l.Namespace, c.Name), Role: RoleEvents, Key: "aggregate id; null on claims", Partitions: partitions,
			Configs:   eventLog(retention),
			WrittenBy: []string{PartyIngest}, ReadBy: []string{PartyAnyone},
		}),
		l.complete(Spec{
			Name: Snapshots(l.Namespace, c.Name), Role: RoleSnapshots, Key: "aggregate id, plus slots for history", Partitions: partitions,
			Configs:   compacted(),
			WrittenBy: []string{PartyIngest}, ReadBy: []string{PartyIngest, PartyProjector},
		}),
	}
}

func (l Layout) saga(name string) []Spec {
	partitions := l.partitions(0)
	return []Spec{
		l.complete(Spec{
			Name: SagaCommands(l.Namespace, name), Role: RoleCommands, Key: "saga id", Partitions: partitions,
			Configs:   expiring(7*day, day),
			WrittenBy: []string{PartyClient, PartyParticipant, PartyIngest, PartySaga}, ReadBy: []string{PartySaga},
		}),
		l.complete(Spec{
			Name: SagaEvents(l.Namespace, name), Role: RoleEvents, Key: "saga id; null on claims", Partitions: partitions,
			Configs:   eventLog(keepForever),
			WrittenBy: []string{PartySaga}, ReadBy: []string{PartyAnyone},
		}),
		l.complete(Spec{
			Name: SagaSnapshots(l.Namespace, name), Role: RoleSnapshots, Key: "saga id, plus slots for history", Partitions: partitions,
			Configs:   compacted(),
			WrittenBy: []string{PartySaga}, ReadBy: []string{PartySaga, PartyProjector},
		}),
	}
}

func (l Layout) deadLetters(consumer string) Spec {
	configs := expiring(30*day, day)
	configs[configMaxMessage] = strconv.Itoa(letterBytesMax)
	return l.complete(Spec{
		Name: DeadLetters(l.Namespace, consumer), Role: RoleDeadLetters, Key: "the failed record's own key", Partitions: partitionsDeadLetters,
		Configs:   configs,
		WrittenBy: []string{consumer}, ReadBy: []string{PartyDLQAdmin},
	})
}

func (l Layout) shared() []Spec {
	schemas := compacted()
	schemas[configMaxMessage] = strconv.Itoa(schemasBytesMax)
	return []Spec{
		l.complete(Spec{
			Name: Replies(l.Namespace), Role: RoleReplies, Key: "the asker's fs-reply-key, else the command id", Partitions: l.partitions(0),
			Configs:   expiring(time.Hour, 10*time.Minute),
			WrittenBy: []string{PartyIngest, PartySaga, PartyParticipant}, ReadBy: []string{PartyClient, PartyIngest},
		}),
		l.complete(Spec{
			Name: Schemas(l.Namespace), Role: RoleSchemas, Key: "<subject>/<version>", Partitions: 1,
			Configs:   schemas,
			WrittenBy: []string{PartySchema}, ReadBy: []string{PartyAnyone},
		}),
		l.complete(Spec{
			Name: Corrections(l.Namespace), Role: RoleCorrections, Key: "consumer, category, stream, version; without a version: topic id, partition, offset", Partitions: 1,
			Configs:   compacted(),
			WrittenBy: []string{PartyAdmin, PartyDLQAdmin}, ReadBy: []string{PartyProjector, PartySaga},
		}),
		l.complete(Spec{
			Name: Audit(l.Namespace), Role: RoleAudit, Key: "actor", Partitions: 1,
			Configs:   expiring(7*365*day, 30*day),
			WrittenBy: []string{PartyAdmin, PartyDLQAdmin}, ReadBy: []string{PartyAdmin},
		}),
	}
}

// complete fills in what is the same for all topics of the layout.
func (l Layout) complete(s Spec) Spec {
	s.ReplicationFactor = -1
	if l.ReplicationFactor > 0 {
		s.ReplicationFactor = l.ReplicationFactor
	}
	s.Configs[configRetentionBytes] = "-1"
	s.Configs[configCompression] = "producer"
	s.Configs[configUncleanElection] = "false"
	setDefault(s.Configs, configMaxMessage, strconv.Itoa(messageBytesMax))
	setDefault(s.Configs, configTimestampType, "CreateTime")
	switch {
	case l.MinInsyncReplicas > 0:
		s.Configs[configMinInsync] = strconv.Itoa(l.MinInsyncReplicas)
	case l.ReplicationFactor > 0:
		s.Configs[configMinInsync] = strconv.Itoa(minInsync(int(l.ReplicationFactor)))
	}
	return s
}

func (l Layout) partitions(own int32) int32 {
	switch {
	case own > 0:
		return own
	case l.DefaultPartitions > 0:
		return l.DefaultPartitions
	default:
		return PartitionsDefault
	}
}

// minInsync is 2 where one replica may be lost without losing the partition or an acknowledged
// write (PROTOCOL W9).
func minInsync(replicationFactor int) int {
	if replicationFactor >= 3 {
		return 2
	}
	return 1
}

// expiring is for topics whose records end by age. The segment time bounds how much longer than
// its retention a record stays.
func expiring(retention, segment time.Duration) map[string]string {
	return map[string]string{
		configCleanupPolicy: "delete",
		configRetention:     milliseconds(retention),
		configSegment:       milliseconds(segment),
		configSegmentBytes:  strconv.Itoa(segmentBytesTidy),
	}
}

// eventLog is for the truth: never compacted, stamped by the broker.
func eventLog(retention time.Duration) map[string]string {
	return map[string]string{
		configCleanupPolicy: "delete",
		configRetention:     milliseconds(retention),
		configSegment:       milliseconds(7 * day),
		configSegmentBytes:  strconv.Itoa(segmentBytesLog),
		configTimestampType: "LogAppendTime",
	}
}

// compacted is for topics whose last record per key counts. The lag bounds how long a record
// that was overwritten can still be read; retention.ms is set since some brokers apply their
// default to every topic once a cleaner runs.
func compacted() map[string]string {
	return map[string]string{
		configCleanupPolicy:   "compact",
		configRetention:       milliseconds(keepForever),
		configSegment:         milliseconds(day),
		configSegmentBytes:    strconv.Itoa(segmentBytesTidy),
		configDeleteRetention: milliseconds(day),
		configDirtyRatio:      "0.1",
		configCompactionLag:   milliseconds(7 * day),
	}
}

func milliseconds(d time.Duration) string {
	if d == keepForever {
		return "-1"
	}
	return strconv.FormatInt(d.Milliseconds(), 10)
}

func setDefault(m map[string]string, key, value string) {
	if _, there := m[key]; !there {
		m[key] = value
	}
}
