package declared

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

const head = "view: v\nversion: 1\ncolumns: {total: bigint, note: {type: text, nullable: true}, tags: 'text[]', doc: jsonb, at: timestamptz, name: text}\non:\n"

func TestFaultsNameTheirPlaceAndWhatToWrite(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string // each in one fault
	}{
		"unknown event type":          {head + "  invoice.Isued: {set: {total: 1}}", []string{`v.yaml:5:3: event type "invoice.Isued" has no schema: did you mean invoice.Issued?`}},
		"type without its category":   {head + "  Issued: {set: {total: 1}}", []string{`v.yaml:5:3: event type "Issued" has no schema: write invoice.Issued`}},
		"a command":                   {head + "  invoice.Pay: {set: {total: 1}}", []string{`v.yaml:5:3: invoice.Pay is of kind command, and a view folds events: did you mean invoice.Paid?`}},
		"unknown version":             {head + "  invoice.Issued@9: {set: {total: 1}}", []string{`v.yaml:5:3: invoice.Issued has no version 9: write invoice.Issued for the latest, which is version 2`}},
		"a field of a later version":  {head + "  invoice.Issued@1: {set: {note: event.note}}", []string{`v.yaml:5:40: "event.note": event invoice.Issued has no field "note": `}},
		"unknown field":               {head + "  invoice.Issued: {set: {total: event.totl}}", []string{`v.yaml:5:39: "event.totl": event invoice.Issued has no field "totl": did you mean total?`}},
		"unknown nested field":        {head + "  invoice.Issued: {set: {note: event.address.cty}}", []string{`invoice.Issued.Address has no field "cty": did you mean city?`}},
		"unknown column":              {head + "  invoice.Issued: {set: {totl: event.total}}", []string{`v.yaml:5:26: there is no column "totl": did you mean total?`}},
		"unknown column of the row":   {head + "  invoice.Issued: {set: {total: row.totl + 1}}", []string{`the row has no field "totl": did you mean total?`}},
		"unknown of meta":             {head + "  invoice.Issued: {set: {at: meta.tim}}", []string{`meta has no field "tim": did you mean time?`}},
		"wrong type":                  {head + "  invoice.Issued: {set: {total: event.customer}}", []string{`v.yaml:5:33: column total is bigint and wants an int, but "event.customer" is of type string: write int(event.customer), or choose another column type`}},
		"double for an int":           {head + "  invoice.Issued: {set: {total: 1.5}}", []string{`"1.5" is of type double: write int(1.5)`}},
		"duration":                    {head + "  invoice.Issued: {set: {total: meta.time - row.at}}", []string{`is of type duration: write millis(meta.time - row.at) for its milliseconds`}},
		"optional":                    {head + "  invoice.Issued: {set: {note: \"event.?note\"}}", []string{`end it with .orValue(…)`}},
		"null for not null":           {head + "  invoice.Issued: {set: {total: null}}", []string{`give the column nullable: true, or set a value`}},
		"nullable field for not null": {head + "  invoice.Issued: {set: {total: event.dueDays}}", []string{`v.yaml:5:33: column total is not nullable, but event.dueDays may be null: give the column nullable: true, or write has(event.dueDays) ? event.dueDays : 0`}},
		"a text without quotes":       {head + "  invoice.Issued: {set: {note: open}}", []string{`v.yaml:5:32: "open": "open" is unknown: a text stands in quotes of its own: "'open'"`}},
		"a field without event":       {head + "  invoice.Issued: {set: {total: total * 2}}", []string{`"total" is unknown: write event.total`}},
		"a clock":                     {head + "  invoice.Issued: {set: {at: now()}}", []string{`"now" is unknown: a view has no clock and no chance; write meta.time`}},
		"mixed types":                 {head + "  invoice.Issued: {when: event.total > 1.5, set: {total: 1}}", []string{`> does not take (int, double): make both sides one type`}},
		"no bool":                     {head + "  invoice.Issued: {when: event.total, set: {total: 1}}", []string{`when is of type int, want bool`}},
		"syntax":                      {head + "  invoice.Issued: {set: {total: event.total +}}", []string{`v.yaml:5:46: "event.total +": Syntax error`}},
		"several lines":               {head + "  invoice.Issued:\n    set:\n      total: |\n        1 +\n        event.totl", []string{`v.yaml:9: "1 +\nevent.totl": event invoice.Issued has no field "totl": did you mean total?`}},
		"quoted":                      {head + "  invoice.Issued: {set: {total: \"event.totl\"}}", []string{`v.yaml:5:40: `}},
		"two in one file":             {head + "  invoice.Issued: {set: {total: event.totl, note: event.nte}}\n  invoice.Voidd: {set: {total: 1}}", []string{`invoice.Voidd`}},
		"all of a file":               {head + "  invoice.Issued: {set: {total: event.totl, note: event.nte}}\n  invoice.Paid: {set: {nme: 'x'}}", []string{`"totl"`, `"nte"`, `"nme"`}},
		"key not the stream":          {head[:len(head)-len("on:\n")] + "key: {customer: event.customer}\non:\n  invoice.Issued: {set: {total: 1}}", []string{`v.yaml:4:17: the key of an entity view is the stream, not "event.customer"`}},
		"column type":                 {strings.Replace(head, "total: bigint", "total: varchar", 1) + "  invoice.Issued: {set: {total: 1}}", []string{`v.yaml:3:18: column total: type "varchar" is unknown: write text`}},
		"column name":                 {strings.Replace(head, "total: bigint", "Total: bigint", 1) + "  invoice.Issued: {set: {note: null}}", []string{`column "Total": want a name of`}},
		"reserved column":             {strings.Replace(head, "total: bigint", "version: bigint", 1) + "  invoice.Issued: {set: {note: null}}", []string{`column version: the view has this column by itself`}},
		"reserved view":               {strings.Replace(head, "view: v\n", "view: events\n", 1) + "  invoice.Issued: {set: {total: 1}}", []string{`v.yaml:1:7: view "events": the name is reserved for the system`}},
		"source":                      {strings.Replace(head, "view: v\n", "view: v\nsource: invoices\n", 1) + "  invoice.Issued: {set: {total: 1}}", []string{`v.yaml:2:9: source "invoices": the project has no schema of such a category: did you mean invoice?`, `invoice.Issued is not of source invoices`}},
		"two sources":                 {head + "  invoice.Issued: {set: {total: 1}}\n  parcel.Shipped: {set: {total: 2}}", []string{`an entity row is fed by one stream, but the sources are invoice, parcel`}},
		"unknown key":                 {head + "  invoice.Issued: {sett: {total: 1}}", []string{`v.yaml:5:20: on invoice.Issued: key "sett" is unknown: did you mean set?`}},
		"twice":                       {head + "  invoice.Issued: {set: {total: 1}}\n  invoice.Issued: {set: {total: 1}}", []string{`v.yaml:6:3: on: key "invoice.Issued" stands in line 5 already`}},
		"nothing to do":               {head + "  invoice.Issued: {}", []string{`on invoice.Issued does nothing`}},
		"changed twice":               {head + "  invoice.Issued: {set: {total: 1}, add: {total: 1}}", []string{`column total is changed by set already`}},
		"add to a text":               {head + "  invoice.Issued: {add: {name: 1}}", []string{`add wants a number, column name is text`}},
		"append to a number":          {head + "  invoice.Issued: {append: {total: 1}}", []string{`append wants a list, column total is bigint`}},
		"by and set":                  {head + "  invoice.Issued: {append: {doc: {value: \"{'a': 1}\", by: a}}}\n  invoice.Paid: {set: {doc: \"[{'a': 1}]\"}}", []string{`column doc is kept in order by a, so it is filled by append alone`}},
		"delete and more":             {head + "  invoice.Issued: {delete: true, set: {total: 1}}", []string{`delete: true deletes the row`}},
		"missing":                     {"view: v\n", []string{"version is missing", "columns is missing", "on is missing"}},
		"no mapping":                  {"- a", []string{"v.yaml:1:1: want a mapping, got a list"}},
		"no YAML":                     {"view: v\n  x: : :", []string{"v.yaml:2: "}},
		"two documents":               {head + "  invoice.Issued: {set: {total: 1}}\n---\na: 1", []string{"more than one YAML document"}},
		"set in a metric view":        {metric("set: {n: 1}"), []string{"set does not commute: events of different streams reach a metric view in any order: write add, min or max"}},
		"two merges":                  {metric("add: {n: 1}}\n  invoice.Issued: {max: {n: 1}"), []string{"add and max together do not commute"}},
		"row in a metric view":        {metric("add: {n: row.n}"), []string{`"row" is unknown`}},
		"metric without key":          {strings.Replace(metric("add: {n: 1}"), "key: {day: meta.time}\n", "", 1), []string{"a metric view needs a key"}},
		"unused measure":              {strings.Replace(metric("add: {n: 1}"), "{n: bigint}", "{n: bigint, m: bigint}", 1), []string{"column m is never used"}},
		"sum of texts":                {strings.Replace(metric("add: {n: 'x'}"), "{n: bigint}", "{n: text}", 1), []string{"column n is added to, and is text"}},
		"key of an append view":       {"view: v\nversion: 1\nkind: append\nkey: stream.id\ncolumns: {n1: bigint}\non: {invoice.Paid: {append: {n1: 1}}}", []string{"an append view is keyed by the event"}},
		"set in an append view":       {"view: v\nversion: 1\nkind: append\ncolumns: {n1: bigint}\non: {invoice.Paid: {set: {n1: 1}}}", []string{"rows of an append view are never changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile("v.yaml", []byte(c.text), someTypes(t))
			if err == nil {
				t.Fatalf("it compiles:\n%s", c.text)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got:\n%v\nwant:\n%s", err, want)
				}
			}
			for _, f := range Faults(err) {
				if f.Line == 0 {
					t.Errorf("a fault has no line: %v", f)
				}
			}
		})
	}
}

