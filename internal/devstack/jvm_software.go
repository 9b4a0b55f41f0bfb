package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/foldstream/foldstream/deploy/kafka"
)

// EnvKafkaLibs names the environment variable with a folder that holds the
// jars of Apache Kafka and all that it needs at run time. It replaces the
// fetch by Maven.
const EnvKafkaLibs = "FOLDSTREAM_KAFKA_LIBS"

const (
	// fetchTimeout bounds one run of a package client, which may have to
	// fetch 50 MB over a slow line.
	fetchTimeout  = 10 * time.Minute
	formatTimeout = time.Minute
)

// kafkaSoftware is what a start needs beside its data directory.
type kafkaSoftware struct {
	java      string
	classPath string // jars by name, sorted: an archive of classes is bound to this text
	cacheDir  string // of this version of Kafka
	identity  string // of Java, class path and jars: names what is derived from them
}

func javaCommand() string {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		return filepath.Join(home, "bin", "java")
	}
	return "java"
}

func findKafka(ctx context.Context, cfg JVMConfig) (*kafkaSoftware, error) {
	java, err := exec.LookPath(cfg.Java)
	if err != nil {
		return nil, fmt.Errorf("%w: Java (17 or newer) was not found as %q: install a Java runtime or set JAVA_HOME",
			ErrUnavailable, cfg.Java)
	}
	root, err := cacheDir(cfg.CacheDir)
	if err != nil {
		return nil, err
	}
	s := &kafkaSoftware{java: java, cacheDir: filepath.Join(root, "kafka-"+kafka.Version)}
	libs := cfg.LibsDir
	if libs == "" {
		if libs, err = s.fetchedLibs(ctx, cfg.Logger); err != nil {
			return nil, err
		}
	}
	if err := s.identify(libs); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *kafkaSoftware) identify(libs string) error {
	jars, err := filepath.Glob(filepath.Join(libs, "*.jar"))
	if err != nil {
		return fmt.Errorf("list the jars in %s: %w", libs, err)
	}
	if len(jars) == 0 {
		return fmt.Errorf("%w: %s holds no jars; it must hold those of org.apache.kafka:kafka_2.13:%s",
			ErrUnavailable, libs, kafka.Version)
	}
	slices.Sort(jars)
	s.classPath = strings.Join(jars, string(os.PathListSeparator))
	sum := sha256.New()
	fmt.Fprintln(sum, s.java, s.classPath)
	for _, path := range append(jars, s.java) {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		// Java checks time and size of each jar against its archive.
		fmt.Fprintln(sum, info.Size(), info.ModTime().UnixNano())
	}
	s.identity = hex.EncodeToString(sum.Sum(nil))[:16]
	return nil
}

// fetchedLibs is the cached folder of jars, filled by Maven the first time. A
// folder under that name is complete, for it is renamed into place.
func (s *kafkaSoftware) fetchedLibs(ctx context.Context, log *slog.Logger) (string, error) {
	libs := filepath.Join(s.cacheDir, "libs")
	if isDir(libs) {
		return libs, nil
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("%w: the jars of Apache Kafka %s are not in %s and Maven (mvn) is not on the path: "+
			"install Maven, or set %s to a folder with the jars", ErrUnavailable, kafka.Version, libs, EnvKafkaLibs)
	}
	err = withFileLock(ctx, filepath.Join(s.cacheDir, "libs.lock"), func() error {
		if isDir(libs) {
			return nil // another process was quicker
		}
		log.Info("fetching Apache Kafka by Maven; this happens once", "version", kafka.Version, "to", libs)
		return fetchKafka(ctx, mvn, libs)
	})
	return libs, err
}

