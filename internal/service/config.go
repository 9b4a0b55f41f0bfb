package service

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Config is a process's whole configuration. Its keys are "<section>.<key>", as in the koanf
// tags; the environment variable of a key is FOLDSTREAM_<SECTION>_<KEY>. A flag wins over the
// environment, which wins over the file, which wins over the default.
type Config struct {
	Kafka     KafkaConfig     `koanf:"kafka"`
	Postgres  PostgresConfig  `koanf:"postgres"`
	Registry  RegistryConfig  `koanf:"registry"`
	HTTP      HTTPConfig      `koanf:"http"`
	Log       LogConfig       `koanf:"log"`
	Ingest    IngestConfig    `koanf:"ingest"`
	Projector ProjectorConfig `koanf:"projector"`
	// ShutdownTimeout is how long components may drain after the first signal. Default 25s, so
	// that a drain ends before Kubernetes' 30 s are over. What is not done by then is cut off and
	// is done again by the next owner; the process exits with 1.
	ShutdownTimeout time.Duration `koanf:"shutdown_timeout"`
}

// KafkaConfig says how to reach the brokers.
type KafkaConfig struct {
	// Brokers are the seed addresses, host:port. No default. In the environment and in a flag,
	// separated by commas.
	Brokers []string `koanf:"brokers"`
	// ClientID is seen in the brokers' logs, metrics and quotas. Default "foldstream".
	ClientID string     `koanf:"client_id"`
	TLS      TLSConfig  `koanf:"tls"`
	SASL     SASLConfig `koanf:"sasl"`
}

// TLSConfig turns encryption on and says whom to trust. Any file named without Enabled is a
// fault: a connection that was meant to be encrypted must not be plain by oversight.
type TLSConfig struct {
	// Enabled encrypts connections to the brokers. Default false.
	Enabled bool `koanf:"enabled"`
	// CAFile holds the PEM certificates that sign the brokers'. Default: the machine's own.
	CAFile string `koanf:"ca_file"`
	// CertFile and KeyFile are this client's PEM certificate and key, for mutual TLS. Default: none.
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
	// ServerName is checked against the broker's certificate. Default: the host dialled.
	ServerName string `koanf:"server_name"`
	// InsecureSkipVerify accepts any certificate: whoever is on the way reads and forges all.
	// For a test set-up only. Default false.
	InsecureSkipVerify bool `koanf:"insecure_skip_verify"`
}

// SASLConfig authenticates this client.
type SASLConfig struct {
	// Mechanism is plain, scram-sha-256 or scram-sha-512. Default "": no authentication. plain
	// without TLS sends the password in clear and is refused.
	Mechanism string `koanf:"mechanism"`
	Username  string `koanf:"username"`
	// Password comes only from FOLDSTREAM_KAFKA_SASL_PASSWORD.
	Password Secret `koanf:"password"`
	// PasswordFile holds the password; a line break at its end is not part of it. It is read at
	// every authentication, so that a rotated secret needs no restart.
	PasswordFile string `koanf:"password_file"`
}

// PostgresConfig says how to reach the database of the views.
type PostgresConfig struct {
	// DSN is a URL or a keyword/value string. Default "": the variables PGHOST, PGPORT, PGUSER,
	// PGDATABASE, PGSSLMODE, PGPASSFILE … decide, as they do for psql. What DSN leaves out is
	// taken from them too.
	DSN Secret `koanf:"dsn"`
	// PasswordFile holds the password; it is read at every new connection. Default: none.
	PasswordFile string `koanf:"password_file"`
	// PoolMax is the most connections that this process opens. Default 16. Each partition of a
	// view that applies at the same moment holds one; fewer slows views down, more load the server.
	PoolMax int `koanf:"pool_max"`
	// ConnectTimeout bounds one connection attempt. Default 5s.
	ConnectTimeout time.Duration `koanf:"connect_timeout"`
}

