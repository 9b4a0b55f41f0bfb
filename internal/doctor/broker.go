package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What Kafka sets, and the writer assumes where it may not look.
const (
	transactionalExpirationDefault = 7 * 24 * time.Hour
	producerExpirationDefault      = 24 * time.Hour
	// Below these an owner is busy with staying one.
	transactionalExpirationMin = time.Hour
	producerExpirationMin      = 2 * time.Minute

	// writerBatchBytes is what one batch of the writer may have, 900 KiB.
	writerBatchBytes = 900 << 10
)

func (x *exam) broker() scenario {
	return scenario{
		{"producers", "DescribeProducers for a partition of the scratch topic", "it is allowed, and shows the producer that wrote last", false, x.producers},
		{"expirations", "DescribeConfigs of a broker: transactional.id.expiration.ms, producer.id.expiration.ms", "it is allowed; both leave time for renewals", false, x.expirations},
		{"message size", "DescribeConfigs of the scratch topic: max.message.bytes", fmt.Sprintf("at least %d, what one batch of the writer may have", writerBatchBytes), false, x.messageSize},
		{"replication", "look at the scratch topic's replicas, min.insync.replicas, unclean.leader.election.enable", "3 replicas or more, 2 of them in sync, no unclean election", false, x.replication},
		{"heartbeat", "a heartbeat to group " + x.group() + " by somebody who is no member", "UNKNOWN_MEMBER_ID: only members may take a partition over", false, x.heartbeat},
	}
}

func (x *exam) group() string { return topics.Group(x.cfg.Layout.Namespace, topics.ConsumerIngest) }

// producers asks until the leader shows the producer: a broker may be asked that is not it any more.
func (x *exam) producers(ctx context.Context) outcome {
	l := x.scratch.lanes[laneTakeOver]
	const means = "the writer cannot ask who else has written to a partition; the last claim in the log is its only witness (PROTOCOL W2)"
	described, err := x.adm.DescribeProducers(ctx, kadm.TopicsSet{x.scratch.name: {l.partition: {}}})
	if err == nil {
		err = described[x.scratch.name].Partitions[l.partition].Err
	}
	switch {
	case isDenied(err):
		return warning(err.Error(), means, fmt.Sprintf("grant Read on topics with the prefix %s.", x.cfg.Layout.Namespace))
	case err != nil:
		return warning(err.Error(), means, "nothing, when this broker does not know the request")
	}
	active := described[x.scratch.name].Partitions[l.partition].ActiveProducers.Sorted()
	if len(l.acked) == 0 {
		return skipped("nothing was written there")
	}
	last := l.acked[len(l.acked)-1].claim
	for _, p := range active {
		if p.ProducerID == last.ProducerID {
			return fit("producer %d epoch %d is shown", p.ProducerID, p.ProducerEpoch)
		}
	}
	return note(fmt.Sprintf("allowed, but producer %d is not shown", last.ProducerID), "this broker shows producers inside a transaction only; the last claim in the log decides instead")
}

func (x *exam) expirations(ctx context.Context) outcome {
	settings, err := x.brokerSettings(ctx)
	if err != nil {
		return warning(err.Error(), fmt.Sprintf("the writer assumes Kafka's defaults (%s, %s); when the broker forgets sooner, an owner is not known any more before it renews, and a retry may be stored twice", transactionalExpirationDefault, producerExpirationDefault),
			"grant DescribeConfigs on the cluster")
	}
	var saw, faults []string
	for _, s := range []struct {
		key            string
		assumed, least time.Duration
	}{
		{"transactional.id.expiration.ms", transactionalExpirationDefault, transactionalExpirationMin},
		{"producer.id.expiration.ms", producerExpirationDefault, producerExpirationMin},
	} {
		value, known := milliseconds(settings[s.key])
		if !known {
			saw = append(saw, fmt.Sprintf("%s is not told, %s is assumed", s.key, s.assumed))
			continue
		}
		saw = append(saw, fmt.Sprintf("%s is %s", s.key, value))
		if value < s.least {
			faults = append(faults, fmt.Sprintf("set %s to %s or more", s.key, s.least))
		}
	}
	if len(faults) > 0 {
		return warning(strings.Join(saw, ", "), "claims are renewed, and keep-alives written, at a quarter of these: so often that a pause of the process may outlast them", strings.Join(faults, "; "))
	}
	return fit("%s", strings.Join(saw, ", "))
}

func (x *exam) brokerSettings(ctx context.Context) (map[string]string, error) {
	brokers, err := x.adm.ListBrokers(ctx)
	if err != nil {
		return nil, err
	}
	if len(brokers) == 0 {
		return nil, errors.New("the metadata name no broker")
	}
	described, err := x.adm.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	return settingsOf(described, err)
}

func (x *exam) messageSize(ctx context.Context) outcome {
	settings, err := x.describeScratch(ctx)
	if err != nil {
		return x.unseen(err)
	}
	size, err := strconv.Atoi(settings["max.message.bytes"])
	switch {
	case err != nil:
		return note("max.message.bytes is not told", "the step \"batch too large\" shows that there is a limit")
	case size < writerBatchBytes:
		return unfit(fmt.Sprintf("max.message.bytes is %d, though more was asked for", size), "full batches are refused, and their commands fail", "let topics have max.message.bytes 1048576")
	}
	return fit("max.message.bytes is %d", size)
}

// unseen is a topic whose settings cannot be read. Services do without, the topic plan does not.
func (x *exam) unseen(err error) outcome {
	if isDenied(err) {
		return outcome{verdict: Denied, saw: err.Error(), means: "what the topic really has cannot be compared with what it should have", do: x.grantScratch()}
	}
	return warning(err.Error(), "what the topic really has cannot be compared with what it should have", "compare the topics' settings by the broker's own tools")
}

