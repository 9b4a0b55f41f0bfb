package service

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// EnvPrefix starts the name of every environment variable that configures Foldstream.
const EnvPrefix = "FOLDSTREAM_"

// Keys whose values only the environment may carry, with what to use in a file.
var environmentOnly = map[string]string{
	"kafka.sasl.password": "kafka.sasl.password_file",
	"registry.password":   "registry.password_file",
}

// Sources are the places that a configuration is read from, weakest first.
type Sources struct {
	// Defaults go before those of DefaultConfig, by key.
	Defaults map[string]any
	// File is a YAML file; "" means none.
	File string
	// Environ is a list of NAME=value; nil means the process's own.
	Environ []string
	// Elsewhere are variables with our prefix that somebody else reads, such as the flags' own.
	Elsewhere []string
	// Stack is what a local stack says of itself (--data-dir), by key.
	Stack map[string]any
	// Flags are the flags that were given, by key. A secret among them is refused: other users
	// of the machine see a process's arguments.
	Flags map[string]any
}

// Load reads, merges and validates. A key that is unknown is an error which names the place, the
// key and the nearest known one; all faults are joined.
func Load(src Sources) (Config, error) {
	l := loader{k: koanf.New("."), known: configKeys(), elsewhere: src.Elsewhere}
	l.add("defaults", src.Defaults)
	l.file(src.File)
	l.environ(src.Environ)
	l.add("the stack's endpoints", src.Stack)
	l.flags(src.Flags)
	if err := errors.Join(l.faults...); err != nil {
		return Config{}, err
	}
	cfg := DefaultConfig()
	if err := l.k.Unmarshal("", &cfg); err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg.Kafka.Brokers = splitList(cfg.Kafka.Brokers)
	return cfg, cfg.Validate()
}

type loader struct {
	k      *koanf.Koanf
	known  map[string]reflect.Type
	faults []error

	elsewhere []string
}

func (l *loader) fault(format string, args ...any) {
	l.faults = append(l.faults, fmt.Errorf(format, args...))
}

func (l *loader) file(path string) {
	if path == "" {
		return
	}
	from := koanf.New(".")
	if err := from.Load(file.Provider(path), yaml.Parser()); err != nil {
		l.fault("read configuration file %s: %w", path, err)
		return
	}
	for key := range from.All() {
		if instead, only := environmentOnly[key]; only {
			l.fault("configuration file %s: %s is not read from a file: name a file of its own by %s, or set %s", path, key, instead, EnvName(key))
		}
	}
	l.add("configuration file "+path, from.All())
}

func (l *loader) environ(environ []string) {
	if environ == nil {
		environ = os.Environ()
	}
	byName := make(map[string]string, len(l.known))
	for key := range l.known {
		byName[EnvName(key)] = key
	}
	provider := env.Provider("", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, known := byName[name]
			if !known && !slices.Contains(l.elsewhere, name) && looksLikeKey(name, byName) {
				l.fault("environment variable %s is unknown%s", name, didYouMean(name, sortedKeys(byName)))
			}
			if !known || value == "" {
				return "", nil
			}
			return key, value
		},
	})
	values, err := provider.Read()
	if err != nil {
		l.fault("read environment: %w", err)
		return
	}
	l.add("environment", values)
}

func (l *loader) flags(flags map[string]any) {
	if dsn, given := flags["postgres.dsn"]; given && DSNHasPassword(fmt.Sprint(dsn)) {
		l.fault("flag --dsn has a password in it, which other users of this machine can see: leave it out and set %s or PGPASSWORD, or name a file by %s",
			EnvName("postgres.dsn"), EnvName("postgres.password_file"))
	}
	for key := range flags {
		if _, only := environmentOnly[key]; only {
			l.fault("flag of %s: a secret is not taken from a flag; set %s", key, EnvName(key))
		}
	}
	l.add("flags", flags)
}

// add merges values, by flat key, over what is there.
func (l *loader) add(place string, values map[string]any) {
	known := sortedKeys(l.known)
	for _, key := range sortedKeys(values) {
		if _, ok := l.known[key]; !ok {
			l.fault("%s: key %s is unknown%s", place, key, didYouMean(key, known))
		}
		if l.known[key] == reflect.TypeFor[time.Duration]() && !isDuration(values[key]) {
			l.fault("%s: key %s: %v is no duration; write a number with a unit, such as 6s", place, key, values[key])
		}
	}
	if err := l.k.Load(confmap.Provider(values, "."), nil); err != nil {
		l.fault("%s: %w", place, err)
	}
}

func isDuration(value any) bool {
	switch v := value.(type) {
	case time.Duration:
		return true
	case string:
		_, err := time.ParseDuration(v)
		return err == nil
	}
	return false
}

// EnvName returns the environment variable of a key: FOLDSTREAM_KAFKA_TLS_CA_FILE of
// kafka.tls.ca_file.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// looksLikeKey says whether an unknown variable was probably meant to configure us: its section
// is one of ours, or nearly. Variables that Kubernetes makes for a service named foldstream-ingest
// are not: FOLDSTREAM_INGEST_SERVICE_HOST, FOLDSTREAM_INGEST_PORT_8080_TCP.
func looksLikeKey(name string, byName map[string]string) bool {
	section, rest, _ := strings.Cut(strings.TrimPrefix(name, EnvPrefix), "_")
	if strings.HasPrefix(rest, "SERVICE_") || rest == "PORT" || strings.HasPrefix(rest, "PORT_") {
		return false
	}
	for known := range byName {
		ours, _, _ := strings.Cut(strings.TrimPrefix(known, EnvPrefix), "_")
		if editDistance(section, ours) <= len(ours)/4 || editDistance(name, known) <= 2 {
			return true
		}
	}
	return false
}

// configKeys returns every key of Config with the type of its value.
func configKeys() map[string]reflect.Type {
	keys := map[string]reflect.Type{}
	collectKeys(reflect.TypeFor[Config](), "", keys)
	return keys
}

func collectKeys(t reflect.Type, prefix string, keys map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + f.Tag.Get("koanf")
		if f.Type.Kind() == reflect.Struct {
			collectKeys(f.Type, key+".", keys)
			continue
		}
		keys[key] = f.Type
	}
}

func splitList(items []string) []string {
	var all []string
	for _, item := range items {
		for part := range strings.SplitSeq(item, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
