package topics_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/topics"
)

func layout() topics.Layout {
	return topics.Layout{
		Namespace: "acme",
		Categories: []topics.Category{
			{Name: "invoice", Mode: topics.ModeAppend},
			{Name: "order", Mode: topics.ModeDecider, Partitions: 48, Retention: 7 * 365 * 24 * time.Hour},
			{Name: "mailer", Mode: topics.ModeExternal},
		},
		Consumers: []string{topics.ConsumerView("invoice_list", 1), "sub.export"},
		Sagas:     []string{"remind"},
	}
}

func TestSpecsAreEveryTopicInOrder(t *testing.T) {
	t.Parallel()
	l := layout()
	if err := l.Validate(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range l.Specs() {
		got = append(got, s.Name)
	}
	want := []string{
		"acme.audit", "acme.corrections",
		"acme.dlq.ingest", "acme.dlq.saga.remind", "acme.dlq.sub.export", "acme.dlq.view.invoice_list.v1",
		"acme.invoice.commands", "acme.invoice.events", "acme.invoice.snapshots",
		"acme.mailer.commands",
		"acme.order.commands", "acme.order.events", "acme.order.snapshots",
		"acme.replies",
		"acme.saga.remind.commands", "acme.saga.remind.events", "acme.saga.remind.snapshots",
		"acme.schemas",
	}
	if !slices.Equal(got, want) {
		t.Errorf("topics\n got %v\nwant %v", got, want)
	}
}

func TestNamesAreThoseOfSpecs(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		topics.Commands("fs", "order"):                                  "fs.order.commands",
		topics.Events("fs", "order"):                                    "fs.order.events",
		topics.Snapshots("fs", "order"):                                 "fs.order.snapshots",
		topics.SagaCommands("fs", "pay"):                                "fs.saga.pay.commands",
		topics.SagaEvents("fs", "pay"):                                  "fs.saga.pay.events",
		topics.SagaSnapshots("fs", "pay"):                               "fs.saga.pay.snapshots",
		topics.Replies("fs"):                                            "fs.replies",
		topics.Schemas("fs"):                                            "fs.schemas",
		topics.Corrections("fs"):                                        "fs.corrections",
		topics.Audit("fs"):                                              "fs.audit",
		topics.DeadLetters("fs", topics.ConsumerIngest):                 "fs.dlq.ingest",
		topics.DeadLetters("fs", topics.ConsumerView("order_list", 12)): "fs.dlq.view.order_list.v12",
		topics.TransactionalID("fs", "order", 11):                       "fs.order.events-11",
		topics.TopicTransactionalID(topics.Schemas("fs"), 0):            "fs.schemas-0",
		topics.Group("fs", topics.ConsumerSaga("pay")):                  "fs.saga.pay",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSpecsFollowTheRoles(t *testing.T) {
	t.Parallel()
	type row struct {
		topic, cleanup, retention, stamp string
		partitions                       int32
	}
	day := int64(24 * time.Hour / time.Millisecond)
	ms := func(days int64) string { return formatInt(days * day) }
	byName := map[string]topics.Spec{}
	for _, s := range layout().Specs() {
		byName[s.Name] = s
	}
	for _, want := range []row{
		{"acme.invoice.commands", "delete", ms(7), "CreateTime", 12},
		{"acme.invoice.events", "delete", "-1", "LogAppendTime", 12},
		{"acme.invoice.snapshots", "compact", "-1", "CreateTime", 12},
		{"acme.order.commands", "delete", ms(7), "CreateTime", 48},
		{"acme.order.events", "delete", ms(7 * 365), "LogAppendTime", 48},
		{"acme.order.snapshots", "compact", "-1", "CreateTime", 48},
		{"acme.mailer.commands", "delete", ms(7), "CreateTime", 12},
		{"acme.saga.remind.events", "delete", "-1", "LogAppendTime", 12},
		{"acme.saga.remind.snapshots", "compact", "-1", "CreateTime", 12},
		{"acme.replies", "delete", "3600000", "CreateTime", 12},
		{"acme.dlq.ingest", "delete", ms(30), "CreateTime", 3},
		{"acme.schemas", "compact", "-1", "CreateTime", 1},
		{"acme.corrections", "compact", "-1", "CreateTime", 1},
		{"acme.audit", "delete", ms(7 * 365), "CreateTime", 1},
	} {
		s := byName[want.topic]
		got := row{want.topic, s.Configs["cleanup.policy"], s.Configs["retention.ms"], s.Configs["message.timestamp.type"], s.Partitions}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestSpecsWriteWhatMattersExplicitly(t *testing.T) {
	t.Parallel()
	for _, s := range layout().Specs() {
		for _, key := range []string{
			"cleanup.policy", "retention.ms", "retention.bytes", "message.timestamp.type", "max.message.bytes",
			"unclean.leader.election.enable", "compression.type", "segment.ms", "segment.bytes",
		} {
			if s.Configs[key] == "" {
				t.Errorf("topic %s: %s is left to the broker's default", s.Name, key)
			}
		}
		if s.Key == "" || len(s.WrittenBy) == 0 || len(s.ReadBy) == 0 {
			t.Errorf("topic %s: key %q, written by %v, read by %v: want all three", s.Name, s.Key, s.WrittenBy, s.ReadBy)
		}
		if s.ReplicationFactor != -1 {
			t.Errorf("topic %s: replication factor %d, want -1 for the broker's default", s.Name, s.ReplicationFactor)
		}
	}
}

func TestEventsAreWrittenByOneServiceOnly(t *testing.T) {
	t.Parallel()
	for _, s := range layout().Specs() {
		if s.Role == topics.RoleEvents && len(s.WrittenBy) != 1 {
			t.Errorf("topic %s is written by %v: a second writer could write any producer id and epoch", s.Name, s.WrittenBy)
		}
	}
}

func TestMinInsyncReplicasIsDerived(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		factor int16
		min    int
		want   string
	}{{0, 0, ""}, {1, 0, "1"}, {2, 0, "1"}, {3, 0, "2"}, {5, 0, "2"}, {5, 3, "3"}, {0, 2, "2"}} {
		l := layout()
		l.ReplicationFactor, l.MinInsyncReplicas = c.factor, c.min
		if got := l.Specs()[0].Configs["min.insync.replicas"]; got != c.want {
			t.Errorf("replication factor %d, min in-sync %d: got min.insync.replicas %q, want %q", c.factor, c.min, got, c.want)
		}
	}
}

func TestExternalCategoriesAloneNeedNoIngest(t *testing.T) {
	t.Parallel()
	l := topics.Layout{Namespace: "a", Categories: []topics.Category{{Name: "mailer", Mode: topics.ModeExternal}}}
	for _, s := range l.Specs() {
		if s.Role == topics.RoleDeadLetters || s.Role == topics.RoleEvents {
			t.Errorf("topic %s: want none of its role for external categories", s.Name)
		}
	}
}

func TestValidateNamesTheFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*topics.Layout)
		want   string
	}{
		"namespace in capitals":       {func(l *topics.Layout) { l.Namespace = "Acme" }, `namespace "Acme"`},
		"namespace of 16":             {func(l *topics.Layout) { l.Namespace = strings.Repeat("a", 16) }, "up to 14"},
		"namespace empty":             {func(l *topics.Layout) { l.Namespace = "" }, `namespace ""`},
		"namespace with a line break": {func(l *topics.Layout) { l.Namespace = "a\n" }, "namespace"},
		"category reserved":           {func(l *topics.Layout) { l.Categories[0].Name = "dlq" }, "reserved"},
		"category of a system view":   {func(l *topics.Layout) { l.Categories[0].Name = "letters" }, "reserved"},
		"category of our own schemas": {func(l *topics.Layout) { l.Categories[0].Name = "foldstream" }, "reserved"},
		"category of 32":              {func(l *topics.Layout) { l.Categories[0].Name = strings.Repeat("a", 32) }, "up to 30"},
		"category twice":              {func(l *topics.Layout) { l.Categories[1].Name = "invoice" }, "named twice"},
		"mode unknown":                {func(l *topics.Layout) { l.Categories[0].Mode = "raw" }, "want decider, append or external"},
		"partitions below zero":       {func(l *topics.Layout) { l.Categories[0].Partitions = -1 }, "-1 partitions"},
		"partitions beyond the limit": {func(l *topics.Layout) { l.DefaultPartitions = 10_001 }, "default partitions 10001"},
		"retention in nanoseconds":    {func(l *topics.Layout) { l.Categories[0].Retention = 7 }, "an hour or more"},
		"saga reserved":               {func(l *topics.Layout) { l.Sagas[0] = "audit" }, "reserved"},
		"saga twice":                  {func(l *topics.Layout) { l.Sagas = []string{"a", "a"} }, "named twice"},
		"consumer of a reserved view": {func(l *topics.Layout) { l.Consumers[0] = "view.dlq.v1" }, "reserved"},
		"consumer without version":    {func(l *topics.Layout) { l.Consumers[0] = "view.x" }, "want ingest, view.<name>.v<N>"},
		"consumer of version zero":    {func(l *topics.Layout) { l.Consumers[0] = "view.x.v0" }, "want ingest, view.<name>.v<N>"},
		"consumer unknown":            {func(l *topics.Layout) { l.Consumers[0] = "ingest2" }, `consumer "ingest2"`},
		"min in-sync unreachable":     {func(l *topics.Layout) { l.ReplicationFactor, l.MinInsyncReplicas = 2, 3 }, "nothing could be written"},
		"names that brokers mix up":   {func(l *topics.Layout) { l.Categories[0].Name = "saga_remind" }, "differ only in '.' and '_'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := layout()
			c.change(&l)
			err := l.Validate()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func TestValidateJoinsAllFaults(t *testing.T) {
	t.Parallel()
	l := topics.Layout{Namespace: "X", Categories: []topics.Category{{Name: "Y", Mode: "z"}}, Sagas: []string{"Q"}}
	err := l.Validate()
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{`"X"`, `"Y"`, `"z"`, `"Q"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s too", err, want)
		}
	}
}

func TestSystemViewsHaveDeadLetterTopics(t *testing.T) {
	layout := topics.Layout{
		Namespace: "acme", DefaultPartitions: 3, ReplicationFactor: 1,
		Categories: []topics.Category{{Name: "invoice", Mode: topics.ModeAppend}},
		Consumers:  []string{topics.ConsumerView("events", 1), topics.ConsumerView("snapshots", 1)},
	}
	if err := layout.Validate(); err != nil {
		t.Fatalf("Validate: got %v, want nil", err)
	}
	var names []string
	for _, s := range layout.Specs() {
		names = append(names, s.Name)
	}
	for _, want := range []string{"acme.dlq.view.events.v1", "acme.dlq.view.snapshots.v1"} {
		if !slices.Contains(names, want) {
			t.Errorf("topics: got %v, want %s among them", names, want)
		}
	}
}
