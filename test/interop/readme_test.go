package interop

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// fiveMinutes is the README's section whose commands are run one after the other.
	fiveMinutes = "## Five minutes"
	// anyLanguage is the section that holds the files of examples/.
	anyLanguage = "## From any language"

	exampleMax = 60 * time.Second
)

// block is one fenced block of the README.
type block struct {
	line     int    // of its first line of text
	language string // behind the fence
	text     string
}

// section returns the blocks below a heading of the README.
func section(t *testing.T, heading string) []block {
	t.Helper()
	lines := strings.Split(readFile(t, filepath.Join(repository(t), "README.md")), "\n")
	at := slices.Index(lines, heading)
	if at < 0 {
		t.Fatalf("README.md has no section %q", heading)
	}
	var blocks []block
	var open *block
	for i, line := range lines[at+1:] {
		switch {
		case strings.HasPrefix(line, "```") && open == nil:
			open = &block{line: at + i + 3, language: strings.TrimPrefix(line, "```")}
		case line == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "## "):
			return blocks
		}
	}
	return blocks
}

// TestReadmeShowsTheExamples holds the README to the files that the other tests run.
func TestReadmeShowsTheExamples(t *testing.T) {
	t.Parallel()
	blocks := section(t, anyLanguage)
	for language, file := range map[string]string{
		"sh": "curl/shop.sh", "python": "python/shop.py", "javascript": "javascript/shop.mjs", "java": "java/Shop.java",
	} {
		text := readFile(t, filepath.Join(repository(t), "examples", file))
		if !slices.ContainsFunc(blocks, func(b block) bool { return b.language == language && b.text == text }) {
			t.Errorf("README.md, %s: no block of %s is examples/%s as it is; copy the file there", anyLanguage, language, file)
		}
	}
	for _, command := range startCommands(".shop", "127.0.0.1:8080") {
		text := strings.NewReplacer("foldstream ", "go run ./cmd/foldstream ", "shop ", "go run ./examples/shop ").Replace(command[0] + " ")
		text += strings.Join(command[1:], " ")
		for name, shown := range map[string]string{"README.md": joined(blocks), "examples/README.md": readFile(t, filepath.Join(repository(t), "examples/README.md"))} {
			if !strings.Contains(shown, text) {
				t.Errorf("%s does not show how the examples' stack is started: %q is not there", name, text)
			}
		}
	}
}

func joined(blocks []block) string {
	var all strings.Builder
	for _, b := range blocks {
		all.WriteString(b.text)
	}
	return all.String()
}

// example is one file of examples/ that runs against the shop, and what it says in order.
type example struct {
	name    string
	command func(t *testing.T) []string
	says    []string
}

func examples(t *testing.T) []example {
	dir := filepath.Join(repository(t), "examples")
	answers := []string{`accepted`, `conflict`, `accepted`, `duplicate`}
	events := []string{`invoice-\S+,? 1 .*c-7`, `order-\S+,? 1 .*c-7`}
	return []example{
		{"curl", func(t *testing.T) []string {
			require(t, "curl", "curl")
			return []string{"sh", filepath.Join(dir, "curl/shop.sh")}
		}, append(answers, `"outcome":"accepted","commandId":"place-order-`, `"type":"invoice.Issued".*"customer":"c-7"`, `"placed":true`)},
		{"python", func(t *testing.T) []string {
			return []string{python(t, "clients/python/requirements.txt"), filepath.Join(dir, "python/shop.py")}
		}, append(answers, events...)},
		{"javascript", func(t *testing.T) []string {
			program, scripts := node(t, filepath.Join(dir, "javascript"))
			return []string{program, filepath.Join(scripts, "shop.mjs")}
		}, append(answers, events...)},
		{"java", func(t *testing.T) []string {
			program, classPath := java(t, filepath.Join(dir, "java/pom.xml"))
			return []string{program, "-cp", classPath, filepath.Join(dir, "java/Shop.java")}
		}, append(answers, events...)},
	}
}

