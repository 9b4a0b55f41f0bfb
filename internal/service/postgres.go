package service

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrNoPostgres is returned where a process needs Postgres and nothing names a server.
var ErrNoPostgres = errors.New("no Postgres server is named: set postgres.dsn (without a password), " +
	"FOLDSTREAM_POSTGRES_DSN, --dsn or PGHOST, or join a local stack by --data-dir")

// Pool connects, proves the connection by a query, and returns the pool; the caller closes it.
// Errors never hold the password.
func (c PostgresConfig) Pool(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := c.LazyPool(ctx)
	if err != nil {
		return nil, err
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("connect to Postgres at %s: %w", address(pool.Config()), err)
	}
	return pool, nil
}

// LazyPool is Pool for a process that also works while Postgres is away: it does not connect yet.
func (c PostgresConfig) LazyPool(ctx context.Context) (*pgxpool.Pool, error) {
	cfg, err := c.PoolConfig()
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return pool, nil
}

// PoolConfig is what the pools are made of. Errors never hold the password.
func (c PostgresConfig) PoolConfig() (*pgxpool.Config, error) {
	dsn, err := c.ConnString()
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("configuration postgres.dsn: %w", err)
	}
	cfg.MaxConns = int32(c.PoolMax)
	cfg.ConnConfig.ConnectTimeout = c.ConnectTimeout
	if _, named := cfg.ConnConfig.RuntimeParams["application_name"]; !named {
		cfg.ConnConfig.RuntimeParams["application_name"] = "foldstream"
	}
	if c.PasswordFile == "" {
		return cfg, nil
	}
	if _, err := readSecretFile(c.PasswordFile); err != nil {
		return nil, fmt.Errorf("postgres.password_file: %w", err)
	}
	cfg.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		password, err := readSecretFile(c.PasswordFile)
		conn.Password = password
		return err
	}
	return cfg, nil
}

// ConnString returns the DSN; where there is none, one that leaves all to the PG* variables. It may
// hold a password.
func (c PostgresConfig) ConnString() (string, error) {
	if c.DSN != "" {
		return c.DSN.Reveal(), nil
	}
	if os.Getenv("PGHOST") == "" && os.Getenv("PGSERVICE") == "" {
		return "", ErrNoPostgres
	}
	return "application_name=foldstream", nil
}

// poolCloseTimeout bounds the wait for connections that are in use.
const poolCloseTimeout = 5 * time.Second

// ClosePool closes a pool. A pool waits for every connection that somebody holds; a holder that was
// cut off in a drain may never give its own back, and the end of the process does it anyway, so
// the wait is bounded. It returns whether all were given back.
func ClosePool(pool *pgxpool.Pool) bool {
	closed := make(chan struct{})
	go func() { pool.Close(); close(closed) }()
	timer := time.NewTimer(poolCloseTimeout)
	defer timer.Stop()
	select {
	case <-closed:
		return true
	case <-timer.C:
		return false
	}
}

func (c PostgresConfig) hasPassword() bool { return DSNHasPassword(c.DSN.Reveal()) }

func address(cfg *pgxpool.Config) string {
	return fmt.Sprintf("%s:%d/%s", cfg.ConnConfig.Host, cfg.ConnConfig.Port, cfg.ConnConfig.Database)
}

// keywordPassword matches a password in a keyword/value string: quoted, or up to the next space.
var keywordPassword = regexp.MustCompile(`(?i)\b((?:ssl)?password\s*=\s*)('(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])*)`)

func isURL(dsn string) bool { return strings.Contains(dsn, "://") }

// DSNHasPassword says whether a DSN holds a password. Of what does not parse it supposes so.
func DSNHasPassword(dsn string) bool {
	if !isURL(dsn) {
		return keywordPassword.MatchString(dsn)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return true
	}
	_, inUser := u.User.Password()
	return inUser || u.Query().Has("password") || u.Query().Has("sslpassword")
}

// RedactDSN returns a DSN without its password; one that does not parse is hidden whole.
func RedactDSN(dsn string) string {
	if !isURL(dsn) {
		return keywordPassword.ReplaceAllString(dsn, "${1}"+redacted)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return redacted
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), redacted)
	}
	query := u.Query()
	for _, name := range []string{"password", "sslpassword"} {
		if query.Has(name) {
			query.Set(name, redacted)
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}
