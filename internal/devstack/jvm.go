package devstack

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	jvmStartTimeoutDefault = 60 * time.Second
	jvmStopGrace           = 30 * time.Second
	jvmHeapMBDefault       = 512
	jvmPortAttempts        = 3
	readyPoll              = 20 * time.Millisecond
	readyRequestTimeout    = 2 * time.Second
)

// JVMConfig describes one node of Apache Kafka (broker and controller) that
// runs as a Java process.
type JVMConfig struct {
	// DataDir holds the log, the settings and the output of the node. It is
	// required, and is created when missing.
	DataDir string
	// Properties overrides or extends server.properties.
	Properties map[string]string
	// LibsDir is a folder with the broker's jars. Default: the folder in
	// FOLDSTREAM_KAFKA_LIBS, else the cache, filled by Maven when empty.
	LibsDir string
	// CacheDir moves the cache of fetched software. Default: see [EnvCache].
	CacheDir string
	// Java is the Java command, 17 or newer. Default: JAVA_HOME's, else the
	// one on the path.
	Java string
	// JavaFlags are added after our own, so they win.
	JavaFlags []string
	// HeapMB is the largest heap in MiB, 512 by default. A node with data
	// needs 256 at least.
	HeapMB int
	// StartTimeout bounds the time to the first answer, 60 s by default. A
	// fetch of the jars is not counted.
	StartTimeout time.Duration
	// Logger hears of starts, stops and fetches. Default: silent.
	Logger *slog.Logger
}

func (c JVMConfig) withDefaults() JVMConfig {
	if c.LibsDir == "" {
		c.LibsDir = os.Getenv(EnvKafkaLibs)
	}
	if c.Java == "" {
		c.Java = javaCommand()
	}
	if c.HeapMB == 0 {
		c.HeapMB = jvmHeapMBDefault
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = jvmStartTimeoutDefault
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c JVMConfig) validate() error {
	var faults []error
	if c.DataDir == "" {
		faults = append(faults, errors.New("DataDir is empty; name a folder for the broker's log"))
	}
	if c.HeapMB < 128 {
		faults = append(faults, fmt.Errorf("HeapMB is %d; a broker needs 128 at least", c.HeapMB))
	}
	if c.StartTimeout < 0 {
		faults = append(faults, fmt.Errorf("StartTimeout is %s; it must be positive", c.StartTimeout))
	}
	return errors.Join(faults...)
}

// JVM is a running (or killed) node of Apache Kafka.
type JVM struct {
	cfg       JVMConfig
	libs      *kafkaSoftware
	lock      *dirLock
	clusterID string

	mu      sync.Mutex // guards what follows; held during a start or a stop
	port    int
	proc    *Process
	archive *archiveRun // nil unless this run writes the class archive
	stopped bool
}

// StartJVM starts a node on cfg.DataDir and returns once it has answered a
// metadata request with the cluster id of that directory. ctx bounds the start
// only. A directory that was used before keeps its data and, when they are
// free, its ports. Errors wrap [ErrUnavailable] or [ErrInUse] where they apply.
func StartJVM(ctx context.Context, cfg JVMConfig) (*JVM, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start Apache Kafka: %w", err)
	}
	j := &JVM{cfg: cfg}
	if err := j.open(ctx); err != nil {
		return nil, fmt.Errorf("start Apache Kafka on %s: %w", cfg.DataDir, err)
	}
	return j, nil
}

func (j *JVM) open(ctx context.Context) (err error) {
	if j.cfg.DataDir, err = filepath.Abs(j.cfg.DataDir); err != nil {
		return err
	}
	if j.libs, err = findKafka(ctx, j.cfg); err != nil {
		return err
	}
	if j.lock, err = lockDataDir(j.cfg.DataDir, "Apache Kafka"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			j.lock.release()
		}
	}()
	if j.clusterID, err = j.format(ctx); err != nil {
		return err
	}
	return j.start(ctx)
}

// Brokers is the address to bootstrap from, host:port.
func (j *JVM) Brokers() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return []string{address(j.port)}
}

// ClusterID is the id that the node was formatted with.
func (j *JVM) ClusterID() string { return j.clusterID }

// PID is the process id of the current or last run.
func (j *JVM) PID() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.proc.PID()
}

// Done is closed when the current run ends, for whatever reason.
func (j *JVM) Done() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.proc.done
}

// Stop ends the node cleanly and frees the data directory. Later calls of any
// method but Stop are refused.
func (j *JVM) Stop() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return nil
	}
	j.stopped = true
	defer j.lock.release()
	return j.stopProcess()
}

// Kill ends the node by SIGKILL and waits for its end. Restart brings it back.
func (j *JVM) Kill() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.killProcess()
}

// Pause stops the node from running (SIGSTOP) without ending it.
func (j *JVM) Pause() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.proc.Signal(sigPause)
}

// Resume lets a paused node run on.
func (j *JVM) Resume() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.proc.Signal(sigCont)
}

