package doctor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// scratch is the topic that the steps of fencing write to.
type scratch struct {
	name     string
	id       [16]byte
	replicas int
	// tried: the topic may be there, and has to be deleted.
	tried bool
	lanes []*lane
}

// The partitions, one for each scenario that writes.
const (
	laneTakeOver = iota
	laneHeld
	laneEnded
	laneBatches
	laneWriter
	lanesCount
)

// scratchRetention bounds what is left of a topic that could not be deleted.
const scratchRetention = 24 * time.Hour

// scratchName cannot be a topic of a project: no category, view or saga has a hyphen.
func scratchName(namespace string) string {
	return namespace + ".doctor-" + strings.ToLower(rand.Text()[:12])
}

// spec is the scratch topic as an events topic of the project would be.
func (x *exam) spec() topics.Spec {
	l := topics.Layout{
		Namespace: x.cfg.Layout.Namespace, ReplicationFactor: x.cfg.Layout.ReplicationFactor, MinInsyncReplicas: x.cfg.Layout.MinInsyncReplicas,
		Categories: []topics.Category{{Name: "doctor", Mode: topics.ModeAppend, Partitions: lanesCount}},
	}
	specs := l.Specs()
	s := specs[slices.IndexFunc(specs, func(s topics.Spec) bool { return s.Role == topics.RoleEvents })]
	s.Name = x.scratch.name
	s.Configs["retention.ms"] = fmt.Sprint(scratchRetention.Milliseconds())
	return s
}

// fencing creates the scratch topic, plays every scenario on it, and deletes it, whatever happens.
func (x *exam) fencing(ctx context.Context) error {
	x.scratch.name = scratchName(x.cfg.Layout.Namespace)
	x.report.Topic = x.scratch.name
	for p := range int32(lanesCount) {
		x.scratch.lanes = append(x.scratch.lanes, &lane{x: x, partition: p, txn: topics.TopicTransactionalID(x.scratch.name, p)})
	}
	defer x.cleanUp(ctx)
	if err := x.play(ctx, scenario{x.createStep()}); err != nil {
		return err
	}
	if x.scratch.id == ([16]byte{}) && x.scratch.replicas == 0 {
		return nil // the creation's finding says why
	}
	for _, s := range []scenario{x.takeOver(), x.held(), x.ended(), x.batches(), x.writer(), x.readBack(), x.broker(), x.rights()} {
		if err := x.play(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (x *exam) createStep() step {
	return step{
		name: "scratch topic", base: true,
		did:   fmt.Sprintf("create %s as an events topic of the project, with %d partitions", x.scratch.name, lanesCount),
		needs: "it is created with the project's replication factor, and every partition gets a leader",
		run:   x.create,
	}
}

// grantScratch is what the examination itself needs.
func (x *exam) grantScratch() string {
	return fmt.Sprintf("grant this principal Create, Delete, Describe, DescribeConfigs, Read and Write on topics with the prefix %s.doctor-, and Write and Describe on transactional ids with the prefix %s.",
		x.cfg.Layout.Namespace, x.cfg.Layout.Namespace)
}

func (x *exam) create(ctx context.Context) outcome {
	const means = "what cannot be created cannot be examined; topics of the project would not be created either"
	plan, err := topics.MakePlan(ctx, x.adm, []topics.Spec{x.spec()})
	if err != nil {
		return failed(err, means, x.grantScratch())
	}
	x.scratch.tried = true
	if _, err := topics.Apply(ctx, x.adm, plan); err != nil {
		if isDenied(err) {
			return failed(err, means, x.grantScratch())
		}
		return unfit(err.Error(), means, "set the project's replication_factor to what the cluster has, or mend what the error names")
	}
	infos, err := topics.IDs(ctx, x.adm, x.scratch.name)
	if err != nil {
		return failed(err, means, x.grantScratch())
	}
	info := infos[x.scratch.name]
	x.scratch.id, x.scratch.replicas = info.ID, info.ReplicationFactor
	return fit("created, replication factor %d", info.ReplicationFactor)
}

// cleanUp deletes the topic. It goes on when ctx has ended: Ctrl-C leaves nothing behind.
func (x *exam) cleanUp(ctx context.Context) {
	if !x.scratch.tried {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.cfg.CleanupTimeout)
	defer cancel()
	st := step{name: "clean up", did: "delete " + x.scratch.name, needs: "nothing of the examination is left"}
	x.add(st, x.remove(ctx))
}

func (x *exam) remove(ctx context.Context) outcome {
	for {
		_, err := x.adm.DeleteTopic(ctx, x.scratch.name)
		switch {
		case err == nil:
			return fit("deleted")
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return fit("the topic is not there")
		case isDenied(err) && x.scratch.replicas == 0:
			return skipped("the topic was not created: " + err.Error())
		}
		if !again(err) || pause(ctx) != nil {
			return x.leftBehind(err)
		}
	}
}

func (x *exam) leftBehind(err error) outcome {
	out := warning("not deleted: "+err.Error(),
		fmt.Sprintf("the scratch topic is left on the broker; its records are gone after %s", scratchRetention),
		fmt.Sprintf("delete the topic %s by the broker's own tools", x.scratch.name))
	if isDenied(err) {
		out.verdict, out.do = Denied, out.do+", and "+x.grantScratch()
	}
	return out
}

// describeScratch reads the settings of the scratch topic.
func (x *exam) describeScratch(ctx context.Context) (map[string]string, error) {
	described, err := x.adm.DescribeTopicConfigs(ctx, x.scratch.name)
	return settingsOf(described, err)
}

func settingsOf(described kadm.ResourceConfigs, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	settings := map[string]string{}
	for _, r := range described {
		if r.Err != nil {
			return nil, r.Err
		}
		for _, c := range r.Configs {
			if c.Value != nil {
				settings[c.Key] = *c.Value
			}
		}
	}
	return settings, nil
}
