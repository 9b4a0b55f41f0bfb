package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// quick is what only reads.
func (x *exam) quick() []scenario {
	kafka := scenario{
		{"brokers", "ask for the metadata, then each broker by itself", "every broker answers at the address that it gives out", true, x.brokers},
		{"versions", "ask a broker which requests it knows", "producer epochs in InitProducerID (Kafka 2.5), topic ids (2.8)", false, x.versions},
	}
	if x.cfg.Plan != nil {
		kafka = append(kafka, step{"topics", "compare the project's topics with the broker's", "they are there, with the project's partition counts and settings", false, x.topics})
	}
	if x.cfg.Schemas != nil {
		kafka = append(kafka, step{"schemas", "look every schema of the project up", "each is registered, with the project's text", false, x.schemas})
	}
	all := []scenario{kafka}
	if x.cfg.Postgres != nil {
		all = append(all, scenario{{"postgres", "connect and ask for the version", fmt.Sprintf("an answer, version %d or newer", postgresMin), false, x.postgres}})
	}
	return all
}

// brokers asks the bootstrap addresses, then every broker by the address that it advertises: a
// wrong one of those is what most often keeps clients out.
func (x *exam) brokers(ctx context.Context) outcome {
	const means = "clients cannot reach the partitions that this broker leads"
	const do = "look at the brokers' advertised.listeners, at TLS and SASL settings on both sides, and at what stands in between"
	x.brokerAway = true
	meta, err := x.adm.BrokerMetadata(ctx)
	if err != nil {
		return x.unreached(ctx, "no broker answers: "+err.Error(), err, means, do)
	}
	for _, b := range meta.Brokers {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "foldstream", "1"
		if _, err := x.client.Broker(int(b.NodeID)).Request(ctx, req); err != nil {
			return x.unreached(ctx, fmt.Sprintf("broker %d does not answer at %s:%d: %v", b.NodeID, b.Host, b.Port, err), err, means, do)
		}
	}
	if len(meta.Brokers) == 0 {
		return unfit("the metadata name no broker", means, do)
	}
	x.brokerAway = false
	return fit("%d of %d answer, cluster %s", len(meta.Brokers), len(meta.Brokers), meta.Cluster)
}

func (x *exam) unreached(ctx context.Context, saw string, err error, means, do string) outcome {
	if isDenied(err) {
		return failed(err, means, "look at the SASL settings, and at the principal's rights")
	}
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		saw += fmt.Sprintf(" (within %s)", x.cfg.StepTimeout)
	}
	return unfit(saw, means, do)
}

// Versions of requests that the protocols need.
var versionsNeeded = []struct {
	key   kmsg.Key
	least int16
	why   string
}{
	{kmsg.InitProducerID, 3, "a living owner's renewal carries its epoch"},
	{kmsg.Metadata, 10, "topics have ids"},
	{kmsg.Produce, 7, "idempotent batches"},
}

func (x *exam) versions(ctx context.Context) outcome {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "foldstream", "1"
	resp, err := req.RequestWith(ctx, x.client)
	if err != nil {
		return failed(err, "what the broker can do is not known", "look at the principal's rights")
	}
	known := kversion.FromApiVersionsResponse(resp)
	saw := release(known.VersionGuess())
	var lacks []string
	for _, v := range versionsNeeded {
		if have, there := known.LookupMaxKeyVersion(int16(v.key)); !there || have < v.least {
			lacks = append(lacks, fmt.Sprintf("%s version %d (%s)", v.key.Name(), v.least, v.why))
		}
	}
	if len(lacks) > 0 {
		return unfit(saw+"; it lacks "+strings.Join(lacks, ", "), "the claim protocol cannot be run as it is meant", "use Apache Kafka 2.8 or newer; 4.1 or newer is best")
	}
	return fit("%s", saw)
}

