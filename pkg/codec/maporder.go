package codec

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// Avro leaves the order of a map's entries open, and Go ranges over maps in another order each
// time. Equal values must have equal bytes here: a repeated command is told by the hash of its
// payload (PROTOCOL D4), and a repeated decision by its events. So what we write has each map's
// entries in the order of their keys' bytes, in one block.

// markMaps notes which nodes hold a map somewhere below them.
func markMaps(nodes []*node) {
	for changed := true; changed; {
		changed = false
		for _, n := range nodes {
			if n.holdsMap || !(n.kind == kindMap || n.item != nil && n.item.holdsMap || slices.ContainsFunc(n.children, (*node).isHoldingMap)) {
				continue
			}
			n.holdsMap, changed = true, true
		}
	}
}

func (n *node) isHoldingMap() bool { return n.holdsMap }

// orderMaps returns the body with its maps in order: the body itself where the schema has no map.
// The body has passed the guard.
func (s *Schema) orderMaps(body []byte) []byte {
	if !s.root.holdsMap {
		return body
	}
	o := orderer{walker: walker{body: body, valuesLeft: math.MaxInt, regrowthLeft: math.MaxInt}}
	return o.value(s.root, make([]byte, 0, len(body)))
}

// orderer copies a body value by value. The depth is bounded by the guard.
type orderer struct{ walker walker }

func (o *orderer) value(n *node, dst []byte) []byte {
	w := &o.walker
	start := w.pos
	switch {
	case !n.holdsMap:
		_ = w.value(n, math.MaxInt) // passed before
		return append(dst, w.body[start:w.pos]...)
	case n.kind == kindRecord:
		for _, child := range n.children {
			dst = o.value(child, dst)
		}
		return dst
	case n.kind == kindUnion:
		i, _ := w.index(len(n.children), "union")
		dst = append(dst, w.body[start:w.pos]...)
		return o.value(n.children[i], dst)
	case n.kind == kindMap:
		return o.entries(n, dst)
	default:
		return o.items(n, dst)
	}
}

// items copies an array as one block.
func (o *orderer) items(n *node, dst []byte) []byte {
	var items []byte
	total := 0
	for {
		count, _, _ := o.walker.blockHeader()
		if count == 0 {
			break
		}
		for range count {
			items = o.value(n.item, items)
		}
		total += count
	}
	return appendBlock(dst, total, items)
}

// entry is one of a map: its key, and key and value as encoded.
type entry struct{ key, encoded []byte }

func (o *orderer) entries(n *node, dst []byte) []byte {
	w := &o.walker
	var entries []entry
	for {
		count, _, _ := w.blockHeader()
		if count == 0 {
			break
		}
		for range count {
			start := w.pos
			_ = w.text(true)
			encoded := w.body[start:w.pos]
			_, lengthBytes := binary.Varint(encoded)
			entries = append(entries, entry{key: encoded[lengthBytes:], encoded: o.value(n.item, bytes.Clone(encoded))})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	var all []byte
	for _, e := range entries {
		all = append(all, e.encoded...)
	}
	return appendBlock(dst, len(entries), all)
}

func appendBlock(dst []byte, count int, items []byte) []byte {
	if count > 0 {
		dst = binary.AppendVarint(dst, int64(count))
		dst = append(dst, items...)
	}
	return append(dst, 0)
}