// replicasSafe is how many replicas outlive a broker without losing what was acknowledged.
const replicasSafe = 3

func (x *exam) replication(ctx context.Context) outcome {
	settings, err := x.describeScratch(ctx)
	if err != nil {
		return x.unseen(err)
	}
	saw := fmt.Sprintf("replicas %d", x.scratch.replicas)
	for _, key := range []string{"min.insync.replicas", "unclean.leader.election.enable"} {
		value, told := settings[key]
		if !told {
			value = "not told"
		}
		saw += fmt.Sprintf(", %s %s", key, value)
	}
	minimum, err := strconv.Atoi(settings["min.insync.replicas"])
	switch {
	case x.scratch.replicas < replicasSafe:
		return warning(saw, "a broker that is lost takes events with it, or stops the partitions that it leads", "for production run three brokers or more, and set replication_factor: 3 in the project")
	case settings["unclean.leader.election.enable"] == "true":
		return unfit(saw, "a replica that is behind may become leader: acknowledged events are lost", "set unclean.leader.election.enable to false, on the topics and where the broker overrides them")
	case err == nil && minimum < 2:
		return unfit(saw, "an acknowledged event may be on one broker only, and be lost with it", "set min.insync.replicas to 2 on the topics")
	case err == nil && minimum >= x.scratch.replicas:
		return warning(saw, "no broker may be down, else nothing can be written", "set min.insync.replicas below the number of replicas")
	}
	return fit("%s", saw)
}

func (x *exam) heartbeat(ctx context.Context) outcome {
	const means = "an instance that has lost its partitions would take them back from the one that has them now"
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = x.group(), "doctor-"+x.scratch.name, 1
	for {
		resp, err := req.RequestWith(ctx, x.client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		switch {
		case err == nil, errors.Is(err, kerr.RebalanceInProgress):
			return unfit(fmt.Sprintf("taken for a member's (%v)", err), means, notHere)
		case errors.Is(err, kerr.UnknownMemberID):
			return fit("%v", err)
		case errors.Is(err, kerr.GroupIDNotFound):
			return note(err.Error(), "this broker does not know a group before its first member; that is as good")
		case !again(err):
			return failed(err, means, fmt.Sprintf("grant Read on group %s", x.group()))
		}
		if stopped := pause(ctx); stopped != nil {
			return failed(fmt.Errorf("%w (last: %w)", stopped, err), means, "")
		}
	}
}

// rights are those that ingest needs of the principal that asks.
func (x *exam) rights() scenario {
	return scenario{{
		name:  "rights",
		did:   "ask which operations this principal may do on the project's topics",
		needs: "what ingest does there; that it may write under transactional ids and be in its group the steps above have shown",
		run:   x.compareRights,
	}}
}

func (x *exam) compareRights(ctx context.Context) outcome {
	needed := x.neededRights()
	if x.unplanned || len(needed) == 0 {
		return skipped("none of the project's topics is there yet")
	}
	var names []string
	for _, n := range needed {
		names = append(names, n.topic)
	}
	details, err := x.adm.ListTopics(kadm.WithAuthorizedOps(ctx), names...)
	if err != nil {
		return failed(err, "the rights of ingest are not known", x.grantScratch())
	}
	var missing []string
	seen, silent := 0, 0
	for _, n := range needed {
		d := details[n.topic]
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			continue
		case d.Err == nil && len(d.AuthorizedOperations) == 0:
			silent++
			continue
		}
		seen++
		if lacks := n.lacks(d.AuthorizedOperations); len(lacks) > 0 {
			missing = append(missing, fmt.Sprintf("%s on %s", strings.Join(lacks, " and "), n.topic))
		}
	}
	return judgeRights(seen, silent, missing)
}

func judgeRights(seen, silent int, missing []string) outcome {
	switch {
	case len(missing) > 0:
		return outcome{
			verdict: Denied, saw: "missing: " + strings.Join(missing, ", "),
			means: "ingest, run as this principal, would be refused there",
			do:    "grant them, or run the doctor as the principal that ingest has; docs/operations.md lists the rights of every service",
		}
	case seen == 0 && silent > 0:
		return note("the broker does not tell", "rights show when a service uses them")
	case seen == 0:
		return skipped("none of the project's topics is there yet")
	}
	return fit("all there, on %d topics", seen)
}

// right is what ingest does to one topic.
type right struct {
	topic string
	ops   []kmsg.ACLOperation
}

func (r right) lacks(have []kadm.ACLOperation) []string {
	var names []string
	for _, op := range r.ops {
		if !slices.Contains(have, op) {
			name := op.String()
			names = append(names, strings.ToUpper(name[:1])+strings.ToLower(name[1:]))
		}
	}
	return names
}

// neededRights are those of ingest, topic by topic.
func (x *exam) neededRights() []right {
	read, write := kmsg.ACLOperationRead, kmsg.ACLOperationWrite
	var all []right
	for _, s := range x.cfg.Layout.Specs() {
		serves := slices.Contains(s.WrittenBy, topics.PartyIngest)
		switch s.Role {
		case topics.RoleCommands, topics.RoleEvents, topics.RoleSnapshots:
			if serves {
				all = append(all, right{s.Name, []kmsg.ACLOperation{read, write}})
			}
		case topics.RoleReplies:
			all = append(all, right{s.Name, []kmsg.ACLOperation{write}})
		case topics.RoleDeadLetters:
			if serves {
				all = append(all, right{s.Name, []kmsg.ACLOperation{write}})
			}
		case topics.RoleSchemas:
			all = append(all, right{s.Name, []kmsg.ACLOperation{read}})
		}
	}
	return all
}
