package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/foldstream/foldstream/internal/streams"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/event"
)

// What stands for an event's payload.
const (
	encodingJSON = "json"
	encodingAvro = "avro"
)

// What a page's text is made of, and the most of it. A longer page ends early, with a next.
const (
	pieceBytes   = 128 << 10
	piecesKept   = 8 * pieceBytes // of a larger one the memory is let go
	pageBytesMax = 64 << 20
)

var pieces = sync.Pool{New: func() any { return &piece{text: make([]byte, 0, pieceBytes)} }}

type piece struct{ text []byte }

// pageText is the text of a StreamPage's events while they are read. It is made by hand, event by
// event, since it can be long: reflection over ten thousand events would cost more than reading
// them. It is sent when all of them have passed, so that an error can still be answered, and so that
// a slow client does not hold a connection to Postgres. Release it.
type pageText struct {
	api      *API
	ctx      context.Context //nolint:containedctx // of the one request that it lives in
	encoding string

	pieces []*piece
	bytes  int // of all pieces but the last
	events int
}

// Begin implements streams.Taker.
func (p *pageText) Begin() { p.release() }

// Take implements streams.Taker.
func (p *pageText) Take(e *event.Recorded) error {
	last := p.room()
	if p.events > 0 {
		last.text = append(last.text, ',')
	}
	text, err := p.api.appendEvent(p.ctx, last.text, e, p.encoding, false)
	if err != nil {
		return err
	}
	last.text = text
	p.events++
	if p.bytes+len(text) > pageBytesMax {
		return streams.ErrPageFull
	}
	return nil
}

// room is a piece that most events fit into.
func (p *pageText) room() *piece {
	const most = 4 << 10
	if n := len(p.pieces); n > 0 {
		last := p.pieces[n-1]
		if len(last.text)+most <= pieceBytes {
			return last
		}
		p.bytes += len(last.text)
	}
	fresh := pieces.Get().(*piece)
	p.pieces = append(p.pieces, fresh)
	return fresh
}

func (p *pageText) release() {
	for _, piece := range p.pieces {
		if cap(piece.text) <= piecesKept {
			piece.text = piece.text[:0]
			pieces.Put(piece)
		}
	}
	p.pieces, p.bytes, p.events = nil, 0, 0
}

// send answers with the page. Each piece has its own time to be written.
func (p *pageText) send(w http.ResponseWriter, page *streams.Page) error {
	head := append([]byte(nil), `{"category":`...)
	head = appendJSONText(head, page.Stream.Category)
	head = append(head, `,"id":`...)
	head = appendJSONText(head, page.Stream.ID)
	head = append(head, `,"version":`...)
	head = strconv.AppendInt(head, int64(page.Version), 10)
	head = append(head, `,"events":[`...)
	foot := []byte{']'}
	if page.Next > 0 {
		foot = append(foot, `,"next":`...)
		foot = strconv.AppendInt(foot, int64(page.Next), 10)
	}
	foot = append(foot, '}')
	bytes := len(head) + len(foot)
	for _, piece := range p.pieces {
		bytes += len(piece.text)
	}
	h := w.Header()
	h["Content-Type"] = jsonHeader
	h["Content-Length"] = []string{strconv.Itoa(bytes)}
	control := http.NewResponseController(w)
	if err := write(w, control, head); err != nil {
		return err
	}
	for _, piece := range p.pieces {
		if err := write(w, control, piece.text); err != nil {
			return err
		}
	}
	return write(w, control, foot)
}

func write(w http.ResponseWriter, control *http.ResponseController, b []byte) error {
	if err := control.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := w.Write(b)
	return err
}

// appendEvent appends a RecordedEvent. A payload that cannot be read is null, with the reason: the
// event is there all the same. The error is one of infrastructure.
func (a *API) appendEvent(ctx context.Context, b []byte, e *event.Recorded, encoding string, withStream bool) ([]byte, error) {
	b = append(b, '{')
	if withStream {
		b = append(b, `"category":`...)
		b = appendJSONText(b, e.Stream.Category)
		b = append(b, `,"stream":`...)
		b = appendJSONText(b, e.Stream.ID)
		b = append(b, ',')
	}
	b = append(b, `"version":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, `,"id":`...)
	b = appendJSONText(b, e.ID)
	b = append(b, `,"type":`...)
	b = appendJSONText(b, e.Type)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","recordedAt":"`...)
	b = e.RecordedAt.AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	b = appendOptional(b, `,"commandId":`, e.CommandID)
	b = appendOptional(b, `,"correlationId":`, e.CorrelationID)
	b = appendOptional(b, `,"causationId":`, e.CausationID)
	b = appendOptional(b, `,"userId":`, e.UserID)
	b = append(b, `,"partition":`...)
	b = strconv.AppendInt(b, int64(e.Partition), 10)
	b = append(b, `,"offset":`...)
	b = strconv.AppendInt(b, e.Offset, 10)
	b = appendMetadata(b, e.Extra)
	if encoding == encodingAvro {
		b = append(b, `,"value":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Value)
		return append(b, '"', '}'), nil
	}
	b, err := a.appendData(ctx, append(b, `,"data":`...), e)
	return append(b, '}'), err
}

func (a *API) appendData(ctx context.Context, b []byte, e *event.Recorded) ([]byte, error) {
	payload, err := a.cfg.Codec.Inspect(ctx, e.Type, e.Value)
	if err == nil {
		var whole []byte
		if whole, err = a.cfg.Codec.AppendJSON(b, payload); err == nil {
			return whole, nil
		}
	}
	if !errors.Is(err, codec.ErrBadData) {
		return b, err
	}
	b = append(b, `null,"error":`...)
	return appendJSONText(b, err.Error()), nil
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendJSONText(append(b, name...), value)
}

// appendMetadata appends the headers that are not ours. Of those with one name the first counts.
func appendMetadata(b []byte, headers []event.Header) []byte {
	if len(headers) == 0 {
		return b
	}
	b = append(b, `,"metadata":{`...)
	for i, h := range headers {
		if standsBefore(headers[:i], h.Key) {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSONText(b, h.Key)
		b = append(b, ':')
		b = appendJSONText(b, string(h.Value))
	}
	return append(b, '}')
}

func standsBefore(headers []event.Header, name string) bool {
	for _, h := range headers {
		if h.Key == name {
			return true
		}
	}
	return false
}

// appendJSONText appends a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendJSONText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}
