package interop

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/foldstream/foldstream/internal/devstack"
	"github.com/foldstream/foldstream/internal/testkit"
)

const (
	installTimeout = 5 * time.Minute
	lockPoll       = 50 * time.Millisecond
	cachedMark     = ".complete" // written last: a folder without it was not finished
)

// require returns the path of a program. Without it the test is left out, loudly, and fails where
// all backends are required.
func require(t *testing.T, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		missing(t, fmt.Sprintf("MISSING %s: %v; Debian's package is %s", program, err, debianPackage))
	}
	return path
}

// missing leaves the test out and says so where the run's last lines come from.
func missing(t *testing.T, line string) {
	t.Helper()
	if os.Getenv(testkit.EnvRequireAll) == "1" {
		t.Fatalf("%s; %s is set", line, testkit.EnvRequireAll)
	}
	if file := os.Getenv(testkit.EnvMissingFile); file != "" {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := fmt.Fprintln(f, line); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(os.Stderr, line)
	t.Skip(line)
}

// python returns an interpreter that has the packages of a requirements file.
func python(t *testing.T, requirements string) string {
	t.Helper()
	python := require(t, "python3", "python3-venv")
	if err := run(t.Context(), "", python, "-c", "import ensurepip, venv"); err != nil { // Debian ships them apart
		missing(t, "MISSING venv of Python; Debian's package is python3-venv: "+strings.ReplaceAll(err.Error(), "\n", " "))
	}
	version := output(t, exec.CommandContext(t.Context(), python, "--version"))
	dir := cached(t, "python", []byte(version+readFile(t, requirements)), func(ctx context.Context, dir string) error {
		inside := filepath.Join(dir, "bin", "python")
		return errors.Join(
			run(ctx, "", python, "-m", "venv", dir),
			run(ctx, "", inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "-r", absolute(t, requirements)),
		)
	})
	return filepath.Join(dir, "bin", "python")
}

// node returns the interpreter, and a folder with a copy of the scripts of dir beside the packages
// of dir's lock file.
func node(t *testing.T, dir string) (program, scripts string) {
	t.Helper()
	program, npm := require(t, "node", "nodejs"), require(t, "npm", "npm")
	manifest, lock := readFile(t, filepath.Join(dir, "package.json")), readFile(t, filepath.Join(dir, "package-lock.json"))
	packages := cached(t, "node", []byte(manifest+lock), func(ctx context.Context, to string) error {
		return errors.Join(
			os.WriteFile(filepath.Join(to, "package.json"), []byte(manifest), 0o644),
			os.WriteFile(filepath.Join(to, "package-lock.json"), []byte(lock), 0o644),
			run(ctx, to, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"),
		)
	})
	scripts = t.TempDir()
	if err := os.Symlink(filepath.Join(packages, "node_modules"), filepath.Join(scripts, "node_modules")); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.mjs"))
	if err != nil || len(found) == 0 {
		t.Fatalf("find scripts in %s: got %v and %v", dir, found, err)
	}
	for _, script := range found {
		if err := os.WriteFile(filepath.Join(scripts, filepath.Base(script)), []byte(readFile(t, script)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return program, scripts
}

// java returns the Java command and the class path of the jars that a POM names.
func java(t *testing.T, pom string) (program, classPath string) {
	t.Helper()
	require(t, "javac", "openjdk-17-jdk-headless") // without a compiler java runs no source file
	program, mvn := require(t, "java", "openjdk-17-jdk-headless"), require(t, "mvn", "maven")
	dir := cached(t, "java", []byte(readFile(t, pom)), func(ctx context.Context, dir string) error {
		return run(ctx, "", mvn, "-q", "-B", "-f", absolute(t, pom), "dependency:copy-dependencies",
			"-DincludeScope=runtime", "-DoutputDirectory="+filepath.Join(dir, "libs"))
	})
	return program, filepath.Join(dir, "libs", "*")
}

// cached returns a folder that install filled, once per content of what names its packages. Test
// processes wait for each other.
func cached(t *testing.T, name string, key []byte, install func(ctx context.Context, dir string) error) string {
	t.Helper()
	sum := sha256.Sum256(key)
	dir := filepath.Join(cacheRoot(t), name+"-"+hex.EncodeToString(sum[:8]))
	ctx, cancel := context.WithTimeout(t.Context(), installTimeout)
	defer cancel()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock := flock.New(dir + ".lock")
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		t.Fatalf("wait for another process to install packages for %s: %v", name, err)
	}
	defer func() { _ = lock.Unlock() }()
	mark := filepath.Join(dir, cachedMark)
	if _, err := os.Stat(mark); err == nil {
		return dir
	}
	err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755))
	if err == nil {
		err = install(ctx, dir)
	}
	if err == nil {
		err = os.WriteFile(mark, nil, 0o644)
	}
	if err != nil {
		t.Fatalf("install packages for %s: %v", name, err)
	}
	return dir
}

func cacheRoot(t *testing.T) string {
	t.Helper()
	root := os.Getenv(devstack.EnvCache)
	if root == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("find the user's cache: %v", err)
		}
		root = filepath.Join(base, "foldstream")
	}
	return filepath.Join(root, "interop")
}

// run runs a package client to its end; the error holds what it wrote.
func run(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(program), err, out)
	}
	return nil
}

// output returns what a program prints; what it writes to standard error stands in the failure.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s\n%s", err, tail(out), tail(exit.Stderr))
		}
		t.Fatalf("%s: %v", cmd, err)
	}
	return string(out)
}

func tail(text []byte) []byte {
	const tailBytesMax = 4 << 10
	return text[max(0, len(text)-tailBytesMax):]
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is missing from the repository", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
