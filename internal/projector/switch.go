package projector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SwitchRequest asks for readers to see another version.
type SwitchRequest struct {
	Name string
	To   int // 0: the highest that this program has
	// AcceptDifferences is the explicit word without which a version that differs is not switched to.
	AcceptDifferences bool
	DifferencesMax    int // as in VerifyRequest
}

// SwitchReport is what a switch came to.
type SwitchReport struct {
	Name     string `json:"name"`
	From     int    `json:"from"`
	To       int    `json:"to"`
	Verified Report `json:"verified"` // zero for a rollback
	// Took is the time of the transaction: from the first lock to the commit.
	Took time.Duration `json:"took_ns"`
}

// Switch compares the version with the live one and, when they are equal or the differences are
// accepted, lets readers see it, in one transaction: both versions' offset rows are locked, the
// new one is at or past the old one everywhere (PROTOCOL P5), and <ns>.<view> stands over it. With
// differences that nobody accepted the error is ErrDifferent, and the report lists them. The old
// version goes on being folded until Drop.
func (o *Operator) Switch(ctx context.Context, r SwitchRequest) (SwitchReport, error) {
	verified, err := o.Verify(ctx, VerifyRequest{Name: r.Name, To: r.To, DifferencesMax: r.DifferencesMax})
	report := SwitchReport{Name: r.Name, From: verified.From, To: verified.To, Verified: verified}
	if err != nil {
		return report, err
	}
	if !verified.Equal && !r.AcceptDifferences {
		return report, fmt.Errorf("%s: %w", verified.Summary(), ErrDifferent)
	}
	report.Took, err = o.cutOver(ctx, "view.switch", r.Name, verified.From, verified.To)
	return report, err
}

// Rollback lets readers see the version again that the live one replaced. Nothing is compared: the
// old one was folded on, and is at or past the live one everywhere.
func (o *Operator) Rollback(ctx context.Context, name string) (SwitchReport, error) {
	all, err := o.versions(ctx, o.cfg.Pool, name)
	if err != nil {
		return SwitchReport{Name: name}, err
	}
	live, err := find(all, 0)
	if err != nil {
		return SwitchReport{Name: name}, err
	}
	if live.replaced == nil {
		return SwitchReport{Name: name, From: live.number}, fmt.Errorf("%s replaced no version: there is nothing to go back to: %w", live.label(), ErrNoView)
	}
	report := SwitchReport{Name: name, From: live.number, To: *live.replaced}
	old, err := find(all, report.To)
	if err != nil {
		return report, err
	}
	if old.dropped {
		return report, fmt.Errorf("%s was dropped: rebuild it, then switch: %w", old.label(), ErrNoView)
	}
	report.Took, err = o.cutOver(ctx, "view.rollback", name, report.From, report.To)
	return report, err
}

// Limits of the transaction that switches. Readers wait for it only while the stable view itself
// is replaced; a reader that holds the stable view for longer than lockTimeout puts it off.
const (
	lockTimeout    = "500ms"
	closeRecords   = 20_000 // how far behind a version may be when the other one is stopped for it
	cutOverTimeout = 3 * time.Second
	cutOverTries   = 20
)

// errStillBehind: the version did not come up to the stopped one in time.
var errStillBehind = errors.New("did not come up in time")

// cutOver switches once the version is near the other.
func (o *Operator) cutOver(ctx context.Context, action, name string, from, to int) (time.Duration, error) {
	for try := 1; ; try++ {
		if err := o.awaitNear(ctx, version{name: name, number: from}, version{name: name, number: to}); err != nil {
			return 0, err
		}
		began := o.cfg.Clock()
		err := o.cutOverOnce(ctx, action, name, from, to)
		if err == nil {
			return o.cfg.Clock().Sub(began), nil
		}
		var refused *pgconn.PgError
		locked := errors.As(err, &refused) && (refused.Code == "55P03" || refused.Code == "40P01")
		if (!locked && !errors.Is(err, errStillBehind)) || try == cutOverTries || !pause(ctx, controlInterval) {
			return 0, fmt.Errorf("switch %s from v%d to v%d: %w", name, from, to, err)
		}
		o.cfg.Logger.Info("the switch is tried again", "view", name, "error", err)
	}
}

