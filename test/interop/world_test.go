package interop

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/testkit"
)

const (
	namespace = "shop"
	startMax  = 60 * time.Second
	// clientMax bounds one run of a client.
	clientMax = 90 * time.Second
)

func TestMain(m *testing.M) { os.Exit(testkit.Main(m)) }

// world is a stack with the shop of examples/ on it, each a process as the README starts them.
type world struct {
	t         *testing.T
	bin, data string
	brokers   string // as clients take it: host:port, separated by commas
	http      string // the base address of the shop's services
	registry  string // what clients are given
	latest    bool   // clients find schemas by "latest": the other registry compares texts to the byte
	env       []string
	variables []string // that the README's blocks have set, as lines of shell
}

// newWorld starts all. registryURL is that of another registry, or "" for Foldstream's own.
func newWorld(t *testing.T, registryURL string) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("needs Apache Kafka, and clients in other languages")
	}
	require(t, "java", "openjdk-17-jdk-headless")
	require(t, "mvn", "maven")
	w := &world{t: t, bin: t.TempDir(), data: filepath.Join(t.TempDir(), ".shop"), env: environment()}
	w.build("foldstream", "./cmd/foldstream")
	w.build("shop", "./examples/shop")
	if registryURL != "" {
		w.env = append(w.env, "FOLDSTREAM_REGISTRY_URL="+registryURL)
	}
	addr := freeAddress(t)
	commands := startCommands(w.data, addr)
	w.start(commands[0][0], append(commands[0][1:], "--kafka", "jvm", "--ephemeral")...)
	w.awaitEndpoints(w.data)
	w.tool(commands[1]...)
	w.tool(commands[2]...)
	w.start(commands[3][0], commands[3][1:]...)
	w.http, w.registry, w.latest = "http://"+addr, registryURL, registryURL != ""
	if registryURL == "" {
		w.registry = w.http + "/registry"
	}
	w.awaitReady(w.http)
	return w
}

// startCommands are those of the README: a stack, the shop's topics, its schemas, its services.
func startCommands(data, addr string) [][]string {
	return [][]string{
		{"foldstream", "dev", "--services", "none", "--data-dir", data},
		{"shop", "topics", "apply", "--data-dir", data},
		{"shop", "schema", "register", "--data-dir", data},
		{"shop", "all", "--data-dir", data, "--http-addr", addr},
	}
}

// environment is this process's without its configuration of Foldstream and Postgres. Where
// server software is kept stays.
func environment() []string {
	keep := []string{devstack.EnvCache, devstack.EnvKafkaLibs, devstack.EnvPostgresBundle}
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return (strings.HasPrefix(name, "FOLDSTREAM_") || strings.HasPrefix(name, "PG")) && !slices.Contains(keep, name)
	})
}

func repository(t *testing.T) string {
	t.Helper()
	return absolute(t, filepath.Join("..", ".."))
}

func (w *world) build(name, pkg string) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), "go", "build", "-o", filepath.Join(w.bin, name), pkg)
	cmd.Dir = repository(w.t)
	output(w.t, cmd)
}

// command runs one of the programs in the repository, as the README says.
func (w *world) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(w.bin, program), args...)
	cmd.Dir, cmd.Env = repository(w.t), w.env
	return cmd
}

// tool runs a program to its good end.
func (w *world) tool(command ...string) {
	w.t.Helper()
	output(w.t, w.command(command[0], command[1:]...))
}

func (w *world) start(program string, args ...string) {
	w.t.Helper()
	testkit.StartProcess(w.t, func() *exec.Cmd { return w.command(program, args...) })
}

// awaitEndpoints waits until a stack has said where it listens, and notes its brokers.
func (w *world) awaitEndpoints(data string) devstack.Endpoints {
	w.t.Helper()
	var e devstack.Endpoints
	testkit.Await(w.t, "the stack is up", startMax, func(context.Context) bool {
		var err error
		e, err = devstack.ReadEndpoints(data)
		return err == nil
	})
	w.brokers = strings.Join(e.Brokers, ",")
	return e
}

func (w *world) awaitReady(base string) {
	w.t.Helper()
	testkit.Await(w.t, base+"/readyz answers 200", startMax, func(ctx context.Context) bool {
		answer, err := get(ctx, base+"/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

// getJSON reads a JSON document that must be there.
func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	answer, err := get(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: got status %d, want 200", url, answer.StatusCode)
	}
	if err := json.NewDecoder(answer.Body).Decode(into); err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
}

// freeAddress is free now; whoever takes it before its user makes that one's start fail.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) kafka(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(w.brokers, ",")...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
