package declared

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

func TestTheExampleOfTheDesignFolds(t *testing.T) {
	t.Parallel()
	passes(t, `{view: invoice_list, version: 1, source: invoice, key: stream.id, columns: {total: bigint, status: text},
 on: {invoice.Issued: {set: {total: event.total, status: "'open'"}}, invoice.Paid: {set: {status: "'paid'"}}}}`, `
tests:
  - name: issued and paid
    given:
      - {type: invoice.Issued, stream: i1, data: {total: 300, customer: Ada}}
      - {type: invoice.Issued, stream: i2, schema: 1, data: {total: 7, customer: Bob}}
      - {type: invoice.Paid, stream: i1}
      - {type: invoice.Voided, stream: i2}
    then:
      - {id: i1, total: 300, status: paid, version: 2}
      - {id: i2, total: 7, status: open, version: 2}
  - name: a row without its beginning holds defaults
    given:
      - {type: invoice.Paid, stream: i1}
    then:
      - {id: i1, total: 0, status: paid, version: 1}
`)
}

func TestEntityRules(t *testing.T) {
	t.Parallel()
	passes(t, `
view: invoices
version: 1
key: {invoice: stream.id}
columns:
  customer: {type: text, index: true, search: true}
  note: {type: text, nullable: true}
  city: {type: text, nullable: true}
  due_days: {type: integer, nullable: true}
  rate: double precision
  price: text
  cents: bigint
  urgent: boolean
  due_at: {type: timestamptz, nullable: true}
  paid_at: timestamptz
  tags: text[]
  labels: jsonb
  whole: {type: jsonb, nullable: true}
  history: jsonb
  lines: jsonb
  first: {type: bigint, nullable: true}
  most: bigint
  waited_ms: bigint
  shout: text
indexes: [[customer, paid_at]]
on:
  invoice.Issued:
    - row: new
      set:
        customer: event.customer
        note: event.note
        city: event.address.city
        due_days: event.dueDays
        rate: event.rate
        price: event.price
        urgent: event.urgent
        due_at: event.dueAt
        tags: event.tags
        labels: event.labels
        whole: event.address
        shout: event.customer.upperAscii() + '!'
      append: {history: "{'at': meta.version, 'what': 'issued', 'urgent': event.urgent, 'tags': event.tags, 'to': event.address}"}
    - each: event.lines
      when: item.cents > 0
      append: {lines: {value: "{'sku': item.sku, 'cents': item.cents}", by: sku}}
      add: {cents: item.cents}
      min: {first: item.cents}
      max: {most: item.cents}
  invoice.Paid:
    - row: required
      when: event.cents >= row.cents
      set: {paid_at: meta.time, waited_ms: "millis(meta.time - row.paid_at)"}
    - row: required
      add: {cents: -event.cents}
      append: {tags: "'paid by ' + meta.user", history: "{'at': meta.version, 'what': 'paid', 'urgent': null, 'tags': [], 'to': null}"}
      delete: {lines: item.cents > event.cents}
  invoice.Voided:
    - when: event.why == 'gone'
      delete: true
    - when: row_exists && event.why != 'gone'
      delete: {tags: item == event.why, history: item.what == event.why}
`, `
tests:
  - name: everything is set
    given:
      - type: invoice.Issued
        stream: i1
        data: {total: 1, customer: Ada, note: hi, dueDays: 3, rate: 0.5, price: "12.30", urgent: true, dueAt: "2026-03-01T09:30:00.000001Z",
          tags: [b, a], labels: {y: "2", x: "1"}, address: {city: Rome, zip: null}, lines: [{sku: s2, cents: 5}, {sku: s1, cents: 7}, {sku: s0, cents: 0}, {sku: s2, cents: 6}]}
    then:
      - {invoice: i1, customer: Ada, note: hi, city: Rome, due_days: 3, rate: 0.5, price: "12.30", urgent: true, due_at: 2026-03-01T09:30:00.000001Z,
         tags: [b, a], labels: {x: "1", y: "2"}, whole: {city: Rome, zip: null}, cents: 18, first: 5, most: 7, shout: ADA!,
         lines: [{sku: s1, cents: 7}, {sku: s2, cents: 6}],
         history: [{at: 1, what: issued, urgent: true, tags: [b, a], to: {city: Rome, zip: null}}], paid_at: 0001-01-01T00:00:00Z}
  - name: what is null stays null
    given:
      - {type: invoice.Issued, stream: i1, data: {total: 1, customer: Ada}}
    then:
      - {invoice: i1, note: null, city: null, due_days: null, due_at: null, whole: null, first: null, most: 0, tags: [], lines: [], price: "0.00"}
  - name: a rule sees the row before it, the next rule sees what it made
    given:
      - {type: invoice.Issued, stream: i1, time: 2026-01-01T00:00:00Z, data: {total: 1, customer: Ada, tags: [x], lines: [{sku: a, cents: 2}, {sku: b, cents: 9}]}}
      - {type: invoice.Paid, stream: i1, time: 2026-01-01T00:00:01Z, user: Bob, data: {cents: 4}}
    then:
      - {invoice: i1, cents: 7, tags: [x, paid by Bob], lines: [{sku: a, cents: 2}], waited_ms: 0, paid_at: 0001-01-01T00:00:00Z, version: 2}
  - name: guards hold
    given:
      - {type: invoice.Issued, stream: i1, data: {total: 1, customer: Ada, tags: [x, y, x]}}
      - {type: invoice.Voided, stream: i1, data: {why: x}}
      - {type: invoice.Voided, stream: i1, data: {why: issued}}
    then:
      - {invoice: i1, tags: [y], history: [], version: 3}
  - name: a deleted row is gone, and may come again
    given:
      - {type: invoice.Issued, stream: i1, data: {total: 1, customer: Ada}}
      - {type: invoice.Voided, stream: i1, data: {why: gone}}
      - {type: invoice.Issued, stream: i2, data: {total: 1, customer: Bob}}
      - {type: invoice.Voided, stream: i2, data: {why: gone}}
      - {type: invoice.Issued, stream: i2, data: {total: 1, customer: Cem}}
    then:
      - {invoice: i2, customer: Cem, version: 3}
  - name: without a row, a rule that requires one parks the stream
    given:
      - {type: invoice.Paid, stream: i1}
      - {type: invoice.Voided, stream: i2, data: {why: x}}
      - {type: invoice.Issued, stream: i3, data: {total: 1, customer: "a\0b"}}
      - {type: invoice.Issued, stream: i4, data: {total: 1, customer: a, labels: {k: "a\0b"}}}
      - {type: invoice.Issued, stream: i5, data: {total: 1, customer: a, dueDays: 3000000000}}
      - {type: invoice.Issued, stream: i6, data: {total: 1, customer: a, lines: [{sku: a, cents: 9223372036854775807}, {sku: b, cents: 1}]}}
    then: []
    parked: {i1: "no row yet", i3: NUL, i4: NUL, i5: "out of range for integer", i6: "exceeds bigint"}
`)
}

