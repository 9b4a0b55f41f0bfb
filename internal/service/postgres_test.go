package service

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestPoolWithoutAServerNamesTheWays(t *testing.T) {
	t.Setenv("PGHOST", "")
	t.Setenv("PGSERVICE", "")
	if _, err := DefaultConfig().Postgres.Pool(t.Context()); !errors.Is(err, ErrNoPostgres) {
		t.Errorf("got %v, want ErrNoPostgres", err)
	}
	t.Setenv("PGHOST", "db.example")
	cfg, err := DefaultConfig().Postgres.PoolConfig()
	if err != nil || cfg.ConnConfig.Host != "db.example" || cfg.MaxConns != 16 {
		t.Errorf("with PGHOST: got %v, want it to decide", err)
	}
}

func TestPoolErrorsNeverShowThePassword(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	cfg := PostgresConfig{DSN: Secret("postgres://ada:geheim@" + listener.Addr().String() + "/d?sslmode=disable"), PoolMax: 1, ConnectTimeout: time.Second}
	if _, err := cfg.Pool(t.Context()); err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("got %v, want an error with the address and without the password", err)
	}
	listener.Close()
	<-refused
	if _, err := (PostgresConfig{DSN: "postgres://ada:geheim@h:bad/d", PoolMax: 1}).Pool(t.Context()); err == nil || strings.Contains(err.Error(), "geheim") {
		t.Errorf("a DSN that does not parse: got %v, want an error without the password", err)
	}
}

func TestPoolReadsThePasswordFileAtEveryConnection(t *testing.T) {
	t.Parallel()
	cfg, err := PostgresConfig{DSN: "postgres://ada@h/d", PasswordFile: write(t, "geheim\n"), PoolMax: 3}.PoolConfig()
	if err != nil {
		t.Fatal(err)
	}
	conn := cfg.ConnConfig.Copy()
	if err := cfg.BeforeConnect(t.Context(), conn); err != nil || conn.Password != "geheim" {
		t.Errorf("got %v and another password, want the file's", err)
	}
	if _, err := (PostgresConfig{DSN: "postgres://ada@h/d", PasswordFile: "/nowhere"}).PoolConfig(); err == nil || !strings.Contains(err.Error(), "postgres.password_file") {
		t.Errorf("a missing file: got %v, want an error at start", err)
	}
}
