// Package project is the program whose services the fault harness hurts: a category in append mode
// (log), one with a decider (account), and three views over them. It is written against pkg/ alone,
// as a team's own would be.
//
// Every event carries a word of its own (op), so that whatever is lost, doubled or swapped can be
// told, and every account event carries the balance that its decider saw, so that a wrong state is
// in the log for all to read.
package project

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"

	"github.com/foldstream/foldstream/pkg/app"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/decider"
	"github.com/foldstream/foldstream/pkg/projection"
)

// Files is the project's folder: foldstream.yaml and the schemas.
//
//go:embed foldstream.yaml schemas
var Files embed.FS

// Names of the categories and types.
const (
	Log     = "log"
	Account = "account"

	TypeWritten = "log.Written"
	TypeMove    = "account.Move"
	TypeMoved   = "account.Moved"

	// CodeOverdrawn is the decider's only rejection.
	CodeOverdrawn = "overdrawn"
)

// The messages.
type (
	// Written is the event of a log.
	Written struct {
		Op     string `avro:"op"`
		Amount int64  `avro:"amount"`
	}
	// Move is the command of an account: Parts events of Amount each, all or none.
	Move struct {
		Op     string `avro:"op"`
		Amount int64  `avro:"amount"`
		Parts  int64  `avro:"parts"`
	}
	// Moved is the event of an account.
	Moved struct {
		Op      string `avro:"op"`
		Amount  int64  `avro:"amount"`
		Balance int64  `avro:"balance"`
	}
	// State is what the decider keeps of an account.
	State struct {
		Balance int64 `avro:"balance"`
	}
)

// Program is what the services' binary runs.
func Program() app.Program {
	return app.Program{Name: "faults-service", Project: Files, Deciders: []decider.Any{Accounts()}, Views: Views()}
}

// WrittenDef ties log.Written to its struct.
func WrittenDef() codec.TypeDef { return decider.Event[Written](TypeWritten, 1) }

// Accounts decides moves.
func Accounts() decider.Spec[State] {
	return decider.Spec[State]{
		Category: Account, StateVersion: 1,
		Types:  decider.Types{decider.Command[Move](TypeMove, 1), decider.Event[Moved](TypeMoved, 1)},
		Decide: decide,
		Evolve: func(s State, e decider.Message) State {
			s.Balance += e.Data.(Moved).Amount
			return s
		},
	}
}

func decide(s State, c decider.Message) (decider.Decision, error) {
	m := c.Data.(Move)
	if s.Balance+m.Amount*m.Parts < 0 {
		return decider.Rejectf(CodeOverdrawn, "the balance is %d", s.Balance)
	}
	events := make([]any, m.Parts)
	for i := range events {
		s.Balance += m.Amount
		events[i] = Moved{Op: m.Op, Amount: m.Amount, Balance: s.Balance}
	}
	return decider.Emit(events...)
}

// Row is a row of the entity views: how many events, their chain and the last amount.
type Row struct {
	Events int64  `db:"events"`
	Digest string `db:"digest"`
	Last   int64  `db:"last"`
}

// Flow is a row of the metric view: all moves of one amount, whatever the account.
type Flow struct {
	Amount int64 `db:"amount,key"`
	Moves  int64 `db:"moves,add"`
	Least  int64 `db:"least,min"`
	Most   int64 `db:"most,max"`
}

// Views are logs and accounts, with a row per stream, and flow, whose rows every partition feeds.
func Views() []projection.View {
	return []projection.View{
		projection.Entity(projection.EntitySpec[Row]{
			Name: "logs", Version: 1, On: []codec.TypeDef{projection.On[Written](TypeWritten, 1)},
			Fold: func(r Row, _ bool, e projection.Event) (Row, projection.Change, error) {
				w := e.Data.(Written)
				return Row{r.Events + 1, Chain(r.Digest, w.Op), w.Amount}, projection.Set, nil
			},
		}),
		projection.Entity(projection.EntitySpec[Row]{
			Name: "accounts", Version: 1, On: []codec.TypeDef{projection.On[Moved](TypeMoved, 1)},
			Fold: func(r Row, _ bool, e projection.Event) (Row, projection.Change, error) {
				m := e.Data.(Moved)
				return Row{r.Events + 1, Chain(r.Digest, m.Op), m.Balance}, projection.Set, nil
			},
		}),
		projection.Metric(projection.MetricSpec[Flow]{
			Name: "flow", Version: 1, On: []codec.TypeDef{projection.On[Moved](TypeMoved, 1)},
			Deltas: func(e projection.Event) ([]Flow, error) {
				m := e.Data.(Moved)
				return []Flow{{Amount: m.Amount, Moves: 1, Least: m.Balance, Most: m.Balance}}, nil
			},
		}),
	}
}

// Chain is the digest of a stream after one more event: equal only for equal ops in equal order.
func Chain(digest, op string) string {
	sum := sha256.Sum256([]byte(digest + "\x00" + op))
	return hex.EncodeToString(sum[:8])
}