// RegistryConfig says where the schemas are.
type RegistryConfig struct {
	// URL of a Confluent-compatible registry. Default "": the compacted topic <ns>.schemas.
	URL string `koanf:"url"`
	// Username, with Password (only from FOLDSTREAM_REGISTRY_PASSWORD) or PasswordFile, is sent as
	// basic authentication. Default: none.
	Username     string `koanf:"username"`
	Password     Secret `koanf:"password"`
	PasswordFile string `koanf:"password_file"`
	// Timeout bounds one request to the registry. Default 10s.
	Timeout time.Duration `koanf:"timeout"`
	// HTTPWritable lets clients register schemas through /registry. Default false: schemas are
	// registered by the project, and /registry only shows them.
	HTTPWritable bool `koanf:"http_writable"`
}

// HTTPConfig says where the API, health and metrics are served, and what clients may ask for.
type HTTPConfig struct {
	// Addr is host:port. Default ":8080". Port 0 takes a free one, which the log tells.
	Addr string `koanf:"addr"`
	// ReadTimeout bounds the reading of one request. Default 5s. Bodies over slow lines need more.
	ReadTimeout time.Duration `koanf:"read_timeout"`
	// BodyBytesMax bounds the body of a request for one stream, in bytes. Default 1 MiB.
	BodyBytesMax int `koanf:"body_bytes_max"`
	// BatchBytesMax bounds the body of a request for many streams, in bytes. Default 8 MiB.
	BatchBytesMax int `koanf:"batch_bytes_max"`
	// InFlightMax bounds the requests of the API that are worked on at once; more are answered 429.
	// Default 4096.
	InFlightMax int `koanf:"in_flight_max"`
	// SubscribersMax bounds the open subscriptions; more are answered 429. Default 256.
	SubscribersMax int `koanf:"subscribers_max"`
	// RequestTimeout is how long an outcome is waited for where the client says nothing. Default
	// 10s, at most 25s. Shorter makes more outcomes unknown when partitions move.
	RequestTimeout time.Duration `koanf:"request_timeout"`
	// TokenFile holds bearer tokens, one on each line, any of which opens /v1 and /registry. It is
	// read again when it changes. Default "": they are open to whoever can reach the address.
	TokenFile string `koanf:"token_file"`
	// TLSCertFile and TLSKeyFile are the server's PEM certificate and key. They are read again when
	// they change. Default "": plain HTTP.
	TLSCertFile string `koanf:"tls_cert_file"`
	TLSKeyFile  string `koanf:"tls_key_file"`
}

// LogConfig says what is logged and how.
type LogConfig struct {
	// Level is debug, info, warn or error. Default info.
	Level string `koanf:"level"`
	// Format is auto (text on a terminal, else json), text or json. Default auto.
	Format string `koanf:"format"`
}

// IngestConfig tunes the writer.
type IngestConfig struct {
	// SessionTimeout is how long a silent instance keeps its partitions. Default 6s. Lower moves
	// them sooner after a crash; below the length of a pause of the machine, it moves them in vain.
	SessionTimeout time.Duration `koanf:"session_timeout"`
	// StateBytesMax bounds the encoded states that this instance holds, in bytes. Default 1 GiB.
	// Beyond it new streams are refused and the metrics tell; more instances share the load.
	StateBytesMax int64 `koanf:"state_bytes_max"`
}

// ProjectorConfig tunes the projectors.
type ProjectorConfig struct {
	// SessionTimeout is how long a silent instance keeps its partitions. Default 6s.
	SessionTimeout time.Duration `koanf:"session_timeout"`
	// BatchRecordsMax bounds the records of one Postgres transaction. Default 5000. More is faster
	// while a view catches up, and holds locks for longer.
	BatchRecordsMax int `koanf:"batch_records_max"`
	// Watchdog is how long a partition may have records waiting and make no progress before the
	// instance is not ready. Default 30s.
	Watchdog time.Duration `koanf:"watchdog"`
	// EventsIndex keeps the system views events and snapshots, which make single streams loadable.
	// Default true. Without them, reads of a stream go through its partition of the log.
	EventsIndex bool `koanf:"events_index"`
}

