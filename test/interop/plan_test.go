package interop

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/pkg/topics"
)

const (
	categoryInvoice = "invoice" // append mode
	categoryOrder   = "order"   // decided in Go

	// someTime is business time, in microseconds of Unix time; its text is someTimeText.
	someTime     = 1767225600123456
	someTimeText = "2026-01-01T00:00:00.123456Z"

	// carried is a header that Foldstream does not know.
	carried = "x-client"
	// invoices are as many streams as make a wrong partitioner show.
	invoices = 8
)

// plan is what a client is handed as one JSON document; clients/README.md says what it does.
type plan struct {
	Brokers     string            `json:"brokers"`
	Registry    string            `json:"registry"`
	Latest      bool              `json:"latest"`      // find schemas by "latest", not by their text
	Partitioner string            `json:"partitioner"` // "" means the library's own
	Group       string            `json:"group"`       // prefix of consumer groups
	Prefix      string            `json:"prefix"`      // of the keys that are the client's
	Replies     string            `json:"replies"`     // topic
	Topics      []string          `json:"topics"`      // to read
	Schemas     map[string]string `json:"schemas"`     // text by type, as a client's own files
	Steps       []step            `json:"steps"`
}

// step is one request, and what must be answered.
type step struct {
	Name     string            `json:"name"`
	Topic    string            `json:"topic"`
	Key      string            `json:"key"`
	Headers  map[string]string `json:"headers"`
	Answered bool              `json:"answered"`
	Type     string            `json:"type,omitempty"`
	Data     map[string]any    `json:"data,omitempty"`
	Events   []item            `json:"events,omitempty"` // a foldstream.Append
	Raw      string            `json:"raw,omitempty"`    // the value, in hex, instead of Avro

	want    want
	replyTo string // the key of the answer
}

type item struct {
	Type string         `json:"type"`
	ID   string         `json:"id"`
	Time int64          `json:"time"`
	Data map[string]any `json:"data"`
}

// want is an answer as the wire format promises it.
type want struct {
	outcome     string
	first, last int64
	actual      int64
	code        string
}

func accepted(first, last int64) want  { return want{outcome: "accepted", first: first, last: last} }
func duplicate(first, last int64) want { return want{outcome: "duplicate", first: first, last: last} }
func conflict(actual int64) want       { return want{outcome: "conflict", actual: actual} }
func rejected(code string) want        { return want{outcome: "rejected", code: code} }
func invalid(code string) want         { return want{outcome: "invalid", code: code} }

// newPlan is every kind of request, by one client. Its keys and ids begin with the client's name.
func newPlan(t *testing.T, w *world, client client) *plan {
	t.Helper()
	p := &plan{
		Brokers: w.brokers, Registry: w.registry, Latest: w.latest, Partitioner: client.partitioner, Group: "interop-" + client.name,
		Prefix: client.name + "/", Replies: topics.Replies(namespace), Schemas: map[string]string{},
		Topics: []string{topics.Events(namespace, categoryInvoice), topics.Events(namespace, categoryOrder)},
	}
	for _, name := range []string{"invoice.Issued", "invoice.Paid", "order.Place", "order.Cancel"} {
		category, record, _ := strings.Cut(name, ".")
		p.Schemas[name] = readFile(t, filepath.Join(repository(t), "examples/shop/schemas", category, record+".v1.avsc"))
	}
	b := builder{plan: p}
	b.appends()
	b.commands()
	b.faults()
	return p
}

// builder adds steps.
type builder struct{ plan *plan }

func issued(total int) map[string]any {
	return map[string]any{"customer": "Zoë", "total": total, "currency": "EUR", "dueAt": someTime}
}

func paid(amount int) map[string]any {
	return map[string]any{"amount": amount, "method": "card", "reference": ""}
}

func place(total int) map[string]any { return map[string]any{"customer": "Zoë", "totalCents": total} }