func TestMetricRules(t *testing.T) {
	t.Parallel()
	passes(t, `
view: per_day
version: 1
kind: metric
key:
  day: truncate(meta.time, duration('24h'))
  sku: {type: text, value: "'none'"}
columns: {events: bigint, cents: bigint, rate: double precision, first_at: timestamptz, best: text}
on:
  invoice.Issued:
    - {add: {events: 1}, min: {first_at: meta.time}}
    - each: event.lines
      key: {sku: item.sku}
      add: {cents: item.cents, rate: 0.5}
      max: {best: event.note}
  invoice.Paid: {when: event.cents > 0, add: {cents: event.cents}}
  parcel.Shipped: {add: {events: 1}}
`, `
tests:
  - name: deltas join
    given:
      - {type: invoice.Issued, stream: i1, time: 2026-01-01T10:00:00Z, data: {total: 1, customer: a, note: x, lines: [{sku: p, cents: 3}, {sku: p, cents: 4}]}}
      - {type: invoice.Issued, stream: i2, time: 2026-01-01T09:00:00Z, data: {total: 1, customer: a}}
      - {type: invoice.Paid, stream: i2, time: 2026-01-01T09:00:00Z}
      - {type: invoice.Paid, stream: i2, time: 2026-01-02T09:00:00Z, data: {cents: 5}}
      - {type: parcel.Shipped, stream: p1, time: 2026-01-01T11:00:00Z, data: {invoice: i1}}
    then:
      - {day: 2026-01-01T00:00:00Z, sku: none, events: 3, cents: 0, rate: 0, first_at: 2026-01-01T09:00:00Z, best: null}
      - {day: 2026-01-01T00:00:00Z, sku: p, events: 0, cents: 7, rate: 1, first_at: null, best: x}
      - {day: 2026-01-02T00:00:00Z, sku: none, events: 0, cents: 5}
`)
}

