package service

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadTakesFlagOverStackOverEnvironmentOverFileOverDefault(t *testing.T) {
	t.Parallel()
	file := write(t, "kafka: {brokers: [file:1], client_id: from-file}\nhttp: {addr: ':1'}\ningest: {session_timeout: 10s}\n")
	cfg, err := Load(Sources{
		Defaults: map[string]any{"http.addr": ":0", "registry.timeout": "3s"},
		File:     file,
		Environ:  []string{"FOLDSTREAM_KAFKA_BROKERS=env:1, env:2", "FOLDSTREAM_HTTP_ADDR=:2", "FOLDSTREAM_LOG_LEVEL=debug"},
		Stack:    map[string]any{"kafka.brokers": "stack:1"},
		Flags:    map[string]any{"http.addr": ":3"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want string }{
		{"a flag wins", cfg.HTTP.Addr, ":3"},
		{"the stack wins over the environment", fmt.Sprint(cfg.Kafka.Brokers), "[stack:1]"},
		{"the environment wins over the default", cfg.Log.Level, "debug"},
		{"the file wins over the default", cfg.Kafka.ClientID, "from-file"},
		{"durations are read", cfg.Ingest.SessionTimeout.String(), "10s"},
		{"a source's defaults win over ours", cfg.Registry.Timeout.String(), "3s"},
		{"ours are left", cfg.ShutdownTimeout.String(), "25s"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, c.got, c.want)
		}
	}
}

func TestLoadSplitsBrokersAtCommas(t *testing.T) {
	t.Parallel()
	cfg, err := Load(Sources{Environ: []string{"FOLDSTREAM_KAFKA_BROKERS= a:1 ,b:2,"}})
	if got := fmt.Sprint(cfg.Kafka.Brokers); err != nil || got != "[a:1 b:2]" {
		t.Errorf("got %s and %v, want [a:1 b:2]", got, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		src  Sources
		file string
		want []string
	}{
		{"an unknown key of the file, with the nearest", Sources{}, "kafka: {broker: [a:1]}", []string{"configuration file", "kafka.broker is unknown", "nearest known one is kafka.brokers"}},
		{"an unknown variable of a known section", Sources{Environ: []string{"FOLDSTREAM_KAFKA_BROKER=a:1"}}, "", []string{"FOLDSTREAM_KAFKA_BROKER is unknown", "FOLDSTREAM_KAFKA_BROKERS"}},
		{"a mistyped section", Sources{Environ: []string{"FOLDSTREAM_KAKFA_BROKERS=a:1"}}, "", []string{"FOLDSTREAM_KAKFA_BROKERS is unknown", "FOLDSTREAM_KAFKA_BROKERS"}},
		{"a flag nobody knows", Sources{Flags: map[string]any{"kafka.nope": "x"}}, "", []string{"flags: key kafka.nope is unknown"}},
		{"a duration without a unit", Sources{Environ: []string{"FOLDSTREAM_SHUTDOWN_TIMEOUT=6"}}, "", []string{"shutdown_timeout", "no duration", "6s"}},
		{"a number as a duration in the file", Sources{}, "shutdown_timeout: 6", []string{"shutdown_timeout", "no duration"}},
		{"a password in the file", Sources{}, "kafka: {sasl: {password: geheim}}", []string{"kafka.sasl.password is not read from a file", "password_file", "FOLDSTREAM_KAFKA_SASL_PASSWORD"}},
		{"a password flag", Sources{Flags: map[string]any{"kafka.sasl.password": "geheim"}}, "", []string{"a secret is not taken from a flag"}},
		{"a DSN flag with a password", Sources{Flags: map[string]any{"postgres.dsn": "postgres://u:geheim@h/d"}}, "", []string{"flag --dsn has a password", "FOLDSTREAM_POSTGRES_DSN"}},
		{"a keyword DSN flag with a password", Sources{Flags: map[string]any{"postgres.dsn": "host=h password = 'ge heim'"}}, "", []string{"flag --dsn has a password"}},
		{"a file that is not there", Sources{File: "/nowhere/x.yaml"}, "", []string{"read configuration file /nowhere/x.yaml"}},
		{"several faults, all of them", Sources{Environ: []string{"FOLDSTREAM_HTTP_ADDR=8080", "FOLDSTREAM_LOG_LEVEL=loud", "FOLDSTREAM_KAFKA_BROKERS=nohost"}}, "", []string{"http.addr", "log.level", "kafka.brokers"}},
		{"plain without TLS", Sources{Environ: []string{"FOLDSTREAM_KAFKA_SASL_MECHANISM=plain", "FOLDSTREAM_KAFKA_SASL_USERNAME=u", "FOLDSTREAM_KAFKA_SASL_PASSWORD=geheim"}}, "", []string{"plain without TLS"}},
		{"two passwords", Sources{Environ: []string{"FOLDSTREAM_KAFKA_SASL_MECHANISM=scram-sha-256", "FOLDSTREAM_KAFKA_SASL_USERNAME=u", "FOLDSTREAM_KAFKA_SASL_PASSWORD=geheim", "FOLDSTREAM_KAFKA_SASL_PASSWORD_FILE=x"}}, "", []string{"one of the two"}},
		{"TLS files without TLS", Sources{Environ: []string{"FOLDSTREAM_KAFKA_TLS_CA_FILE=x"}}, "", []string{"kafka.tls.enabled"}},
		{"a password in the registry's URL", Sources{Environ: []string{"FOLDSTREAM_REGISTRY_URL=http://u:geheim@h"}}, "", []string{"registry.url", "password_file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.file != "" {
				c.src.File = write(t, c.file)
			}
			if c.src.Environ == nil {
				c.src.Environ = []string{}
			}
			_, err := Load(c.src)
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
			if err != nil && (strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "heim'")) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestLoadLeavesOtherVariablesAlone(t *testing.T) {
	t.Parallel()
	_, err := Load(Sources{
		Environ: []string{
			"FOLDSTREAM_REQUIRE_ALL=1", "FOLDSTREAM_TEST_BROKERS=x", "FOLDSTREAM_PROJECT=/p", "PATH=/bin",
			"FOLDSTREAM_INGEST_SERVICE_HOST=10.0.0.1", "FOLDSTREAM_INGEST_PORT_8080_TCP=tcp://10.0.0.1:8080", "FOLDSTREAM_INGEST_PORT=x",
		},
		Elsewhere: []string{"FOLDSTREAM_PROJECT"},
	})
	if err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestEveryKeyHasAVariableOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for key := range configKeys() {
		if other, twice := seen[EnvName(key)]; twice {
			t.Errorf("%s stands for %s and for %s", EnvName(key), other, key)
		}
		seen[EnvName(key)] = key
	}
	if len(seen) < 25 {
		t.Errorf("got %d keys, want all of Config", len(seen))
	}
}

func TestPrintedConfigurationLoadsAgainAndShowsNoSecret(t *testing.T) {
	t.Parallel()
	cfg, err := Load(Sources{Environ: []string{
		"FOLDSTREAM_POSTGRES_DSN=postgres://u:geheim@h:5/d?sslmode=disable", "FOLDSTREAM_KAFKA_BROKERS=a:1",
		"FOLDSTREAM_KAFKA_SASL_MECHANISM=scram-sha-512", "FOLDSTREAM_KAFKA_SASL_USERNAME=u", "FOLDSTREAM_KAFKA_SASL_PASSWORD=geheim",
	}})
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := cfg.Print(&printed); err != nil {
		t.Fatal(err)
	}
	if text := printed.String(); strings.Contains(text, "geheim") || !strings.Contains(text, "postgres://u:redacted@h:5/d") {
		t.Errorf("printed:\n%s", text)
	}
	plain, err := Load(Sources{Environ: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	printed.Reset()
	if err := plain.Print(&printed); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(printed.String(), "password: \"\"", "")
	if _, err := Load(Sources{File: write(t, text), Environ: []string{}}); err != nil {
		t.Errorf("load what was printed: %v\n%s", err, text)
	}
}

func TestSecretsHideThemselves(t *testing.T) {
	t.Parallel()
	s := Secret("geheim")
	var logged bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&logged, nil))
	logger.Info("x", "secret", s, "config", SASLConfig{Password: s})
	for _, text := range []string{fmt.Sprint(s), fmt.Sprintf("%s %v %+v %#v %q", s, s, SASLConfig{Password: s}, s, s), logged.String()} {
		if strings.Contains(text, "geheim") {
			t.Errorf("shows the secret: %s", text)
		}
	}
	if s.Reveal() != "geheim" {
		t.Errorf("Reveal: got %q", s.Reveal())
	}
}

func TestRedactDSN(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dsn, want string
		has       bool
	}{
		{"postgres://u@h/d", "postgres://u@h/d", false},
		{"postgres://u:geheim@h/d", "postgres://u:redacted@h/d", true},
		{"postgres://h/d?password=geheim", "postgres://h/d?password=redacted", true},
		{"host=h user=u", "host=h user=u", false},
		{"host=h password=geheim user=u", "host=h password=redacted user=u", true},
		{"host=h password='ge\\'heim x' user=u", "host=h password=redacted user=u", true},
		{"host=h password=geheim\\ x user=u", "host=h password=redacted user=u", true},
		{"PASSWORD='geheim", "PASSWORD=redacted", true},
		{"postgres://u:ge%zzheim@h", "redacted", true},
	} {
		if got := RedactDSN(c.dsn); got != c.want {
			t.Errorf("RedactDSN(%q): got %q, want %q", c.dsn, got, c.want)
		}
		if got := DSNHasPassword(c.dsn); got != c.has {
			t.Errorf("DSNHasPassword(%q): got %v, want %v", c.dsn, got, c.has)
		}
	}
}

func TestReadSecretFile(t *testing.T) {
	t.Parallel()
	if got, err := readSecretFile(write(t, "geheim \r\n")); err != nil || got != "geheim " {
		t.Errorf("got %q and %v, want the text without its line break", got, err)
	}
	for name, path := range map[string]string{
		"empty": write(t, "\n"), "missing": filepath.Join(t.TempDir(), "x"), "too large": write(t, strings.Repeat("x", secretFileBytesMax+1)),
	} {
		if _, err := readSecretFile(path); err == nil || strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: got %v, want an error without the text", name, err)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"namespace", "schemas", "categories"}
	for word, want := range map[string]string{"namespce": "namespace", "schema": "schemas", "category": "categories", "zzz": ""} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q): got %q, want %q", word, got, want)
		}
	}
	if got := editDistance("kitten", "sitting"); got != 3 {
		t.Errorf("editDistance: got %d, want 3", got)
	}
}

func TestValidateBoundsDurations(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatalf("the defaults: got %v, want none", err)
	}
	cfg.Ingest.SessionTimeout, cfg.ShutdownTimeout, cfg.Postgres.PoolMax = time.Millisecond, time.Hour*2, 0
	err := cfg.Validate()
	for _, want := range []string{"ingest.session_timeout", "shutdown_timeout", "postgres.pool_max"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a fault of %s", err, want)
		}
	}
}