// release words a guess, which is a version, or in words what comes close.
func release(guess string) string {
	if strings.HasPrefix(guess, "v") {
		return "by its requests Kafka " + guess
	}
	return "its requests are those of no one release of Kafka (closest: " + guess + ")"
}

func (x *exam) topics(ctx context.Context) outcome {
	plan, err := x.cfg.Plan(ctx)
	if err != nil {
		return failed(err, "whether services find their topics is not known", "grant Describe and DescribeConfigs on topics with the prefix "+x.cfg.Layout.Namespace+".")
	}
	var missing, differ []string
	all := map[string]bool{}
	refused := false
	for _, c := range plan.Changes {
		all[c.Topic] = true
		switch c.Kind {
		case topics.KindCreate:
			missing = append(missing, c.Topic)
		case topics.KindPartitionsDiffer:
			refused = true
			differ = append(differ, c.String())
		case topics.KindSetConfig, topics.KindReplicationDiffer:
			differ = append(differ, c.String())
		}
	}
	x.unplanned = len(all) > 0 && len(missing) == len(all)
	return x.judgeTopics(len(all), missing, differ, refused)
}

func (x *exam) judgeTopics(all int, missing, differ []string, refused bool) outcome {
	const doPlan = "compare by `%[1]s topics plan`, correct by `%[1]s topics apply`"
	apply := fmt.Sprintf("create them by `%s topics apply`", x.cfg.Program)
	switch {
	case x.unplanned:
		return warning(fmt.Sprintf("none of %d is there yet", all), "nothing was set up in this namespace; services will not start", apply)
	case refused:
		return unfit(few(differ), "the partition of a stream hangs on the count: with another one, streams are looked for in the wrong place",
			"a partition count is never changed: mend the project, or recreate the topic while it is empty")
	case len(missing) > 0:
		return unfit("missing: "+few(missing), "services will not start", apply)
	case len(differ) > 0:
		return warning(few(differ), "the topics keep, or take, other than the project says", fmt.Sprintf(doPlan, x.cfg.Program))
	}
	return fit("%d, as planned", all)
}

// fewMax bounds how many of a list are named.
const fewMax = 5

func few(list []string) string {
	if len(list) <= fewMax {
		return strings.Join(list, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(list[:fewMax], "; "), len(list)-fewMax)
}

func (x *exam) schemas(ctx context.Context) outcome {
	const means = "services will not start"
	if x.unplanned {
		return skipped("the project's topics are not there yet")
	}
	registered, faults, err := x.cfg.Schemas(ctx)
	if err != nil {
		return failed(err, means, "grant Read on topic "+topics.Schemas(x.cfg.Layout.Namespace)+", or look at the registry's credentials")
	}
	if len(faults) > 0 {
		return unfit(few(faults), means, fmt.Sprintf("register them by `%s schema register`; a registered version never changes, so a new text is a new version", x.cfg.Program))
	}
	return fit("%d, as in the project", registered)
}

// postgresMin is the oldest major version that the projector's statements are tested on.
const postgresMin = 15

// ErrNotConfigured is returned by Config.Postgres where no server is named: the step is left out.
var ErrNotConfigured = errors.New("no server is named in the configuration")

func (x *exam) postgres(ctx context.Context) outcome {
	const means = "the projector cannot write its views"
	version, err := x.cfg.Postgres(ctx)
	switch {
	case errors.Is(err, ErrNotConfigured):
		return skipped(err.Error() + "; ingest needs none, the projector does")
	case err != nil:
		return failed(err, means, "look at the DSN's user, its password, and at pg_hba.conf")
	}
	number, _, _ := strings.Cut(version, ".")
	if major, err := strconv.Atoi(strings.TrimFunc(number, func(r rune) bool { return r < '0' || r > '9' })); err == nil && major < postgresMin {
		return warning("version "+version, "the projector is not tested on it", fmt.Sprintf("use Postgres %d or newer", postgresMin))
	}
	return fit("version %s", version)
}
