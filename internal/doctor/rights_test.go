package doctor

import (
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

func grant(resource kmsg.ACLResourceType, pattern kmsg.ACLResourcePatternType, name string, ops ...kmsg.ACLOperation) []kfake.ACL {
	var all []kfake.ACL
	for _, op := range ops {
		all = append(all, kfake.ACL{Resource: resource, Name: name, Pattern: pattern, Operation: op, Allow: true})
	}
	return all
}

// TestMissingRightsAreToldApart: the steps of the examination, the rights of ingest, and what is
// only wished for.
func TestMissingRightsAreToldApart(t *testing.T) {
	t.Parallel()
	const ns = "shop"
	const (
		topic, txn, group, cluster = kmsg.ACLResourceTypeTopic, kmsg.ACLResourceTypeTransactionalId, kmsg.ACLResourceTypeGroup, kmsg.ACLResourceTypeCluster
		prefix, literal            = kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLResourcePatternTypeLiteral
		read, write, describe      = kmsg.ACLOperationRead, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe
		create, remove, configs    = kmsg.ACLOperationCreate, kmsg.ACLOperationDelete, kmsg.ACLOperationDescribeConfigs
	)
	// What docs/operations.md asks for.
	scratch := grant(topic, prefix, ns+".doctor-", create, remove, describe, configs, read, write)
	asIngest := concat(
		grant(topic, prefix, ns+".order.", read, write, describe),
		grant(topic, literal, ns+".replies", write, describe),
		grant(topic, literal, ns+".dlq.ingest", write, describe),
		grant(topic, literal, ns+".schemas", read, describe),
		grant(group, literal, ns+".ingest", read, describe),
		grant(txn, prefix, ns+".", write, describe),
	)
	look := grant(cluster, literal, "kafka-cluster", configs)
	for _, c := range []struct {
		name  string
		acls  []kfake.ACL
		found map[string]Verdict
		want  Verdict
	}{
		{"nothing", nil, map[string]Verdict{"scratch topic": Denied}, Denied},
		{"no creation", asIngest, map[string]Verdict{"scratch topic": Denied}, Denied},
		{"no transactional ids", scratch, map[string]Verdict{"producer id": Denied, "next epoch": Skipped, "heartbeat": Denied, "rights": Denied, "clean up": Fit}, Denied},
		{"not those of ingest", concat(scratch, grant(txn, prefix, ns+".", write, describe), grant(group, literal, ns+".ingest", read)), map[string]Verdict{"writer": Fit, "rights": Denied}, Denied},
		{"no look at brokers", concat(scratch, asIngest), map[string]Verdict{"expirations": Warning, "writer": Fit, "rights": Fit}, Fit},
		{"all", concat(scratch, asIngest, look), map[string]Verdict{"expirations": Fit, "rights": Fit, "log": Fit}, Fit},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			kafka := testkit.StartKfake(t, kfake.EnableSASL(), kfake.EnableACLs(),
				kfake.Superuser("PLAIN", "root", "r"), kfake.User("PLAIN", "ingest", "i", c.acls...))
			root := kgo.SASL(plain.Auth{User: "root", Pass: "r"}.AsMechanism())
			cfg := configOf(ns, kafka.ListenAddrs(), kgo.SASL(plain.Auth{User: "ingest", Pass: "i"}.AsMechanism()))
			makeTopics(t, cfg, kafka.ListenAddrs(), root)
			report := examine(t, cfg)
			wantVerdict(t, report, c.want)
			want(t, report, c.found)
			asRoot := cfg
			asRoot.Kafka = []kgo.Opt{kgo.SeedBrokers(kafka.ListenAddrs()...), root}
			wantNothingLeft(t, asRoot)
		})
	}
}

func concat(lists ...[]kfake.ACL) []kfake.ACL {
	var all []kfake.ACL
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

func makeTopics(t *testing.T, cfg Config, seeds []string, opts ...kgo.Opt) {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(seeds...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	plan, err := topics.MakePlan(t.Context(), adm, cfg.Layout.Specs())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topics.Apply(t.Context(), adm, plan); err != nil {
		t.Fatal(err)
	}
}
