package app_test

import (
	"testing"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/internal/testkit"
	"github.com/jackc/pgx/v5/pgxpool"
)

func TestClosingAPoolDoesNotWaitForeverForWhoKeepsAConnection(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), testkit.Postgreses(t)[0].NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if service.ClosePool(pool) {
		t.Error("got all connections back, want one that is kept")
	}
	kept.Release()
	if !service.ClosePool(pool) {
		t.Error("got connections in use, want none: it was released")
	}
}