// appends are ready events, alone and several as one.
func (b *builder) appends() {
	for i := range invoices {
		name := fmt.Sprintf("issue-%d", i)
		s := b.bare(name, name, fmt.Sprintf("invoice-%d", i), "invoice.Issued", "none", issued(100+i), accepted(1, 1))
		s.Headers[event.HeaderTime] = someTimeText
		s.Headers[event.HeaderReplyKey], s.replyTo = b.plan.Prefix, b.plan.Prefix
	}
	both := []item{
		{Type: "invoice.Paid", ID: b.plan.Prefix + "paid-in-part", Time: someTime, Data: paid(40)},
		{Type: "invoice.Paid", Data: paid(60)},
	}
	b.several("pay", "pay", "invoice-0", "1", both, accepted(2, 3))
	b.several("pay-again", "pay", "invoice-0", "1", both, duplicate(2, 3))
	b.bare("pay-late", "pay-late", "invoice-0", "invoice.Paid", "1", paid(1), conflict(3))
	b.bare("pay-more", "pay-more", "invoice-0", "invoice.Paid", "exists", paid(1), accepted(4, 4))
	b.bare("pay-none", "pay-none", "nothing", "invoice.Paid", "exists", paid(1), conflict(0))
}

// commands are decided. One is sent without asking for an answer; the same id sent again finds
// its outcome.
func (b *builder) commands() {
	b.command("place", "place", "order-0", "order.Place", "none", place(300), accepted(1, 1))
	b.command("place-again", "place", "order-0", "order.Place", "none", place(300), duplicate(1, 1))
	b.command("place-twice", "place-twice", "order-0", "order.Place", "any", place(300), rejected("exists"))
	b.command("place-nothing", "place-nothing", "order-1", "order.Place", "any", place(0), rejected("total"))
	b.command("cancel-early", "cancel-early", "order-0", "order.Cancel", "7", map[string]any{"reason": "?"}, conflict(1))
	b.command("cancel", "cancel", "order-0", "order.Cancel", "1", map[string]any{"reason": "late"}, accepted(2, 2))
	b.command("cancel-cancelled", "cancel-cancelled", "order-0", "order.Cancel", "any", map[string]any{"reason": "late"}, accepted(0, 0))

	forgotten := b.command("forget", "forgotten", "order-2", "order.Place", "any", place(5), want{})
	forgotten.Answered = false
	delete(forgotten.Headers, event.HeaderReplyTo)
	b.command("look-up", "forgotten", "order-2", "order.Place", "any", place(5), duplicate(1, 1))
}

// faults are requests that nobody could take.
func (b *builder) faults() {
	b.bare("other-content", "issue-0", "invoice-0", "invoice.Issued", "none", issued(999), invalid("id-reused"))
	noise := b.bare("noise", "noise", "invoice-0", "invoice.Paid", "any", nil, invalid("frame"))
	noise.Raw = "ffff"
	b.bare("wrong-type", "wrong-type", "invoice-0", "invoice.Paid", "any", paid(1), invalid("type-mismatch")).Headers[event.HeaderType] = "invoice.Issued"
	b.command("no-command", "no-command", "order-0", "order.Placed", "any", place(1), invalid("kind"))
	b.bare("no-version", "no-version", "invoice-0", "invoice.Paid", "latest", paid(1), invalid("header"))
}

func (b *builder) bare(name, id, key, recordType, expected string, data map[string]any, w want) *step {
	s := b.add(categoryInvoice, name, id, key, recordType, expected, w)
	s.Data = data
	return s
}

func (b *builder) command(name, id, key, recordType, expected string, data map[string]any, w want) *step {
	s := b.add(categoryOrder, name, id, key, recordType, expected, w)
	s.Data = data
	return s
}

func (b *builder) several(name, id, key, expected string, events []item, w want) {
	b.add(categoryInvoice, name, id, key, "foldstream.Append", expected, w).Events = events
}

func (b *builder) add(category, name, id, key, recordType, expected string, w want) *step {
	id = b.plan.Prefix + id
	b.plan.Steps = append(b.plan.Steps, step{
		Name: name, Topic: topics.Commands(namespace, category), Key: b.plan.Prefix + key, Answered: true, Type: recordType, want: w, replyTo: id,
		Headers: map[string]string{
			event.HeaderID: id, event.HeaderType: recordType, event.HeaderExpectedVersion: expected,
			event.HeaderReplyTo: topics.Replies(namespace), event.HeaderAttempt: strconv.Itoa(len(b.plan.Steps) + 1),
			carried: b.plan.Group,
		},
	})
	return &b.plan.Steps[len(b.plan.Steps)-1]
}
