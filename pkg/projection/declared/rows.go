package declared

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/traits"

	"github.com/foldstream/foldstream/pkg/projection"
)

// rowsRule is one rule of a metric or append view: it makes one row, or one for each item.
type rowsRule struct {
	when  get[bool]
	each  func(s *scope, yield func() error) error
	steps []rowsStep
	blank projection.Row // the row before the steps
}

type rowsStep struct {
	at  int
	run func(s *scope) (any, error)
}

type rowsType struct {
	shape *shape
	rules []rowsRule
}

// rowsPlan is a compiled metric or append view.
type rowsPlan struct {
	types map[string]*rowsType
}

// rows is the function of the view.
func (p *rowsPlan) rows(e projection.Event) ([]projection.Row, error) {
	t := p.types[e.Type]
	if t == nil {
		return nil, nil
	}
	data, err := dataOf(e, t.shape)
	if err != nil {
		return nil, err
	}
	s := scopes.Get().(*scope)
	defer func() {
		*s = scope{scratch: s.scratch[:0]}
		scopes.Put(s)
	}()
	s.own = e
	s.event, s.data, s.shape = &s.own, data, t.shape
	out := make([]projection.Row, 0, len(t.rules))
	for i := range t.rules {
		if out, err = t.rules[i].rows(s, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// scopes are reused: one is larger than all else that an event needs.
var scopes = sync.Pool{New: func() any { return &scope{} }}

// rows adds what the rule makes of an event.
func (r *rowsRule) rows(s *scope, out []projection.Row) ([]projection.Row, error) {
	if r.each == nil {
		return r.row(s, out)
	}
	err := r.each(s, func() (err error) {
		out, err = r.row(s, out)
		return err
	})
	return out, err
}

func (r *rowsRule) row(s *scope, out []projection.Row) ([]projection.Row, error) {
	if r.when != nil {
		yes, _, err := r.when(s)
		if err != nil || !yes {
			return out, err
		}
	}
	if len(out) == projection.EventRowsMax {
		return out, fmt.Errorf("%s makes more than %d rows", s.event.Type, projection.EventRowsMax)
	}
	row := make(projection.Row, len(r.blank))
	copy(row, r.blank)
	for i := range r.steps {
		v, err := r.steps[i].run(s)
		if err != nil {
			return out, err
		}
		row[r.steps[i].at] = v
	}
	return append(out, row), nil
}

// each compiles `each`: the rule runs once for each item of a list, in order.
func (x *exprEnv) each(t text) (with *exprEnv, run func(s *scope, yield func() error) error) {
	e := x.compile(t)
	if e == nil {
		return nil, nil
	}
	if e.typ.Kind() != types.ListKind && e.typ.Kind() != types.DynKind {
		x.add(t.at, "name a list of the event, such as event.lines", "each wants a list, %s is of type %s", quoteShort(t.value), typeName(e.typ))
		return nil, nil
	}
	itemType := cel.DynType
	if e.typ.Kind() == types.ListKind {
		itemType = e.typ.Parameters()[0]
	}
	if list, read := x.listPath(t); list != nil {
		with, err := x.withItem(itemShape, list.item, itemType)
		if err != nil {
			x.add(t.at, "", "%v", err)
			return nil, nil
		}
		return with, read
	}
	with, err := x.withItem(itemValue, nil, itemType)
	if e = x.interpreted(e); err != nil || e == nil {
		return nil, nil
	}
	return with, func(s *scope, yield func() error) error {
		v, err := e.value(s)
		if err != nil {
			return err
		}
		if v == types.NullValue {
			return nil // as a list of the event's that is null
		}
		list, ok := v.(traits.Lister)
		if !ok {
			return fmt.Errorf("each: %s is of type %s, want a list", quoteShort(t.value), v.Type().TypeName())
		}
		defer func() { s.item = itemNow{} }()
		for it := list.Iterator(); it.HasNext() == types.True; {
			s.item = itemNow{val: it.Next()}
			if err := yield(); err != nil {
				return err
			}
		}
		return nil
	}
}
