package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
	"github.com/foldstream/foldstream/schemas/avro"
)

func project(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, content := range files {
		out[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return out
}

func TestSubmissionsReadAProjectInOrder(t *testing.T) {
	t.Parallel()
	got, err := Submissions(project(map[string]string{
		"schemas/order/Placed.v2.avsc":  text("order", "Placed", fieldID, fieldAmount),
		"schemas/order/Placed.v1.avsc":  text("order", "Placed", fieldID),
		"schemas/order/Placed.v10.avsc": text("order", "Placed", fieldID),
		"schemas/order/Placed.v3.avsc":  text("order", "Placed", fieldID), "schemas/order/Placed.v4.avsc": text("order", "Placed", fieldID),
		"schemas/order/Placed.v5.avsc": text("order", "Placed", fieldID), "schemas/order/Placed.v6.avsc": text("order", "Placed", fieldID),
		"schemas/order/Placed.v7.avsc": text("order", "Placed", fieldID), "schemas/order/Placed.v8.avsc": text("order", "Placed", fieldID),
		"schemas/order/Placed.v9.avsc":  text("order", "Placed", fieldID),
		"schemas/mailer/Send.v1.avsc":   plain("mailer", "Send", fieldID).Schema,
		"schemas/order/README.md":       "not a schema",
		"schemas/foldstream/X.v1.avsc":  strings.Replace(text("foldstream", "X", fieldID), "event", "system", 1),
		"elsewhere/order/Other.v1.avsc": "not below the folder",
	}), "schemas")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, fmt.Sprintf("%s v%d %s", s.Type, s.Version, s.Kind))
	}
	want := []string{"foldstream.X v1 system", "mailer.Send v1 "}
	for v := 1; v <= 10; v++ {
		want = append(want, fmt.Sprintf("order.Placed v%d event", v))
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

func TestSubmissionsNameFileFaultAndRemedy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, content, want string }{
		"no version":          {"s/order/Placed.avsc", text("order", "Placed"), "want <category>/<Name>.v<N>.avsc"},
		"version zero":        {"s/order/Placed.v0.avsc", text("order", "Placed"), "want <category>/<Name>.v<N>.avsc"},
		"no folder":           {"s/Placed.v1.avsc", text("order", "Placed"), "want <category>/<Name>.v<N>.avsc"},
		"folder too deep":     {"s/a/b/Placed.v1.avsc", text("a", "Placed"), "want <category>/<Name>.v<N>.avsc"},
		"category reserved":   {"s/dlq/Placed.v1.avsc", text("dlq", "Placed"), "reserved"},
		"category in capital": {"s/Order/Placed.v1.avsc", text("Order", "Placed"), "category"},
		"another name":        {"s/order/Placed.v1.avsc", text("order", "Paid"), "set namespace to the folder and name to the file's"},
		"another namespace":   {"s/order/Placed.v1.avsc", text("shop", "Placed"), `full name is "shop.Placed", its path says "order.Placed"`},
		"no JSON":             {"s/order/Placed.v1.avsc", "{", "does not parse"},
		"no record":           {"s/order/Placed.v1.avsc", `"string"`, "no record"},
		"kind unknown":        {"s/order/Placed.v1.avsc", strings.Replace(text("order", "Placed"), `"event"`, `"fact"`, 1), "want command, event, state or system"},
		"first version is 2":  {"s/order/Placed.v2.avsc", text("order", "Placed"), "no version 1"},
		"too large":           {"s/order/Placed.v1.avsc", strings.Repeat(" ", codec.SchemaBytesMax+1), "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Submissions(project(map[string]string{c.file: c.content}), "s")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if name != "first version is 2" && !strings.Contains(err.Error(), c.file) {
				t.Errorf("%q does not name the file %s", err, c.file)
			}
		})
	}
}

func TestSubmissionsTellAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Submissions(project(map[string]string{"a/Bad.avsc": "", "b/Worse.avsc": ""}), ".")
	if err == nil || !strings.Contains(err.Error(), "a/Bad.avsc") || !strings.Contains(err.Error(), "b/Worse.avsc") {
		t.Errorf("got %v, want both files", err)
	}
}

func TestSubmissionsOfAMissingFolder(t *testing.T) {
	t.Parallel()
	_, err := Submissions(project(nil), "schemas")
	if err == nil || !strings.Contains(err.Error(), `schemas folder "schemas" is not there`) {
		t.Errorf("got %v, want it to name the folder", err)
	}
}

// What this repository ships must be what its own registry takes.
func TestOurOwnSchemasAreFitToBeRegistered(t *testing.T) {
	t.Parallel()
	submissions, err := Submissions(avro.Files, ".")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(submissions, func(s Submission) bool { return s.Type == "foldstream.Reply" && s.Kind == event.KindSystem }) {
		t.Error("foldstream.Reply is not among them")
	}
	for i, s := range submissions {
		if s.Kind == "" {
			submissions[i].Kind = event.KindEvent
		}
	}
	candidates, err := parse(submissions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := makePlan(newIndex(), candidates, BackwardTransitive); err != nil {
		t.Error(err)
	}
}