func fetchKafka(ctx context.Context, mvn, libs string) error {
	work, err := os.MkdirTemp(filepath.Dir(libs), "fetch-*")
	if err != nil {
		return fmt.Errorf("make a folder for the jars: %w", err)
	}
	defer os.RemoveAll(work)
	pom := filepath.Join(work, "pom.xml")
	if err := os.WriteFile(pom, kafka.POM, 0o644); err != nil {
		return fmt.Errorf("write the description of the jars: %w", err)
	}
	fetched := filepath.Join(work, "libs")
	err = runClient(ctx, work, mvn, "-q", "-B", "-f", pom, "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+fetched)
	if err != nil {
		return fmt.Errorf("fetch Apache Kafka %s: %w; or set %s to a folder with the jars",
			kafka.Version, err, EnvKafkaLibs)
	}
	if err := os.Rename(fetched, libs); err != nil {
		return fmt.Errorf("put the jars in place: %w", err)
	}
	return nil
}

// runClient runs a package client to its end; the error holds the end of what
// it wrote.
func runClient(ctx context.Context, dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if len(out) > logTailBytesMax {
		out = out[len(out)-logTailBytesMax:]
	}
	return fmt.Errorf("%s failed: %w: %s", filepath.Base(name), err, strings.TrimSpace(string(out)))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// format makes the log directory of a new node from a template and returns
// the cluster id, which for a used one is the recorded one.
func (j *JVM) format(ctx context.Context) (string, error) {
	meta := filepath.Join(j.logDir(), "meta.properties")
	props, err := readProperties(meta)
	if err == nil {
		if props["cluster.id"] == "" {
			return "", fmt.Errorf("%s names no cluster id: the directory is damaged; choose another", meta)
		}
		return props["cluster.id"], nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the node's identity: %w", err)
	}
	template, err := j.libs.template(ctx, j)
	if err != nil {
		return "", err
	}
	// What has no identity was a start that ended half-way: no data yet.
	if err := os.RemoveAll(j.logDir()); err != nil {
		return "", fmt.Errorf("clear a half-made log directory: %w", err)
	}
	return stampTemplate(template, j.logDir())
}

// stampTemplate copies the template and gives the copy a cluster id of its
// own. The identity file is written last: it marks the directory as whole.
func stampTemplate(template, logDir string) (string, error) {
	props, err := readProperties(filepath.Join(template, "meta.properties"))
	if err != nil {
		return "", fmt.Errorf("read the template of a new node: %w", err)
	}
	if err := os.CopyFS(logDir, os.DirFS(template)); err != nil {
		return "", fmt.Errorf("copy the template of a new node: %w", err)
	}
	meta := filepath.Join(logDir, "meta.properties")
	if err := os.Remove(meta); err != nil {
		return "", fmt.Errorf("replace the identity of the template: %w", err)
	}
	props["cluster.id"] = newClusterID()
	return props["cluster.id"], writeProperties(meta, props)
}

// template is a formatted, unused log directory. Formatting costs the start of
// a Java process, so it is done once per cache.
func (s *kafkaSoftware) template(ctx context.Context, j *JVM) (string, error) {
	dir := filepath.Join(s.cacheDir, "template-"+s.identity)
	if isDir(dir) {
		return dir, nil
	}
	err := withFileLock(ctx, dir+".lock", func() error {
		if isDir(dir) {
			return nil
		}
		return s.makeTemplate(ctx, dir, j)
	})
	return dir, err
}

func (s *kafkaSoftware) makeTemplate(ctx context.Context, dir string, j *JVM) error {
	work, err := os.MkdirTemp(s.cacheDir, "format-*")
	if err != nil {
		return fmt.Errorf("make a folder for the template of a node: %w", err)
	}
	defer os.RemoveAll(work)
	props := j.properties(jvmPorts{Broker: 9092, Controller: 9093}) // never bound
	props["log.dirs"] = filepath.Join(work, "log")
	settings := filepath.Join(work, "server.properties")
	if err := writeProperties(settings, props); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, formatTimeout)
	defer cancel()
	err = runClient(ctx, work, s.java, "-cp", s.classPath, "kafka.tools.StorageTool", "format",
		"--standalone", "-t", newClusterID(), "-c", settings)
	if err != nil {
		return fmt.Errorf("format a new node (Java 17 or newer is needed): %w", err)
	}
	if err := os.Rename(props["log.dirs"], dir); err != nil {
		return fmt.Errorf("put the template of a node in place: %w", err)
	}
	return nil
}

// archiveRun is a run that writes an archive of the classes it loaded when it
// stops, which makes later starts twice as fast.
type archiveRun struct {
	lock           *flock.Flock
	written, final string
	log            *slog.Logger
}

// classArchive returns the flags to use the archive; or, when there is none
// and no other process is at it, the flags to write one at the clean end of
// this run. A start without the archive works, only slower, so that all faults
// here are harmless.
func (s *kafkaSoftware) classArchive(log *slog.Logger) ([]string, *archiveRun) {
	final := filepath.Join(s.cacheDir, "classes-"+s.identity+".jsa")
	quiet := []string{"-Xlog:cds=off", "-Xlog:cds+dynamic=off", "-Xlog:class+path=off"}
	if _, err := os.Stat(final); err == nil {
		return append(quiet, "-Xshare:auto", "-XX:SharedArchiveFile="+final), nil
	}
	lock := flock.New(final + ".lock")
	if held, err := lock.TryLock(); err != nil || !held {
		return nil, nil
	}
	written := final + ".new"
	_ = os.Remove(written)
	return append(quiet, "-XX:ArchiveClassesAtExit="+written),
		&archiveRun{lock: lock, written: written, final: final, log: log}
}

// finish publishes the archive of a run that ended cleanly.
func (a *archiveRun) finish(clean bool) {
	defer func() { _ = a.lock.Unlock() }()
	if !clean {
		_ = os.Remove(a.written)
		return
	}
	if err := os.Rename(a.written, a.final); err != nil {
		a.log.Debug("no archive of classes was written; starts stay slower", "error", err)
	}
}
