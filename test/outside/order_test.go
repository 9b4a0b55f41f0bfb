package main

import (
	"io/fs"
	"testing"
	"time"

	"github.com/foldstream/foldstream/pkg/decider/decidertest"
	"github.com/foldstream/foldstream/pkg/projection/projectiontest"
)

func scenario(t *testing.T) decidertest.Scenario[State] {
	t.Helper()
	schemas, err := fs.Sub(project, "schemas")
	if err != nil {
		t.Fatal(err)
	}
	return decidertest.New(t, orders, decidertest.Schemas(schemas))
}

func TestAnOrderIsPlacedOnce(t *testing.T) {
	t.Parallel()
	scenario(t).When(Place{Customer: "Ada", TotalCents: 300}).ThenEvents(Placed{Customer: "Ada", TotalCents: 300})
	scenario(t).Given(Placed{Customer: "Ada", TotalCents: 300}).When(Place{Customer: "Ada", TotalCents: 1}).ThenRejected("exists")
}

func TestAnOrderMustCostSomething(t *testing.T) {
	t.Parallel()
	scenario(t).When(Place{Customer: "Ada"}).ThenRejected("total")
}

func TestACancellationIsRepeatable(t *testing.T) {
	t.Parallel()
	placed := scenario(t).Given(Placed{Customer: "Ada", TotalCents: 300})
	placed.When(Cancel{Reason: "late"}).ThenEvents(Cancelled{Reason: "late"})
	placed.Given(Cancelled{Reason: "late"}).When(Cancel{Reason: "again"}).ThenNothing()
	scenario(t).When(Cancel{Reason: "late"}).ThenRejected("missing")
}

func TestOrdersView(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	events := []any{Placed{Customer: "Ada", TotalCents: 300}, Cancelled{Reason: "late"}}
	projectiontest.Given(t, orderList(),
		projectiontest.Of("order.Placed", "o-1", at, events[0]),
		projectiontest.Of("order.Cancelled", "o-1", at, events[1]),
	).Then(projectiontest.Row{"order_id": "o-1", "customer": "Ada", "total_cents": 300, "status": "cancelled", "version": 2})
}

func TestCustomersView(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	projectiontest.Given(t, customers(),
		projectiontest.Of("order.Placed", "o-1", at, Placed{Customer: "Ada", TotalCents: 300}),
		projectiontest.Of("order.Placed", "o-2", at, Placed{Customer: "Ada", TotalCents: 40}),
	).Then(projectiontest.Row{"customer": "Ada", "orders": 2, "total_cents": 340})
}
