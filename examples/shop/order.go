package main

import (
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/projection"
)

// The commands and events of an order, as in schemas/order.
type (
	// Place places an order.
	Place struct {
		Customer   string `avro:"customer"`
		TotalCents int64  `avro:"totalCents"`
	}
	// Placed tells that it was placed.
	Placed struct {
		Customer   string `avro:"customer"`
		TotalCents int64  `avro:"totalCents"`
	}
	// Cancel cancels it.
	Cancel struct {
		Reason string `avro:"reason"`
	}
	// Cancelled tells that it was cancelled.
	Cancelled struct {
		Reason string `avro:"reason"`
	}
)

// State is what decisions need to know of an order.
type State struct {
	Placed    bool `avro:"placed"`
	Cancelled bool `avro:"cancelled"`
}

// orders decides what may happen to an order.
var orders = decider.Spec[State]{
	Category: "order", StateVersion: 1,
	Types: decider.Types{
		decider.Command[Place]("order.Place", 1),
		decider.Command[Cancel]("order.Cancel", 1),
		decider.Event[Placed]("order.Placed", 1),
		decider.Event[Cancelled]("order.Cancelled", 1),
	},
	Decide: decide,
	Evolve: evolve,
}

func decide(s State, c decider.Message) (decider.Decision, error) {
	switch d := c.Data.(type) {
	case Place:
		switch {
		case s.Placed:
			return decider.Reject("exists", "order already placed")
		case d.TotalCents <= 0:
			return decider.Rejectf("total", "total is %d cents, want more than 0", d.TotalCents)
		}
		return decider.Emit(Placed(d))
	case Cancel:
		switch {
		case !s.Placed:
			return decider.Reject("missing", "there is no such order")
		case s.Cancelled:
			return decider.Emit()
		}
		return decider.Emit(Cancelled(d))
	}
	return decider.Rejectf("type", "orders do not understand %s", c.Type)
}

func evolve(s State, e decider.Message) State {
	switch e.Data.(type) {
	case Placed:
		s.Placed = true
	case Cancelled:
		s.Cancelled = true
	}
	return s
}

// Order is a row of the view shop.orders.
type Order struct {
	Customer   string `db:"customer"`
	TotalCents int64  `db:"total_cents"`
	Status     string `db:"status"`
}

// orderList has a row per order.
func orderList() projection.View {
	return projection.Entity(projection.EntitySpec[Order]{
		Name: "orders", Version: 1, Key: "order_id", Fold: foldOrder,
		On: []codec.TypeDef{projection.On[Placed]("order.Placed", 1), projection.On[Cancelled]("order.Cancelled", 1)},
	})
}

func foldOrder(o Order, _ bool, e projection.Event) (Order, projection.Change, error) {
	switch d := e.Data.(type) {
	case Placed:
		return Order{Customer: d.Customer, TotalCents: d.TotalCents, Status: "open"}, projection.Set, nil
	case Cancelled:
		o.Status = "cancelled"
		return o, projection.Set, nil
	}
	return o, projection.Keep, nil
}
