package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/foldstream/foldstream/pkg/projection"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5"
)

// kindSnapshots is the system view whose rows are not numbered by the events of streams.
const kindSnapshots projection.Kind = "snapshots"

// presentColumn is false in rows of entity views that only remember their stream's version.
const presentColumn = "fs_present"

// view is one version of a view, as it stands in the database. Read-only once made.
type view struct {
	name       string
	version    int
	kind       projection.Kind
	categories []string // empty: any, as in system views
	columns    []column // the key first
	keys       int      // how many of them are the key
	byName     map[string]int
	search     int // index of the column that q looks into; -1 for none
	consumer   string
	definition string // as in the database

	table    string // quoted
	present  string // the condition under which a row is there; "" where all are
	versions string // quoted: where the streams' versions are; "" for no such thing
	byKey    string // the statement of one row with all columns; "" with a key of many columns
	all      []int  // indexes of all columns
	lane     *lane  // reads by the key
}

// id tells versions apart.
func (v *view) id() string { return v.name + "/" + strconv.Itoa(v.version) }

// catalogue is what views are live. It is replaced as a whole.
type catalogue struct {
	api  *API
	live atomic.Pointer[listing]
	err  atomic.Pointer[error] // of the last reading; nil when it went well
	one  sync.Mutex            // one reading at a time
}

type listing struct {
	views map[string]*view
	// versions are all versions of each view by name, sorted, with whether each is live.
	versions map[string][]ViewVersion
	readAt   time.Time
}

func (c *catalogue) init(a *API) { c.api = a }

var errNotRead = errors.New("the list of views was not read yet")

// ready is nil when the list was read lately.
func (c *catalogue) ready() error {
	if failed := c.err.Load(); failed != nil {
		return *failed
	}
	l := c.live.Load()
	if l == nil {
		return errNotRead
	}
	if age := c.api.cfg.Clock().Sub(l.readAt); age > max(readyAge, 3*c.api.cfg.Limits.CatalogueAge) {
		return fmt.Errorf("the list of views is %s old", age.Round(time.Second))
	}
	return nil
}

// refresh reads the list and keeps the former one where that fails.
func (c *catalogue) refresh(ctx context.Context) {
	c.one.Lock()
	defer c.one.Unlock()
	_ = c.read(ctx) // ready tells of it
}

// renew reads the list again for a request that found old to be out of date, unless another has
// done so already.
func (c *catalogue) renew(ctx context.Context, old *listing) (*listing, error) {
	c.one.Lock()
	defer c.one.Unlock()
	if now := c.live.Load(); now != old {
		return now, nil
	}
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	return c.live.Load(), nil
}

func (c *catalogue) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.api.cfg.Limits.StatementTimeout)
	defer cancel()
	l, err := c.api.readListing(ctx, c.live.Load())
	if err != nil {
		c.api.metrics.catalogue.WithLabelValues("failed").Inc()
		err = fmt.Errorf("read the list of views: %w", err)
		if c.err.Swap(&err) == nil {
			c.api.log.Warn("the list of views cannot be read: reads will fail", "err", err)
		}
		return err
	}
	c.api.metrics.catalogue.WithLabelValues("read").Inc()
	c.live.Store(l)
	if c.err.Swap(nil) != nil {
		c.api.log.Info("the list of views is read again")
	}
	return nil
}

// current is the list, read now if it never was.
func (c *catalogue) current(ctx context.Context) (*listing, error) {
	if l := c.live.Load(); l != nil {
		return l, nil
	}
	return c.renew(ctx, nil)
}

// definition is the part of a view's definition in the database that reads need.
type definition struct {
	Kind       projection.Kind
	Categories []string
	Key        []projection.Column
	Columns    []projection.Column
}

// same is the view as it was made before, where nothing of it has changed.
func (l *listing) same(name string, version int, definition string) *view {
	if l == nil {
		return nil
	}
	if v := l.views[name]; v != nil && v.version == version && v.definition == definition {
		return v
	}
	return nil
}

