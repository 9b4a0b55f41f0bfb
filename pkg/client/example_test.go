package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/client"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/deadletter"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/twmb/franz-go/pkg/kgo"
)

type Place struct {
	Item string `avro:"item"`
}

type Placed struct {
	Item string `avro:"item"`
}

var types = []codec.TypeDef{
	decider.Command[Place]("order.Place", 1),
	decider.Event[Placed]("order.Placed", 1),
}

type Order struct {
	Item string `avro:"item"`
}

var orders = decider.Spec[Order]{Category: "order", StateVersion: 1, Types: decider.Types(types)}

// Over HTTP.
func ExampleNew_http() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		URL:   "http://localhost:8080",
		Token: func() string { return os.Getenv("SHOP_TOKEN") },
		Types: types,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
}

// Over Kafka.
func ExampleNew_kafka() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Namespace: "shop",
		Kafka:     []kgo.Opt{kgo.SeedBrokers("localhost:9092")},
		Types:     types,
		Deciders:  []decider.Any{orders}, // for State
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
}

func ExampleClient_Append() {
	ctx, c := connect()
	stream := event.StreamID{Category: "order", ID: "o-17"}
	outcome, err := c.Append(ctx, stream, event.ExpectedNone,
		[]client.NewEvent{{Data: Placed{Item: "book"}}},
		client.WithID("place o-17"), client.WithUser("ann"))

	var conflict *client.ConflictError
	switch {
	case errors.As(err, &conflict):
		log.Printf("somebody was faster: the stream is at version %d", conflict.Actual)
	case errors.Is(err, client.ErrUnknownOutcome):
		log.Printf("not known; send it again under the same id: %v", err)
	case err != nil:
		log.Fatal(err)
	default:
		log.Printf("%s: versions %d to %d", outcome.Kind, outcome.First, outcome.Last)
	}
}

func ExampleClient_Append_json() {
	ctx, c := connect()
	stream := event.StreamID{Category: "order", ID: "o-17"}
	_, err := c.Append(ctx, stream, event.ExpectExactly(1), []client.NewEvent{{
		Type: "order.Placed", JSON: json.RawMessage(`{"item": "pen"}`),
		Metadata: map[string]string{"shop": "north"},
	}})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_Dispatch() {
	ctx, c := connect()
	stream := event.StreamID{Category: "order", ID: "o-18"}
	_, err := c.Dispatch(ctx, stream, Place{Item: "book"}, client.WithID("place o-18"))

	var rejected *client.RejectedError
	if errors.As(err, &rejected) && rejected.Code == "exists" {
		log.Print("the order is there already")
	}
}

func ExampleClient_DispatchAsync() {
	ctx, c := connect()
	var all []*client.Pending
	for i := range 1000 {
		stream := event.StreamID{Category: "order", ID: fmt.Sprint("o-", i)}
		all = append(all, c.DispatchAsync(stream, Place{Item: "book"}, client.WithID(fmt.Sprint("import ", i))))
	}
	if err := c.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	for _, p := range all {
		if err := p.Err(); err != nil {
			log.Printf("%s: %v", p.ID(), err)
		}
	}
}

func ExampleClient_Events() {
	ctx, c := connect()
	stream := event.StreamID{Category: "order", ID: "o-17"}
	for e, err := range c.Events(ctx, stream) {
		if err != nil {
			log.Fatal(err)
		}
		var placed Placed
		if err := e.Decode(&placed); err != nil {
			log.Fatal(err)
		}
		log.Printf("%d %s at %s: %s", e.Version, e.Type, e.Time, placed.Item)
	}
}

func ExampleClient_State() {
	ctx, c := connect()
	stream := event.StreamID{Category: "order", ID: "o-17"}
	yesterday, err := c.State(ctx, stream, client.At{Time: time.Now().AddDate(0, 0, -1)})
	if err != nil {
		log.Fatal(err)
	}
	var order Order
	if err := yesterday.Decode(&order); err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_Subscribe() {
	ctx, c := connect()
	err := c.Subscribe(ctx, client.Subscription{
		Name:     "mailer",
		Category: "order",
		Types:    []string{"order.Placed", "order.*Cancelled"},
		Handler: func(ctx context.Context, e client.Event) error {
			address, err := findAddress(ctx, e.Stream.ID)
			if err != nil {
				return err // tried again, then a letter
			}
			if address == "" {
				return deadletter.Parked(deadletter.StageHandle, "no-address", errors.New("the customer has no address"))
			}
			return send(ctx, address, e.ID) // e.ID makes the mail idempotent
		},
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleFromTime() {
	ctx, c := connect()
	err := c.Subscribe(ctx, client.Subscription{
		Name:     "mailer",
		Category: "order",
		Replay:   true,
		From:     client.FromTime(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)),
		Handler:  func(context.Context, client.Event) error { return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
}

// log stands for whatever a program logs with.
var log logger

type logger struct{}

func (logger) Print(text string)                 { fmt.Println(text) }
func (logger) Printf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (logger) Fatal(err error)                   { fmt.Println(err) }

func connect() (context.Context, *client.Client) { return context.Background(), nil }

func findAddress(context.Context, string) (string, error) { return "", nil }

func send(context.Context, string, string) error { return nil }

func TestTheExamplesOfTheDocumentStandHere(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/client.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, part := range strings.Split(string(page), "```go\n")[1:] {
		block, _, closed := strings.Cut(part, "```")
		if !closed {
			t.Fatal("a block of the page is not closed")
		}
		blocks++
		if !strings.Contains(string(source), block) && !strings.Contains(string(source), indented(block)) {
			t.Errorf("this block of docs/client.md is not compiled here:\n%s", block)
		}
	}
	if blocks < 5 {
		t.Errorf("got %d blocks, want the page's", blocks)
	}
}

func indented(block string) string {
	lines := strings.Split(block, "\n")
	for i, line := range lines {
		if line != "" {
			lines[i] = "\t" + line
		}
	}
	return strings.Join(lines, "\n")
}