// awaitNear waits until a version is near enough for the other one to be stopped for it.
func (o *Operator) awaitNear(ctx context.Context, from, to version) error {
	bounded, cancel := context.WithTimeout(ctx, o.cfg.CatchUpTimeout)
	defer cancel()
	for {
		ahead, _, err := o.cutOf(ctx, o.cfg.Pool, from.consumer(), "")
		if err != nil {
			return err
		}
		next, _, err := o.cutOf(ctx, o.cfg.Pool, to.consumer(), "")
		if err != nil {
			return err
		}
		far := behind(next, ahead)
		if far <= closeRecords {
			return nil
		}
		o.cfg.Progress(Progress{View: to.label(), Phase: PhaseWait, Total: far})
		if !pause(bounded, controlInterval) {
			return fmt.Errorf("%s is %d records behind %s: is a projector with its code running, and not stopped or paused? %w", to.label(), far, from.label(), ErrBehind)
		}
	}
}

// cutOverOnce is the switch. The old version's offset rows are locked first: it waits, and the new
// one, whose projectors go on, comes up to it within moments. Then its rows are locked, too.
func (o *Operator) cutOverOnce(ctx context.Context, action, name string, from, to int) error {
	return pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "set local lock_timeout = '"+lockTimeout+"'"); err != nil {
			return err
		}
		all, err := o.lockVersions(ctx, tx, name)
		if err != nil {
			return err
		}
		old, err := find(all, from)
		if err != nil {
			return err
		}
		fresh, err := find(all, to)
		if err != nil {
			return err
		}
		if !old.live || fresh.dropped {
			return fmt.Errorf("somebody else has switched or dropped a version meanwhile: %s is live: %v, %s is dropped: %v", old.label(), old.live, fresh.label(), fresh.dropped)
		}
		if err := o.lockLevel(ctx, tx, old, fresh); err != nil {
			return err
		}
		if err := o.replaceStable(ctx, tx, old, fresh); err != nil {
			return err
		}
		b := &pgx.Batch{}
		b.Queue(`update `+o.table("views")+` set live = false where name = $1 and live`, name)
		b.Queue(`update `+o.table("views")+` set live = true, live_since = now(), replaced = $3 where name = $1 and version = $2`, name, to, from)
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		return o.trail.write(ctx, action, fresh.consumer(), map[string]any{"from": from, "to": to})
	})
}

// lockVersions keeps two switches, and a switch and a drop, apart.
func (o *Operator) lockVersions(ctx context.Context, tx pgx.Tx, name string) ([]version, error) {
	if _, err := tx.Exec(ctx, `select from `+o.table("views")+` where name = $1 order by version for update`, name); err != nil {
		return nil, err
	}
	return o.versions(ctx, tx, name)
}

// lockLevel locks the offset rows of both, with the new one at or past the old one everywhere.
func (o *Operator) lockLevel(ctx context.Context, tx pgx.Tx, old, fresh version) error {
	stopped, _, err := o.cutOf(ctx, tx, old.consumer(), " for update")
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, cutOverTimeout)
	defer cancel()
	for {
		next, _, err := o.cutOf(ctx, tx, fresh.consumer(), "")
		if err != nil {
			return err
		}
		if behind(next, stopped) == 0 {
			break
		}
		if !pause(bounded, 5*time.Millisecond) {
			return fmt.Errorf("%s is %d records behind %s: %w", fresh.label(), behind(next, stopped), old.label(), errStillBehind)
		}
	}
	next, _, err := o.cutOf(ctx, tx, fresh.consumer(), " for update")
	if err != nil {
		return err
	}
	if far := behind(next, stopped); far > 0 {
		return fmt.Errorf("%s was taken back by %d records: was it reset? %w", fresh.label(), far, ErrBehind)
	}
	return nil
}

// replaceStable puts <ns>.<view> over another version. Where the columns of the old one are the
// first of the new one's, the view stays the same object, with its grants and what depends on it.
// Else it is made anew, with its grants; what depends on it keeps it from being dropped.
func (o *Operator) replaceStable(ctx context.Context, tx pgx.Tx, old, fresh version) error {
	before, after := old.view().Layout(), fresh.view().Layout()
	sameStart := len(before) <= len(after) && slices.EqualFunc(before, after[:len(before)], func(a, b projection.Column) bool {
		return a.Name == b.Name && a.Type == b.Type
	})
	if sameStart {
		if _, err := tx.Exec(ctx, stableView(o.cfg.Namespace, fresh.view())); err != nil {
			return fmt.Errorf("replace %s.%s: %w", o.cfg.Namespace, fresh.name, err)
		}
		return nil
	}
	stable := quote(o.cfg.Namespace, fresh.name)
	grants, err := grantsOn(ctx, tx, stable)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "drop view "+stable); err != nil {
		return fmt.Errorf("drop %s, whose columns change: views of your own that read it must be dropped first and made again: %w", stable, err)
	}
	if _, err := tx.Exec(ctx, stableView(o.cfg.Namespace, fresh.view())); err != nil {
		return fmt.Errorf("make %s: %w", stable, err)
	}
	for _, grant := range grants {
		if _, err := tx.Exec(ctx, grant); err != nil {
			return fmt.Errorf("%s: %w", grant, err)
		}
	}
	return nil
}

