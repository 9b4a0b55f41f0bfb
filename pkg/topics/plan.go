package topics

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Kind says what a change is.
type Kind string

// The kinds of change. Apply carries out KindCreate and KindSetConfig, and refuses a plan with
// KindPartitionsDiffer. The others are told and left alone.
const (
	KindNone              Kind = "ok"                 // the topic is as it should be
	KindCreate            Kind = "create"             // the topic is not there
	KindSetConfig         Kind = "set-config"         // a setting has another value
	KindPartitionsDiffer  Kind = "partitions-differ"  // never changed: streams would move between partitions
	KindReplicationDiffer Kind = "replication-differ" // needs a reassignment by the broker's own tools
	KindSkipped           Kind = "skipped"            // the broker does not show this setting, so it cannot be compared
)

// Change is one difference between a spec and the broker.
type Change struct {
	Topic string `json:"topic"`
	Kind  Kind   `json:"kind"`
	// Key is the setting's name; empty where the change is not about a setting.
	Key  string `json:"key,omitempty"`
	Have string `json:"have,omitempty"`
	Want string `json:"want,omitempty"`

	spec Spec // what to create
}

// String tells the change in one line.
func (c Change) String() string {
	switch c.Kind {
	case KindNone:
		return c.Topic + ": ok"
	case KindCreate:
		return c.Topic + ": create, " + c.Want
	case KindSetConfig:
		return fmt.Sprintf("%s: set %s to %s (is %s)", c.Topic, c.Key, c.Want, c.Have)
	case KindSkipped:
		return fmt.Sprintf("%s: %s=%s skipped, the broker does not show this setting", c.Topic, c.Key, c.Want)
	default:
		return fmt.Sprintf("%s: %s, has %s, want %s", c.Topic, c.Kind, c.Have, c.Want)
	}
}

// Plan is what differs between specs and a broker, ordered by topic; topics that are as they
// should be are in it with KindNone.
type Plan struct {
	Changes []Change `json:"changes"`
}

// Empty says that Apply would have nothing to do and nothing to refuse.
func (p Plan) Empty() bool {
	return !slices.ContainsFunc(p.Changes, func(c Change) bool {
		return c.Kind == KindCreate || c.Kind == KindSetConfig || c.Kind == KindPartitionsDiffer
	})
}

// Refusals are the changes that Apply refuses.
func (p Plan) Refusals() []Change { return p.of(KindPartitionsDiffer) }

// Skipped are the settings that this broker does not show.
func (p Plan) Skipped() []Change { return p.of(KindSkipped) }

func (p Plan) of(kind Kind) []Change {
	var some []Change
	for _, c := range p.Changes {
		if c.Kind == kind {
			some = append(some, c)
		}
	}
	return some
}

// MakePlan reads the broker and says what differs from the specs. It changes nothing.
func MakePlan(ctx context.Context, adm *kadm.Client, specs []Spec) (Plan, error) {
	if len(specs) == 0 {
		return Plan{}, nil
	}
	names := make([]string, 0, len(specs))
	for _, s := range specs {
		names = append(names, s.Name)
	}
	details, err := listTopics(ctx, adm, names)
	if err != nil {
		return Plan{}, err
	}
	configs, err := describeConfigs(ctx, adm, details.Names())
	if err != nil {
		return Plan{}, err
	}
	specs, err = deriveMinInsync(ctx, adm, specs, details)
	if err != nil {
		return Plan{}, err
	}
	var plan Plan
	for _, s := range specs {
		plan.Changes = append(plan.Changes, compare(s, details[s.Name], configs[s.Name])...)
	}
	slices.SortStableFunc(plan.Changes, func(a, b Change) int { return strings.Compare(a.Topic, b.Topic) })
	return plan, nil
}

func compare(s Spec, have kadm.TopicDetail, configs map[string]string) []Change {
	if len(have.Partitions) == 0 {
		return []Change{{Topic: s.Name, Kind: KindCreate, Want: describe(s), spec: s}}
	}
	var changes []Change
	if n := len(have.Partitions); n != int(s.Partitions) {
		changes = append(changes, Change{Topic: s.Name, Kind: KindPartitionsDiffer, Have: strconv.Itoa(n), Want: strconv.Itoa(int(s.Partitions))})
	}
	if rf := have.Partitions.NumReplicas(); s.ReplicationFactor > 0 && rf != int(s.ReplicationFactor) {
		changes = append(changes, Change{Topic: s.Name, Kind: KindReplicationDiffer, Have: strconv.Itoa(rf), Want: strconv.Itoa(int(s.ReplicationFactor))})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Configs)) {
		value, shown := configs[key]
		switch {
		case !shown:
			changes = append(changes, Change{Topic: s.Name, Kind: KindSkipped, Key: key, Want: s.Configs[key]})
		case value != s.Configs[key]:
			changes = append(changes, Change{Topic: s.Name, Kind: KindSetConfig, Key: key, Have: value, Want: s.Configs[key]})
		}
	}
	if len(changes) == 0 {
		changes = append(changes, Change{Topic: s.Name, Kind: KindNone})
	}
	return changes
}