// DefaultConfig returns the configuration without a file, an environment or a flag.
func DefaultConfig() Config {
	return Config{
		Kafka:    KafkaConfig{ClientID: "foldstream"},
		Postgres: PostgresConfig{PoolMax: 16, ConnectTimeout: 5 * time.Second},
		Registry: RegistryConfig{Timeout: 10 * time.Second},
		HTTP: HTTPConfig{
			Addr: ":8080", ReadTimeout: 5 * time.Second, BodyBytesMax: 1 << 20, BatchBytesMax: 8 << 20,
			InFlightMax: 4096, SubscribersMax: 256, RequestTimeout: 10 * time.Second,
		},
		Log:             LogConfig{Level: "info", Format: "auto"},
		Ingest:          IngestConfig{SessionTimeout: 6 * time.Second, StateBytesMax: 1 << 30},
		Projector:       ProjectorConfig{SessionTimeout: 6 * time.Second, BatchRecordsMax: 5000, Watchdog: 30 * time.Second, EventsIndex: true},
		ShutdownTimeout: 25 * time.Second,
	}
}

// Limits on what may be configured.
const (
	brokersMax            = 64
	poolMax               = 1000
	sessionTimeoutMin     = 500 * time.Millisecond
	sessionTimeoutMax     = 30 * time.Minute
	shutdownTimeoutMax    = 30 * time.Minute
	connectionTimeoutsMax = 10 * time.Minute
	stateBytesMin         = 1 << 20
	batchRecordsMax       = 1_000_000
	bodyBytesMin          = 1 << 10
	bodyBytesMax          = 16 << 20 // more than a record batch ever takes
	batchBytesMax         = 128 << 20
	inFlightMax           = 65_536
	subscribersMax        = 10_000
	requestTimeoutMax     = 25 * time.Second
)

// Validate joins all faults of the configuration by itself. What only some processes need,
// such as a broker or a database, is asked for by KafkaConfig.Options and PostgresConfig.Pool.
func (c Config) Validate() error {
	return errors.Join(
		c.Kafka.validate(), c.Postgres.validate(), c.Registry.validate(), c.HTTP.validate(), c.Log.validate(),
		c.Ingest.validate(), c.Projector.validate(),
		durationBetween("shutdown_timeout", c.ShutdownTimeout, time.Second, shutdownTimeoutMax),
	)
}

func (c KafkaConfig) validate() error {
	var faults []error
	if len(c.Brokers) > brokersMax {
		faults = append(faults, fault("kafka.brokers", "%d addresses, at most %d seeds are needed", len(c.Brokers), brokersMax))
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			faults = append(faults, fault("kafka.brokers", "%q is not host:port", b))
		}
	}
	if c.ClientID == "" {
		faults = append(faults, fault("kafka.client_id", "is empty"))
	}
	return errors.Join(append(faults, c.TLS.validate(), c.SASL.validate(c.TLS.Enabled))...)
}

func (c TLSConfig) validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return fault("kafka.tls", "cert_file and key_file go together; one is missing")
	}
	named := c.CAFile != "" || c.CertFile != "" || c.ServerName != "" || c.InsecureSkipVerify
	if named && !c.Enabled {
		return fault("kafka.tls.enabled", "is false, but other tls keys are set; set it to true or remove them")
	}
	return nil
}

func (c SASLConfig) validate(encrypted bool) error {
	if c.Mechanism == "" {
		if c.Username != "" || c.Password != "" || c.PasswordFile != "" {
			return fault("kafka.sasl.mechanism", "is empty, but a user name or password is set; want one of %s", strings.Join(saslMechanisms, ", "))
		}
		return nil
	}
	var faults []error
	if !slices.Contains(saslMechanisms, c.Mechanism) {
		faults = append(faults, fault("kafka.sasl.mechanism", "%q is unknown; want one of %s", c.Mechanism, strings.Join(saslMechanisms, ", ")))
	}
	if c.Username == "" {
		faults = append(faults, fault("kafka.sasl.username", "is empty"))
	}
	if (c.Password == "") == (c.PasswordFile == "") {
		faults = append(faults, fault("kafka.sasl.password_file", "set it, or the environment variable FOLDSTREAM_KAFKA_SASL_PASSWORD; one of the two, not both"))
	}
	if c.Mechanism == mechanismPlain && !encrypted {
		faults = append(faults, fault("kafka.sasl.mechanism", "plain without TLS sends the password in clear; set kafka.tls.enabled, or use scram-sha-512"))
	}
	return errors.Join(faults...)
}

