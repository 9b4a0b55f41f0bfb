package topics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// PartitionsError refuses to change the partition count of a topic: the partition of a stream
// is its key's hash modulo that count, so streams would move away from their history.
type PartitionsError struct {
	Topic string
	Have  string
	Want  string
}

func (e *PartitionsError) Error() string {
	return fmt.Sprintf("topic %s has %s partitions, the project says %s, and a partition count is fixed for good: "+
		"set partitions to %s in the project, or build a new category and copy the log into it", e.Topic, e.Have, e.Want, e.Have)
}

// MissingError names topics that are not on the broker.
type MissingError struct{ Topics []string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("topics %v are not on the broker: create them with `foldstream topics apply`", e.Topics)
}

// Applied is what Apply did.
type Applied struct {
	Created    []string `json:"created"`
	Configured []Change `json:"configured"`
}

// Info is what the services need of a topic that is there.
type Info struct {
	ID                [16]byte
	Partitions        int32
	ReplicationFactor int
}

// settleMax bounds how long Apply waits for new topics to be led on every partition.
const (
	settleMax  = 15 * time.Second
	settlePoll = 50 * time.Millisecond
)

// Apply carries a plan out: it creates missing topics and corrects settings, and returns when
// the new topics are led. A plan with a [PartitionsError] is refused whole, before anything is
// changed. Two that apply the same plan at once are fine. What was done before an error is in
// the result.
func Apply(ctx context.Context, adm *kadm.Client, plan Plan) (Applied, error) {
	var applied Applied
	if err := refuse(plan); err != nil {
		return applied, err
	}
	var raced []Spec
	for _, c := range plan.of(KindCreate) {
		created, err := create(ctx, adm, c.spec)
		if err != nil {
			return applied, err
		}
		if created {
			applied.Created = append(applied.Created, c.Topic)
		} else {
			raced = append(raced, c.spec)
		}
	}
	changes := plan.of(KindSetConfig)
	if len(raced) > 0 {
		again, err := replan(ctx, adm, raced)
		if err != nil {
			return applied, err
		}
		changes = append(changes, again...)
	}
	if err := setConfigs(ctx, adm, changes, &applied); err != nil {
		return applied, err
	}
	return applied, settle(ctx, adm, applied.Created)
}

func refuse(plan Plan) error {
	var faults []error
	for _, c := range plan.Refusals() {
		faults = append(faults, &PartitionsError{Topic: c.Topic, Have: c.Have, Want: c.Want})
	}
	return errors.Join(faults...)
}

// create says false where somebody else was faster.
func create(ctx context.Context, adm *kadm.Client, s Spec) (bool, error) {
	configs := make(map[string]*string, len(s.Configs))
	for key, value := range s.Configs {
		configs[key] = &value
	}
	response, err := adm.CreateTopic(ctx, s.Partitions, s.ReplicationFactor, configs, s.Name)
	if err == nil {
		err = response.Err
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return false, nil
	}
	return false, fmt.Errorf("create topic %s (%s): %w%s", s.Name, describe(s), err, detail(response.ErrMessage))
}

// replan looks at topics that appeared since the plan was made.
func replan(ctx context.Context, adm *kadm.Client, specs []Spec) ([]Change, error) {
	names := make([]string, 0, len(specs))
	for _, s := range specs {
		names = append(names, s.Name)
	}
	if err := settle(ctx, adm, names); err != nil {
		return nil, err
	}
	plan, err := MakePlan(ctx, adm, specs)
	if err != nil {
		return nil, err
	}
	return plan.of(KindSetConfig), refuse(plan)
}

func setConfigs(ctx context.Context, adm *kadm.Client, changes []Change, applied *Applied) error {
	for len(changes) > 0 {
		topic := changes[0].Topic
		n := slices.IndexFunc(changes, func(c Change) bool { return c.Topic != topic })
		if n < 0 {
			n = len(changes)
		}
		if err := setTopicConfigs(ctx, adm, topic, changes[:n]); err != nil {
			return err
		}
		applied.Configured = append(applied.Configured, changes[:n]...)
		changes = changes[n:]
	}
	return nil
}

func setTopicConfigs(ctx context.Context, adm *kadm.Client, topic string, changes []Change) error {
	alters := make([]kadm.AlterConfig, 0, len(changes))
	for _, c := range changes {
		alters = append(alters, kadm.AlterConfig{Op: kadm.SetConfig, Name: c.Key, Value: &c.Want})
	}
	responses, err := adm.AlterTopicConfigs(ctx, alters, topic)
	if err != nil {
		return fmt.Errorf("set settings of topic %s: %w", topic, err)
	}
	for _, r := range responses {
		if r.Err != nil {
			return fmt.Errorf("set settings of topic %s: %w%s", topic, r.Err, detail(r.ErrMessage))
		}
	}
	return nil
}

// settle waits until every partition of the topics has a leader: a broker answers a creation
// before all others have heard of it.
func settle(ctx context.Context, adm *kadm.Client, names []string) error {
	if len(names) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleMax)
	defer cancel()
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for {
		details, err := listTopics(ctx, adm, names)
		if err == nil && settled(details, names) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for the leaders of %v: %w; look at the brokers' logs, then apply again", names, ctx.Err()), err)
		case <-tick.C:
		}
	}
}

func settled(details kadm.TopicDetails, names []string) bool {
	for _, name := range names {
		d, there := details[name]
		if !there || len(d.Partitions) == 0 {
			return false
		}
		for _, p := range d.Partitions {
			if p.Leader < 0 || p.Err != nil {
				return false
			}
		}
	}
	return true
}

// IDs reads topic ids and partition counts from the metadata. Topics that are not there are
// named in a [MissingError].
func IDs(ctx context.Context, adm *kadm.Client, names ...string) (map[string]Info, error) {
	if len(names) == 0 {
		return map[string]Info{}, nil
	}
	details, err := listTopics(ctx, adm, names)
	if err != nil {
		return nil, err
	}
	infos := make(map[string]Info, len(names))
	var missing []string
	for _, name := range names {
		d, there := details[name]
		if !there {
			missing = append(missing, name)
			continue
		}
		infos[name] = Info{ID: d.ID, Partitions: int32(len(d.Partitions)), ReplicationFactor: d.Partitions.NumReplicas()}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, &MissingError{Topics: slices.Compact(missing)}
	}
	return infos, nil
}