func TestAppendRules(t *testing.T) {
	t.Parallel()
	passes(t, `
view: movements
version: 1
kind: append
columns: {account: text, cents: bigint, at: timestamptz, note: {type: text, nullable: true}}
on:
  invoice.Issued:
    each: event.lines
    append: {account: "event.customer + '/' + item.sku", cents: -item.cents, at: meta.time}
  invoice.Paid: [{append: {cents: event.cents}}, {when: event.cents > 5, append: {note: "'large'"}}]
`, `
tests:
  - name: rows of events
    given:
      - {type: invoice.Issued, stream: i1, time: 2026-01-01T10:00:00Z, data: {total: 1, customer: a, lines: [{sku: p, cents: 3}, {sku: q, cents: 4}]}}
      - {type: invoice.Paid, stream: i1, data: {cents: 7}}
    then:
      - {category: invoice, stream: i1, version: 1, n: 1, account: a/p, cents: -3, at: 2026-01-01T10:00:00Z, note: null}
      - {category: invoice, stream: i1, version: 1, n: 2, account: a/q, cents: -4}
      - {category: invoice, stream: i1, version: 2, n: 1, account: "", cents: 7, note: null}
      - {category: invoice, stream: i1, version: 2, n: 2, cents: 0, note: large}
`)
}

func TestARowThatIsBegunAfreshForgetsWhatItWas(t *testing.T) {
	t.Parallel()
	passes(t, `
view: fresh
version: 1
columns: {least: bigint, most: bigint, first_at: timestamptz, total: bigint, before: boolean, note: text}
on:
  invoice.Issued: {row: new, min: {least: event.total, first_at: meta.time}, max: {most: event.total}, add: {total: event.total}, set: {before: row_exists}}
  invoice.Paid: {min: {least: event.cents}, max: {most: event.cents}, set: {note: "'paid'"}}
`, `
tests:
  - name: issued twice
    given:
      - {type: invoice.Issued, stream: i1, time: 2026-03-01T00:00:00Z, data: {total: 5, customer: a}}
      - {type: invoice.Paid, stream: i1, data: {cents: 3}}
      - {type: invoice.Paid, stream: i1, data: {cents: 9}}
      - {type: invoice.Issued, stream: i1, time: 2026-03-02T00:00:00Z, data: {total: 7, customer: a}}
      - {type: invoice.Issued, stream: i2, data: {total: -4, customer: a}}
    then:
      - {id: i1, least: 7, most: 7, first_at: 2026-03-02T00:00:00Z, total: 7, before: false, note: ""}
      - {id: i2, least: -4, most: -4, total: -4, before: false}
`)
}

func TestEachOfNullIsNoItem(t *testing.T) {
	t.Parallel()
	const text = `{"type":"record","name":"Sent","namespace":"x","fields":[
	 {"name":"box","type":["null",{"type":"record","name":"Box","fields":[{"name":"lines","type":["null",{"type":"array","items":"string"}]}]}]}]}`
	schema, err := codec.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	types := NewTypes(Type{Name: "x.Sent", Version: 1, Kind: event.KindEvent, Schema: schema})
	results, err := Test(context.Background(), fstest.MapFS{
		"views/v.v1.yaml": {Data: []byte("view: v\nversion: 1\ncolumns: {names: 'text[]', sent: bigint}\non:\n  x.Sent:\n    - {each: event.box.lines, append: {names: item}}\n    - {add: {sent: 1}}")},
		"views/v.v1.test.yaml": {Data: []byte(`
tests:
  - name: null on the way, null, and some
    given:
      - {type: x.Sent, stream: s, data: {box: null}}
      - {type: x.Sent, stream: s, data: {box: {lines: null}}}
      - {type: x.Sent, stream: s, data: {box: {lines: [a, b]}}}
    then:
      - {id: s, names: [a, b], sent: 3}
`)},
	}, "views", "", types)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if !r.Passed() {
			t.Errorf("%s: %v", r.Name, r.Failures)
		}
	}
}

func TestAnErrorNamesItsColumnOnce(t *testing.T) {
	t.Parallel()
	results, err := runTests(t, `{view: once, version: 1, columns: {cents: bigint, lines: jsonb, tags: 'text[]'}, on: {
 invoice.Issued: {add: {cents: "event.lines[0].cents"}}, invoice.Paid: {append: {lines: "{'a': [1][event.cents]}"}}, invoice.Voided: {append: {tags: "['a'][size(event.why)]"}}}}`, `
tests:
  - name: at fault
    given:
      - {type: invoice.Issued, stream: i1, data: {total: 1, customer: a}}
      - {type: invoice.Paid, stream: i2, data: {cents: 5}}
      - {type: invoice.Voided, stream: i3, data: {why: long}}
    then: []
`)
	if err != nil {
		t.Fatal(err)
	}
	failures := results[0].Failures
	if len(failures) != 3 {
		t.Errorf("got %d failures, want 3: %v", len(failures), failures)
	}
	for _, text := range failures {
		if got := strings.Count(text, "column "); got != 1 {
			t.Errorf("names the column %d times: %s", got, text)
		}
	}
}