func metric(rule string) string {
	return "view: v\nversion: 1\nkind: metric\nkey: {day: meta.time}\ncolumns: {n: bigint}\non:\n  invoice.Paid: {" + rule + "}"
}

func TestFilesOfAFolderAreCheckedTogether(t *testing.T) {
	t.Parallel()
	good := head + "  invoice.Issued: {set: {total: event.total}}"
	for name, c := range map[string]struct {
		files map[string]string
		views int
		want  []string
	}{
		"none":             {map[string]string{"other/v.v1.yaml": "x"}, 0, nil},
		"two versions":     {map[string]string{"views/v.v1.yaml": good, "views/v.v2.yaml": strings.Replace(good, "version: 1", "version: 2", 1), "views/README.md": "x"}, 2, nil},
		"wrong name":       {map[string]string{"views/v.yaml": good}, 0, []string{"views/v.yaml: the file's name does not say view and version: name it <view>.v<version>.yaml"}},
		"another view":     {map[string]string{"views/w.v1.yaml": good}, 0, []string{"views/w.v1.yaml:1: it declares version 1 of v: name the file v.v1.yaml"}},
		"test alone":       {map[string]string{"views/v.v1.test.yaml": "tests: []"}, 0, []string{"there is no view beside this test"}},
		"faults of two":    {map[string]string{"views/v.v1.yaml": "view: v", "views/w.v1.yaml": "view: w"}, 0, []string{"views/v.v1.yaml:1:1: ", "views/w.v1.yaml:1:1: "}},
		"too large a file": {map[string]string{"views/v.v1.yaml": strings.Repeat("#", FileBytesMax+1)}, 0, []string{"is larger than"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fsys := fstest.MapFS{}
			for file, text := range c.files {
				fsys[file] = &fstest.MapFile{Data: []byte(text)}
			}
			views, err := Load(fsys, "views", "", someTypes(t))
			if len(views) != c.views || (err == nil) != (c.want == nil) {
				t.Errorf("got %d views and error %v, want %d and faults %v", len(views), err, c.views, c.want)
			}
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

func TestLimitsHoldWhateverAliasesMultiply(t *testing.T) {
	t.Parallel()
	const many = 10_000
	var b strings.Builder
	b.WriteString("view: v\nversion: 1\ncolumns: {total: bigint}\non:\n  invoice.T0: &rules\n    - &rule\n      set: &set\n")
	for i := range many {
		fmt.Fprintf(&b, "        c%d: 1\n", i)
	}
	b.WriteString("    " + strings.Repeat("- *rule\n    ", RulesMax-1) + "\n")
	for i := 1; i < TypesMax; i++ {
		fmt.Fprintf(&b, "  invoice.T%d: *rules\n", i)
	}
	f := &faults{file: "v.yaml"}
	r := &reader{faults: f}
	root, ok := r.root([]byte(b.String()))
	if !ok {
		t.Fatal(f.err())
	}
	d := r.definition(root)
	if r.expressions != ExpressionsMax+1 {
		t.Errorf("read %d expressions, want to stop behind %d", r.expressions, ExpressionsMax)
	}
	if len(d.on) != 1 || len(d.on[0].rules) != 1 {
		t.Errorf("read on with %d types, want one with one rule", len(d.on))
	}
	if len(f.all) != 1 || !strings.Contains(f.all[0].Problem, "more than 2000 expressions") {
		t.Errorf("got %v, want the one fault", f.err())
	}
}