// Restart starts the node again after Kill, or stops it cleanly first. The
// address stays the same.
func (j *JVM) Restart(ctx context.Context) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return fmt.Errorf("restart Apache Kafka on %s: it was stopped for good; start a new one", j.cfg.DataDir)
	}
	if err := j.stopProcess(); err != nil {
		return fmt.Errorf("restart Apache Kafka on %s: %w", j.cfg.DataDir, err)
	}
	ports, err := j.recordedPorts()
	if err == nil {
		err = j.startOn(ctx, ports)
	}
	if err != nil {
		return fmt.Errorf("restart Apache Kafka on %s: %w", j.cfg.DataDir, err)
	}
	return nil
}

func (j *JVM) stopProcess() error {
	if j.proc.Ended() {
		return nil
	}
	// A paused process would sleep through the request to stop.
	if err := j.proc.Signal(sigCont); err != nil {
		return err
	}
	err := j.proc.Stop(sigTerm, jvmStopGrace)
	j.finishArchive(err == nil)
	return err
}

func (j *JVM) killProcess() error {
	err := j.proc.Kill()
	j.finishArchive(false)
	return err
}

func (j *JVM) finishArchive(clean bool) {
	if j.archive != nil {
		j.archive.finish(clean)
		j.archive = nil
	}
}

// start tries the ports of the last run, then free ones. A port that looked
// free may be gone when the broker binds it; the broker then dies, and the
// next attempt takes others.
func (j *JVM) start(ctx context.Context) error {
	var faults []error
	for range jvmPortAttempts {
		ports, err := j.choosePorts()
		if err != nil {
			return err
		}
		err = j.startOn(ctx, ports)
		if err == nil {
			return j.recordPorts(ports)
		}
		faults = append(faults, err)
		if ctx.Err() != nil || (portIsFree(ports.Broker) && portIsFree(ports.Controller)) {
			break // not the ports' fault
		}
	}
	return errors.Join(faults...)
}

func (j *JVM) startOn(ctx context.Context, ports jvmPorts) error {
	settings := filepath.Join(j.cfg.DataDir, "server.properties")
	if err := writeProperties(settings, j.properties(ports)); err != nil {
		return err
	}
	if err := j.launch(settings); err != nil {
		return err
	}
	j.port = ports.Broker
	began := time.Now()
	if err := j.awaitReady(ctx); err != nil {
		return errors.Join(err, j.killProcess())
	}
	j.cfg.Logger.Info("Apache Kafka is up", "broker", address(j.port), "pid", j.proc.PID(),
		"took", time.Since(began).Round(time.Millisecond))
	return nil
}

func (j *JVM) launch(settings string) error {
	logConfig := filepath.Join(j.cfg.DataDir, "log4j2.properties")
	if err := os.WriteFile(logConfig, []byte(log4jConsoleWarn), 0o644); err != nil {
		return fmt.Errorf("write the log settings of the broker: %w", err)
	}
	flags := []string{
		fmt.Sprintf("-Xmx%dm", j.cfg.HeapMB), "-Xms128m", "-XX:+UseSerialGC", "-Xss512k",
		"-Dlog4j2.configurationFile=" + logConfig,
	}
	archiveFlags, archive := j.libs.classArchive(j.cfg.Logger)
	flags = append(append(flags, archiveFlags...), j.cfg.JavaFlags...)
	flags = append(flags, "-cp", j.libs.classPath, "kafka.Kafka", settings)

	cmd := exec.Command(j.cfg.Java, flags...)
	cmd.Dir = j.cfg.DataDir
	proc, err := StartProcess(cmd, filepath.Join(j.cfg.DataDir, "broker.log"), os.Kill)
	if err != nil {
		if archive != nil {
			archive.finish(false)
		}
		return err
	}
	j.proc, j.archive = proc, archive
	return nil
}

// awaitReady asks until the node answers. The cluster id tells our broker from
// one that took the port first: ours would have died, and a client would talk
// to the other.
func (j *JVM) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.StartTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(address(j.port)), kgo.RequestRetries(0),
		kgo.DialTimeout(readyRequestTimeout))
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer client.Close()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-j.proc.done:
			return j.proc.failure()
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s; the last lines of its output:\n%s: %w",
				j.cfg.StartTimeout, tailOf(j.proc.logPath), ctx.Err())
		case <-tick.C:
		}
		ready, err := askClusterID(ctx, client, j.clusterID)
		if err != nil || ready {
			return err
		}
	}
}

// askClusterID reports false while nothing answers.
func askClusterID(ctx context.Context, client *kgo.Client, want string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, readyRequestTimeout)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	response, err := request.RequestWith(ctx, client.SeedBrokers()[0])
	if err != nil || len(response.Brokers) == 0 {
		return false, nil
	}
	if response.ClusterID == nil || *response.ClusterID != want {
		return false, fmt.Errorf("another broker took the port: the one that answers is not of cluster %s", want)
	}
	return true, nil
}

// newClusterID is 16 random bytes as Kafka writes ids: base64url without
// padding, not beginning with a dash.
func newClusterID() string {
	for {
		var raw [16]byte
		_, _ = rand.Read(raw[:]) // never fails, by its documentation
		if id := base64.RawURLEncoding.EncodeToString(raw[:]); !strings.HasPrefix(id, "-") {
			return id
		}
	}
}