// readListing reads what is live; what has not changed is taken from the former list.
func (a *API) readListing(ctx context.Context, old *listing) (*listing, error) {
	// A version that was dropped keeps its line, in a database that knows of that.
	rows, err := a.pool.Query(ctx, "select name, version, definition, live from "+quote(a.cfg.Namespace, "views")+
		" v where not coalesce((to_jsonb(v)->>'dropped')::boolean, false) order by name, version")
	if err != nil {
		return nil, err
	}
	l := &listing{views: map[string]*view{}, versions: map[string][]ViewVersion{}, readAt: a.cfg.Clock()}
	var name, text string
	var version int
	var live bool
	_, err = pgx.ForEachRow(rows, []any{&name, &version, &text, &live}, func() error {
		l.versions[name] = append(l.versions[name], ViewVersion{Version: version, Live: live})
		if !live {
			return nil
		}
		if same := old.same(name, version, text); same != nil {
			l.views[name] = same
			return nil
		}
		v, err := a.viewOf(name, version, text)
		if err != nil {
			a.log.Error("a view cannot be served", "view", name, "view_version", version, "err", err)
			return nil
		}
		l.views[name] = v
		return nil
	})
	return l, err
}

// viewOf makes a view of its definition in the database.
func (a *API) viewOf(name string, version int, text string) (*view, error) {
	var d definition
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, fmt.Errorf("its definition in the table views is not readable: %w", err)
	}
	if len(d.Key) == 0 {
		return nil, errors.New("its definition in the table views has no key")
	}
	layout := slices.Concat(d.Key, d.Columns)
	if d.Kind == projection.KindEntity {
		layout = append(layout, projection.Column{Name: projection.VersionColumn, Type: "bigint"})
	}
	v := &view{
		name: name, version: version, kind: d.Kind, categories: d.Categories, keys: len(d.Key), search: -1,
		byName: make(map[string]int, len(layout)), consumer: topics.ConsumerView(name, version), definition: text,
	}
	schema := a.cfg.Namespace + "_" + name + "_v" + strconv.Itoa(version)
	v.table = quote(schema, "rows")
	for i, c := range layout {
		v.columns = append(v.columns, newColumn(c))
		v.byName[c.Name] = i
		v.all = append(v.all, i)
	}
	switch d.Kind {
	case projection.KindEntity:
		v.present, v.versions = presentColumn, v.table
	case kindSnapshots:
	default:
		v.versions = quote(schema, "stream_versions")
	}
	if i, there := v.byName[a.cfg.Search[name]]; there && v.columns[i].kind == kindText {
		v.search = i
	}
	if v.keys == 1 && v.columns[0].has(opEqual) {
		v.byKey = v.selectByKey(v.all)
	}
	v.lane = newLane(a, v)
	return v, nil
}

// lookup finds a live view.
func (l *listing) lookup(name string) (*view, error) {
	if v := l.views[name]; v != nil {
		return v, nil
	}
	return nil, problem(http.StatusNotFound, codeUnknownView, fmt.Sprintf("no view %q is live here: GET /v1/views lists those that are", clip(name)))
}

// names lists the live views in order.
func (l *listing) names() []string { return slices.Sorted(maps.Keys(l.views)) }

func quote(names ...string) string { return pgx.Identifier(names).Sanitize() }

// onView runs f on a live view. A statement that met tables that are gone or have changed, as after
// a switch, is run once more on the list as it is now. f must not have answered then.
func (a *API) onView(ctx context.Context, name string, f func(v *view) error) error {
	l, err := a.catalogue.current(ctx)
	if err != nil {
		return err
	}
	for again := false; ; again = true {
		v, err := l.lookup(name)
		if err == nil {
			err = f(v)
		}
		if err == nil || again || !isMoved(err) {
			return movedProblem(err)
		}
		if l, err = a.catalogue.renew(ctx, l); err != nil {
			return err
		}
	}
}

// movedProblem says more of a table that is not there, or not to be read.
func movedProblem(err error) error {
	if err != nil && isMoved(err) {
		return fmt.Errorf("the view's tables are not as its definition says, or this role may not read them: %w", err)
	}
	return err
}
