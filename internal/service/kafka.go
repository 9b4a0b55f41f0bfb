package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

const (
	mechanismPlain       = "plain"
	mechanismScramSHA256 = "scram-sha-256"
	mechanismScramSHA512 = "scram-sha-512"
)

var saslMechanisms = []string{mechanismPlain, mechanismScramSHA256, mechanismScramSHA512}

// ErrNoBrokers is returned where a process needs Kafka and no broker is named.
var ErrNoBrokers = errors.New("no Kafka broker is named: set kafka.brokers, " +
	"FOLDSTREAM_KAFKA_BROKERS or --brokers, or join a local stack by --data-dir")

// Options returns what every Kafka client of this process is made with: addresses, TLS, SASL,
// the logger and the hooks. They may be used for any number of clients. Files are read here, so
// that a wrong path fails at start; the password file is read again at every authentication.
func (c KafkaConfig) Options(logger *slog.Logger, hooks ...kgo.Hook) ([]kgo.Opt, error) {
	if len(c.Brokers) == 0 {
		return nil, ErrNoBrokers
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("foldstream", Version()),
		kgo.WithLogger(kafkaLogger{logger}),
		kgo.WithHooks(hooks...),
	}
	if c.TLS.Enabled {
		cfg, err := c.TLS.load()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(cfg))
	}
	if c.SASL.Mechanism != "" {
		mechanism, err := c.SASL.load()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	return opts, nil
}

func (c TLSConfig) load() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read kafka.tls.ca_file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read kafka.tls.ca_file %s: no PEM certificate in it", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read kafka.tls.cert_file and key_file: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

func (c SASLConfig) load() (sasl.Mechanism, error) {
	if _, err := c.password(); err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	asScram := func(context.Context) (scram.Auth, error) {
		password, err := c.password()
		return scram.Auth{User: c.Username, Pass: password}, err
	}
	switch c.Mechanism {
	case mechanismPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := c.password()
			return plain.Auth{User: c.Username, Pass: password}, err
		}), nil
	case mechanismScramSHA256:
		return scram.Sha256(asScram), nil
	case mechanismScramSHA512:
		return scram.Sha512(asScram), nil
	}
	return nil, fmt.Errorf("kafka.sasl.mechanism %q is unknown; want one of %s", c.Mechanism, strings.Join(saslMechanisms, ", "))
}

func (c SASLConfig) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password.Reveal(), nil
	}
	return readSecretFile(c.PasswordFile)
}

// kafkaLogger hands the client's words to slog, one level lower: what the client calls
// information (each rebalance, each metadata change) is detail to us.
type kafkaLogger struct{ to *slog.Logger }

// Level implements kgo.Logger.
func (l kafkaLogger) Level() kgo.LogLevel {
	ctx := context.Background()
	switch {
	case l.to.Enabled(ctx, slog.LevelDebug):
		return kgo.LogLevelInfo
	case l.to.Enabled(ctx, slog.LevelWarn):
		return kgo.LogLevelWarn
	}
	return kgo.LogLevelError
}

// Log implements kgo.Logger.
func (l kafkaLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	l.to.Log(context.Background(), slogLevel(level), "kafka client: "+msg, keyvals...)
}

func slogLevel(level kgo.LogLevel) slog.Level {
	switch level {
	case kgo.LogLevelError:
		return slog.LevelError
	case kgo.LogLevelWarn:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
