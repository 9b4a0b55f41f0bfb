package testkit

import (
	"os"
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { os.Exit(MainNoLeaks(m)) }

func TestEveryKafkaStoresARecord(t *testing.T) {
	for _, k := range Kafkas(t) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			topic := Namespace(t) + ".t"
			k.CreateTopic(t, topic, 1, map[string]string{"retention.ms": "-1"})
			record := &kgo.Record{Topic: topic, Value: []byte("v")}
			if err := k.Client(t).ProduceSync(t.Context(), record).FirstErr(); err != nil {
				t.Fatalf("produce: %v", err)
			}
			fetches := k.Client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())).
				PollFetches(t.Context())
			if got := fetches.Records(); len(got) != 1 || string(got[0].Value) != "v" {
				t.Errorf("read %d records (%v), want the one", len(got), fetches.Errors())
			}
		})
	}
}

func TestKafkasAreShared(t *testing.T) {
	first, second := Kafkas(t), Kafkas(t)
	if first[0].Name != Kfake {
		t.Errorf("the first broker is %s, want %s", first[0].Name, Kfake)
	}
	for i := range first {
		if first[i].Seeds()[0] != second[i].Seeds()[0] {
			t.Errorf("%s is at %s, then at %s", first[i].Name, first[i].Seeds()[0], second[i].Seeds()[0])
		}
	}
}

func TestEveryPostgresGivesDatabasesOfTheirOwn(t *testing.T) {
	for _, p := range Postgreses(t) {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			dsn := p.NewDatabase(t)
			other := p.NewDatabase(t)
			execute(t, dsn, "CREATE TABLE mine (n int)")
			execute(t, other, "CREATE TABLE mine (n int)") // fails where it is the same database
		})
	}
}

func TestADatabaseIsDroppedWithItsConnections(t *testing.T) {
	p := Postgreses(t)[0]
	var dsn string
	t.Run("use", func(t *testing.T) {
		dsn = p.NewDatabase(t)
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatalf("connect: %v", err)
		}
		t.Cleanup(func() { _ = conn.Close(t.Context()) }) // the server has cut it by then
	})
	if conn, err := pgx.Connect(t.Context(), dsn); err == nil {
		_ = conn.Close(t.Context())
		t.Errorf("the database is still there after its test")
	}
}

func TestNamespacesAreValidAndDiffer(t *testing.T) {
	valid := regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	seen := map[string]bool{}
	for range 100 {
		ns := Namespace(t)
		if !valid.MatchString(ns) || seen[ns] {
			t.Fatalf("namespace %q is invalid or came twice", ns)
		}
		seen[ns] = true
	}
}

func execute(t *testing.T, dsn, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
