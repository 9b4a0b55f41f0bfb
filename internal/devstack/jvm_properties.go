package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const log4jConsoleWarn = `appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %m (%c{1})%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
`

// jvmPorts is ports.json in the data directory: addresses survive a restart.
type jvmPorts struct {
	Broker     int `json:"broker"`
	Controller int `json:"controller"`
}

func (j *JVM) portsFile() string { return filepath.Join(j.cfg.DataDir, "ports.json") }

func (j *JVM) recordPorts(p jvmPorts) error { return writeJSON(j.portsFile(), p, 0o644) }

func (j *JVM) recordedPorts() (jvmPorts, error) {
	var p jvmPorts
	err := readJSON(j.portsFile(), &p)
	return p, err
}

func (j *JVM) choosePorts() (jvmPorts, error) {
	p, err := j.recordedPorts()
	if err == nil && portIsFree(p.Broker) && portIsFree(p.Controller) {
		return p, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.cfg.Logger.Warn("the recorded ports are unreadable; taking others", "error", err)
	}
	free, err := freePorts(2)
	if err != nil {
		return jvmPorts{}, err
	}
	return jvmPorts{Broker: free[0], Controller: free[1]}, nil
}

// properties is server.properties of one node: small, explicit, quick to
// start, and without limits that a development stack would trip over.
func (j *JVM) properties(p jvmPorts) map[string]string {
	listeners := "PLAINTEXT://" + address(p.Broker) + ",CONTROLLER://" + address(p.Controller)
	props := map[string]string{
		"process.roles":                       "broker,controller",
		"node.id":                             "1",
		"controller.quorum.bootstrap.servers": address(p.Controller),
		"controller.listener.names":           "CONTROLLER",
		"listeners":                           listeners,
		"advertised.listeners":                listeners,
		"listener.security.protocol.map":      "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name":          "PLAINTEXT",
		"log.dirs":                            j.logDir(),
		"auto.create.topics.enable":           "false",

		"offsets.topic.num.partitions":                     "4",
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.num.partitions":             "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.num.partitions":     "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",

		"log.cleaner.dedupe.buffer.size": "4194304", // 125 MB less than the default
		"log.retention.ms":               "-1",
		"num.network.threads":            "2",
		"num.io.threads":                 "4",
	}
	maps.Copy(props, j.cfg.Properties)
	return props
}

func (j *JVM) logDir() string { return filepath.Join(j.cfg.DataDir, "log") }

func writeProperties(path string, props map[string]string) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(props)) {
		fmt.Fprintf(&b, "%s=%s\n", name, strings.ReplaceAll(props[name], `\`, `\\`))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the settings of the broker: %w", err)
	}
	return nil
}

func readProperties(path string) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	props := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			props[name] = value
		}
	}
	return props, nil
}