func (c PostgresConfig) validate() error {
	var faults []error
	if c.PoolMax < 1 || c.PoolMax > poolMax {
		faults = append(faults, fault("postgres.pool_max", "%d, want 1 to %d connections", c.PoolMax, poolMax))
	}
	if c.PasswordFile != "" && c.hasPassword() {
		faults = append(faults, fault("postgres.password_file", "postgres.dsn has a password too; keep one of them"))
	}
	faults = append(faults, durationBetween("postgres.connect_timeout", c.ConnectTimeout, 100*time.Millisecond, connectionTimeoutsMax))
	return errors.Join(faults...)
}

func (c RegistryConfig) validate() error {
	faults := []error{durationBetween("registry.timeout", c.Timeout, 100*time.Millisecond, connectionTimeoutsMax)}
	if c.URL != "" && !strings.HasPrefix(c.URL, "http://") && !strings.HasPrefix(c.URL, "https://") {
		faults = append(faults, fault("registry.url", "%q, want http://… or https://…", c.URL))
	}
	if strings.Contains(c.URL, "@") {
		faults = append(faults, fault("registry.url", "has a user name or password in it; use registry.username and registry.password_file"))
	}
	if c.Password != "" && c.PasswordFile != "" {
		faults = append(faults, fault("registry.password_file", "FOLDSTREAM_REGISTRY_PASSWORD is set too; keep one of them"))
	}
	if c.URL == "" && c.Username != "" {
		faults = append(faults, fault("registry.url", "is empty, but registry.username is set"))
	}
	return errors.Join(faults...)
}

func (c HTTPConfig) validate() error {
	faults := []error{durationBetween("http.read_timeout", c.ReadTimeout, 100*time.Millisecond, connectionTimeoutsMax)}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		faults = append(faults, fault("http.addr", "%q is not host:port", c.Addr))
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		faults = append(faults, fault("http.tls_cert_file", "it and http.tls_key_file go together; one is missing"))
	}
	faults = append(faults,
		numberBetween("http.body_bytes_max", c.BodyBytesMax, bodyBytesMin, bodyBytesMax),
		numberBetween("http.batch_bytes_max", c.BatchBytesMax, bodyBytesMin, batchBytesMax),
		numberBetween("http.in_flight_max", c.InFlightMax, 1, inFlightMax),
		numberBetween("http.subscribers_max", c.SubscribersMax, 1, subscribersMax),
		durationBetween("http.request_timeout", c.RequestTimeout, time.Millisecond, requestTimeoutMax))
	return errors.Join(faults...)
}

func (c LogConfig) validate() error {
	var faults []error
	if _, err := parseLevel(c.Level); err != nil {
		faults = append(faults, fault("log.level", "%q is unknown; want debug, info, warn or error", c.Level))
	}
	if !slices.Contains(logFormats, c.Format) {
		faults = append(faults, fault("log.format", "%q is unknown; want %s", c.Format, strings.Join(logFormats, ", ")))
	}
	return errors.Join(faults...)
}

func (c IngestConfig) validate() error {
	var faults []error
	if c.StateBytesMax < stateBytesMin {
		faults = append(faults, fault("ingest.state_bytes_max", "%d, want at least %d bytes", c.StateBytesMax, stateBytesMin))
	}
	return errors.Join(append(faults, durationBetween("ingest.session_timeout", c.SessionTimeout, sessionTimeoutMin, sessionTimeoutMax))...)
}

func (c ProjectorConfig) validate() error {
	var faults []error
	if c.BatchRecordsMax < 1 || c.BatchRecordsMax > batchRecordsMax {
		faults = append(faults, fault("projector.batch_records_max", "%d, want 1 to %d records", c.BatchRecordsMax, batchRecordsMax))
	}
	return errors.Join(append(faults,
		durationBetween("projector.session_timeout", c.SessionTimeout, sessionTimeoutMin, sessionTimeoutMax),
		durationBetween("projector.watchdog", c.Watchdog, time.Second, time.Hour))...)
}

func numberBetween(key string, n, low, high int) error {
	if n < low || n > high {
		return fault(key, "%d, want %d to %d", n, low, high)
	}
	return nil
}

func durationBetween(key string, d, low, high time.Duration) error {
	if d < low || d > high {
		return fault(key, "%s, want %s to %s", d, low, high)
	}
	return nil
}

func fault(key, format string, args ...any) error {
	return fmt.Errorf("configuration %s: "+format, append([]any{key}, args...)...)
}