// runExamples runs the files of examples/ as they are.
func runExamples(t *testing.T, w *world) {
	for _, e := range examples(t) {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			command := e.command(t)
			ctx, cancel := context.WithTimeout(t.Context(), exampleMax)
			defer cancel()
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Env = append(environment(), "BROKERS="+w.brokers, "REGISTRY="+w.registry, "FOLDSTREAM="+w.http)
			said := output(t, cmd)
			if want := regexp.MustCompile(`(?s)` + strings.Join(e.says, `.*`)); !want.MatchString(said) {
				t.Errorf("got\n%s\nwant all of these in this order: %q", said, e.says)
			}
		})
	}
}

// TestReadmeFiveMinutes runs the section's commands as a reader would, from the top: the first of
// each stack in the background, each after the one before, in one shell. What the README shows as
// output must come out; "…" stands for anything.
func TestReadmeFiveMinutes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a stack and runs a dozen programs")
	}
	t.Parallel()
	for _, program := range []string{"curl", "psql"} {
		require(t, program, map[string]string{"curl": "curl", "psql": "postgresql-client"}[program])
	}
	w := &world{t: t, bin: t.TempDir(), env: environment()}
	w.build("foldstream", "./cmd/foldstream")
	dir := openDir(t)
	// The programs are built once, and the stacks' data stays out of the repository.
	as := strings.NewReplacer(
		"go run ./cmd/foldstream", filepath.Join(w.bin, "foldstream"),
		".foldstream", filepath.Join(dir, ".foldstream"), ".invoice", filepath.Join(dir, ".invoice"))

	blocks := section(t, fiveMinutes)
	for i, b := range blocks {
		if b.language != "sh" {
			continue
		}
		text := as.Replace(b.text)
		if strings.Contains(text, "foldstream dev") {
			w.startStack(text, dir)
			continue
		}
		want := ""
		if i+1 < len(blocks) && blocks[i+1].language != "sh" {
			want = blocks[i+1].text
		}
		w.runBlock(b, text, want)
		w.variables = append(w.variables, assignment.FindAllString(text, -1)...)
	}
}

// openDir is a folder that others may pass: as root, Postgres runs as nobody.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "foldstream-readme-*")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the stacks' data: %v", err)
		}
	})
	return dir
}

// assignment is a line that sets a variable for the blocks behind it.
var assignment = regexp.MustCompile(`(?m)^[A-Z]+=.*$`)

// runBlock runs one block in the shell of the ones before it. A view follows the log with a
// delay, so that what asks one may ask again.
func (w *world) runBlock(b block, text, want string) {
	w.t.Helper()
	var got string
	ask := func(ctx context.Context) bool {
		cmd := exec.CommandContext(ctx, "bash", "-c", strings.Join(w.variables, "\n")+"\n"+text)
		cmd.Dir, cmd.Env = repository(w.t), w.env
		got = output(w.t, cmd)
		return want == "" || matches(got, want)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), exampleMax)
	defer cancel()
	for again := time.Now().Add(viewsMax); !ask(ctx); {
		if !strings.Contains(text, "psql") || time.Now().After(again) {
			w.t.Errorf("README.md:%d: the command prints\n%s\nand the README shows\n%s", b.line, got, want)
			return
		}
	}
}

// viewsMax is how long a view may take to show what was imported.
const viewsMax = 20 * time.Second

// startStack runs a block that starts a stack, and waits until it is ready. A stack whose block
// names no data folder keeps its data in the working directory's .foldstream.
func (w *world) startStack(text, dir string) {
	w.t.Helper()
	args := strings.Fields(text)[1:]
	data := filepath.Join(dir, ".foldstream")
	if at := slices.Index(args, "--data-dir"); at >= 0 {
		data = args[at+1]
	} else {
		args = append(args, "--data-dir", data)
	}
	w.start("foldstream", args...)
	e := w.awaitEndpoints(data)
	w.awaitReady(e.HTTP["ingest"])
}

// matches says whether a text is one that the README shows. Blanks at the ends of lines do not
// count.
func matches(got, shown string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(trimLines(shown)), "…", `.*`)
	return regexp.MustCompile(`^(?s)` + pattern + `$`).MatchString(trimLines(got))
}

func trimLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}