func describe(s Spec) string {
	text := fmt.Sprintf("%d partitions, cleanup %s, retention.ms %s", s.Partitions, s.Configs[configCleanupPolicy], s.Configs[configRetention])
	if s.ReplicationFactor > 0 {
		return text + fmt.Sprintf(", replication factor %d", s.ReplicationFactor)
	}
	return text + ", the broker's replication factor"
}

// deriveMinInsync fills min.insync.replicas in where it hangs on the broker: on the replicas
// that a topic has, or for a new one on what the broker would give it.
func deriveMinInsync(ctx context.Context, adm *kadm.Client, specs []Spec, details kadm.TopicDetails) ([]Spec, error) {
	specs = slices.Clone(specs)
	defaultFactor := 0
	for i, s := range specs {
		if _, there := s.Configs[configMinInsync]; there {
			continue
		}
		factor := details[s.Name].Partitions.NumReplicas()
		if len(details[s.Name].Partitions) == 0 {
			if defaultFactor == 0 {
				var err error
				if defaultFactor, err = defaultReplicationFactor(ctx, adm); err != nil {
					return nil, err
				}
			}
			factor = defaultFactor
		}
		specs[i].Configs = maps.Clone(s.Configs)
		specs[i].Configs[configMinInsync] = strconv.Itoa(minInsync(factor))
	}
	return specs, nil
}

// defaultReplicationFactor is what a topic gets that asks for the broker's default. Where a
// broker does not tell (managed ones may not), 1 is assumed: min.insync.replicas 1 is then
// written, a later plan sees the true factor and corrects it.
func defaultReplicationFactor(ctx context.Context, adm *kadm.Client) (int, error) {
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return 0, fmt.Errorf("list brokers: %w", err)
	}
	if len(brokers) == 0 {
		return 1, nil
	}
	configs, err := adm.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	if err != nil {
		if errors.Is(err, kerr.ClusterAuthorizationFailed) {
			return 1, nil
		}
		return 0, fmt.Errorf("read default.replication.factor of broker %d: %w", brokers[0].NodeID, err)
	}
	for _, resource := range configs {
		for _, c := range resource.Configs {
			if c.Key == "default.replication.factor" {
				n, err := strconv.Atoi(c.MaybeValue())
				if err == nil {
					return max(1, min(n, len(brokers))), nil
				}
			}
		}
	}
	return 1, nil
}

// listTopics returns the details of those topics that are there, as they are now: asking for the
// authorized operations makes kadm pass its cache by, in which a topic that is created, or
// deleted and created again, stays missing or keeps its old id for five seconds.
func listTopics(ctx context.Context, adm *kadm.Client, names []string) (kadm.TopicDetails, error) {
	all, err := adm.ListTopics(kadm.WithAuthorizedOps(ctx), names...)
	if err != nil {
		return nil, fmt.Errorf("read topic metadata: %w", err)
	}
	there := kadm.TopicDetails{}
	var faults []error
	for name, d := range all {
		switch {
		case d.Err == nil:
			there[name] = d
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		default:
			faults = append(faults, fmt.Errorf("read metadata of topic %s: %w", name, d.Err))
		}
	}
	return there, errors.Join(faults...)
}

// describeConfigs returns topic → setting → value, of the settings whose value the broker shows.
func describeConfigs(ctx context.Context, adm *kadm.Client, names []string) (map[string]map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	resources, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("read topic settings: %w", err)
	}
	configs := make(map[string]map[string]string, len(resources))
	var faults []error
	for _, r := range resources {
		if r.Err != nil {
			faults = append(faults, fmt.Errorf("read settings of topic %s: %w%s", r.Name, r.Err, detail(r.ErrMessage)))
			continue
		}
		configs[r.Name] = map[string]string{}
		for _, c := range r.Configs {
			if c.Value != nil {
				configs[r.Name][c.Key] = *c.Value
			}
		}
	}
	return configs, errors.Join(faults...)
}

func detail(message string) string {
	if message == "" {
		return ""
	}
	return " (" + message + ")"
}
