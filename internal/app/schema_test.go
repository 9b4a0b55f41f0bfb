package app_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/foldstream/foldstream/internal/app"
	"github.com/foldstream/foldstream/internal/registry"
	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
)

// withFile is a project with one file more, or another one in its place.
func withFile(name, content string) app.Program {
	files := appendProject("")
	files["schemas/invoice/"+name] = &fstest.MapFile{Data: []byte(content)}
	return app.Program{Name: "shop", Project: files}
}

func TestSchemaDiffTellsWhatIsNotRegisteredAsItIsHere(t *testing.T) {
	t.Parallel()
	withNote := strings.Replace(issued, `}]}`, `}, {"name": "note", "type": "string", "default": ""}]}`, 1)
	for _, kafka := range testkit.Kafkas(t) {
		t.Run(kafka.Name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t)}
			run := func(p app.Program, words ...string) result { return call(t.Context(), p, append(words, args...)...) }
			diff := func(p app.Program, words ...string) []registry.Difference {
				t.Helper()
				var out []registry.Difference
				decode(t, run(p, append([]string{"schema", "diff", "-o", "json"}, words...)...), &out)
				return out
			}
			p := app.Program{Name: "shop", Project: appendProject("")}
			run(p, "schema", "diff").want(t, service.ExitNotFound, ".schemas")
			run(p, "topics", "apply").want(t, 0)

			before := diff(p, "invoice.Issued")
			if len(before) != 1 || before[0].State != registry.StateNew || before[0].Against != 0 {
				t.Errorf("before: got %+v, want the first version as new", before)
			}
			run(p, "schema", "register").want(t, 0)
			equal := run(p, "schema", "diff", "-o", "json")
			equal.want(t, 0, "the registry has what the project has")
			if equal.stdout != "[]\n" {
				t.Errorf("equal: got %s, want an empty list", equal.stdout)
			}

			next := diff(withFile("Issued.v2.avsc", withNote))
			if len(next) != 1 || len(next[0].Changes) != 1 || next[0].Changes[0] != (registry.Change{Path: "invoice.Issued.note", Kind: registry.ChangeAdded, To: "string", Default: `""`}) {
				t.Errorf("a field more: got %+v", next)
			}
			breaking := run(withFile("Issued.v2.avsc", strings.Replace(issued, `"long"`, `"string"`, 1)), "schema", "diff")
			breaking.want(t, service.ExitConflict, "invoice.Issued: version 2 cannot read what an earlier one wrote")
			for _, line := range []string{
				"invoice.Issued  2        new    invoice.Issued.total  type: string, was long",
				"invoice.Issued  2        new    invoice.Issued.total  cannot read version 1: changes from long to string",
				"invoice.Issued  2        new    invoice.Issued.total  cannot be read by version 1: changes from string to long",
			} {
				if !strings.Contains(breaking.stdout, line) {
					t.Errorf("a type that changes: got\n%s\nwant the line\n%s", breaking.stdout, line)
				}
			}
			changed := withFile("Issued.v1.avsc", withNote)
			run(changed, "schema", "diff", "invoice.Issued").want(t, service.ExitConflict, "version 1 is registered with another text")
			run(changed, "schema", "diff", "invoice.Cancelled").want(t, 0)
			run(changed, "schema", "diff", "invoice.Paid").want(t, service.ExitNotFound, `type "invoice.Paid" is neither in the project nor registered`)
			run(changed, "schema", "diff", "a", "b").want(t, service.ExitUsage)

			run(withFile("Paid.v1.avsc", strings.ReplaceAll(issued, "Issued", "Paid")), "schema", "register").want(t, 0)
			missing := run(p, "schema", "diff", "-o", "yaml")
			missing.want(t, 0)
			if !strings.HasPrefix(missing.stdout, "- type: invoice.Paid\n  version: 1\n  state: missing\n") {
				t.Errorf("registered by somebody else: got %s", missing.stdout)
			}
		})
	}
}

// A project whose records are named by somebody else's rules says its types by fs.type.
func TestSchemasWithAForeignNameAreRegisteredUnderTheirType(t *testing.T) {
	t.Parallel()
	kafka := testkit.Kafkas(t)[0]
	args := []string{"--brokers", strings.Join(kafka.Seeds(), ","), "--namespace", testkit.Namespace(t), "-o", "json"}
	run := func(p app.Program, words ...string) result { return call(t.Context(), p, append(words, args...)...) }
	p := withFile("Sent.v1.avsc", `{"type": "record", "namespace": "com.acme.mail", "name": "MailSent", "fs.type": "invoice.Sent", "fields": [{"name": "to", "type": "string"}]}`)
	run(p, "schema", "check").want(t, 0)
	run(p, "topics", "apply").want(t, 0)
	run(p, "schema", "register").want(t, 0)
	if got := run(p, "schema", "list").stdout; !strings.Contains(got, `"invoice.Sent"`) {
		t.Errorf("list: got %s, want invoice.Sent in it", got)
	}
	run(p, "schema", "diff").want(t, 0, "the registry has what the project has")
}