// grantsOn lists the statements that give a view's rights again.
func grantsOn(ctx context.Context, tx pgx.Tx, stable string) ([]string, error) {
	rows, err := tx.Query(ctx, `select a.privilege_type, case when a.grantee = 0 then 'public' else quote_ident(g.rolname) end
		from pg_class c cross join lateral aclexplode(c.relacl) a left join pg_roles g on g.oid = a.grantee
		where c.oid = to_regclass($1) and a.grantee <> c.relowner`, stable)
	if err != nil {
		return nil, fmt.Errorf("read the grants on %s: %w", stable, err)
	}
	var out []string
	var privilege, role string
	_, err = pgx.ForEachRow(rows, []any{&privilege, &role}, func() error {
		out = append(out, "grant "+strings.ToLower(privilege)+" on "+stable+" to "+role)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the grants on %s: %w", stable, err)
	}
	return out, nil
}

// DropReport is what was dropped.
type DropReport struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Rows    int64  `json:"rows"`    // about
	Letters int64  `json:"letters"` // rows of letters; their bytes stay in the topic until its retention
}

// Drop removes a version that is not live: its tables, offsets, parked keys and the rows of its
// letters, which are superseded (PROTOCOL P3). Projectors that have its code leave it alone from
// then on; Rebuild makes it again. Without execute it only says what it would remove.
func (o *Operator) Drop(ctx context.Context, name string, number int, execute bool) (DropReport, error) {
	report := DropReport{Name: name, Version: number}
	all, err := o.versions(ctx, o.cfg.Pool, name)
	if err != nil {
		return report, err
	}
	v, err := find(all, number)
	if err != nil {
		return report, err
	}
	switch {
	case v.live:
		return report, fmt.Errorf("drop %s: %w: switch to another version first", v.label(), ErrLive)
	case v.dropped:
		return report, fmt.Errorf("%s was dropped before: %w", v.label(), ErrNoView)
	}
	err = o.cfg.Pool.QueryRow(ctx, `select coalesce((select greatest(reltuples, 0)::bigint from pg_class where oid = to_regclass($1)), 0), (select count(*) from `+o.table("letters")+` where consumer = $2)`,
		quote(SchemaName(o.cfg.Namespace, v.view()), "rows"), v.consumer()).Scan(&report.Rows, &report.Letters)
	if err != nil || !execute {
		return report, err
	}
	h, err := o.holding(ctx, v.consumer(), "drop", true)
	if err != nil {
		return report, err
	}
	return report, errors.Join(o.drop(ctx, v), h.giveBack(ctx))
}

func (o *Operator) drop(ctx context.Context, v version) error {
	err := pgx.BeginFunc(ctx, o.cfg.Pool, func(tx pgx.Tx) error {
		all, err := o.lockVersions(ctx, tx, v.name)
		if err != nil {
			return err
		}
		if now, err := find(all, v.number); err != nil || now.live {
			return errors.Join(err, wrapIf(now.live, v.label(), ErrLive))
		}
		// The offset rows go first: a projector's batch under way ends before, later ones are fenced.
		schema := SchemaName(o.cfg.Namespace, v.view())
		b := &pgx.Batch{}
		for _, table := range []string{"offsets", "parked", "letters", "rebuilds"} {
			b.Queue(`delete from `+o.table(table)+` where consumer = $1`, v.consumer())
		}
		b.Queue(`update `+o.table("views")+` set dropped = true where name = $1 and version = $2`, v.name, v.number)
		b.Queue(`update `+o.table("views")+` set replaced = null where name = $1 and replaced = $2`, v.name, v.number)
		b.Queue("drop table if exists " + quote(schema, "rows") + ", " + quote(schema, "stream_versions"))
		b.Queue("drop schema if exists " + quote(schema))
		if err := tx.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		return o.trail.write(ctx, "view.drop", v.consumer(), nil)
	})
	if err != nil {
		return fmt.Errorf("drop %s (what you made yourself on its tables must be dropped first): %w", v.label(), err)
	}
	return nil
}
