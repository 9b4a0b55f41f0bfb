package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/foldstream/foldstream/internal/service/web"
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

	pieces   []*piece
	bytes    int // of all pieces but the last
	events   int
	reserved int64 // of what the requests that are worked on may hold
}

// Begin implements streams.Taker.
func (p *pageText) Begin() { p.release() }

// Take implements streams.Taker. The error is a 429 where all requests together hold too much.
func (p *pageText) Take(e *event.Recorded) error {
	last, err := p.room()
	if err != nil {
		return err
	}
	had := cap(last.text)
	if p.events > 0 {
		last.text = append(last.text, ',')
	}
	text, err := p.api.appendEvent(p.ctx, last.text, e, p.encoding, false)
	if err != nil {
		return err
	}
	last.text = text
	p.events++
	if err := p.reserve(cap(text) - had); err != nil {
		return err
	}
	if int64(p.bytes+len(text)) > min(pageBytesMax, p.api.cfg.Limits.InFlightBytesMax/4) {
		return streams.ErrPageFull
	}
	return nil
}

// reserve counts the page's memory among that of all requests; release gives it back.
func (p *pageText) reserve(bytes int) error {
	p.reserved += int64(bytes)
	if p.api.inFlightBytes.Add(int64(bytes)) > p.api.cfg.Limits.InFlightBytesMax {
		return overloaded("the requests that are worked on hold as many bytes as may be: come again, or ask for fewer events at once")
	}
	return nil
}

// room is a piece that most events fit into.
func (p *pageText) room() (*piece, error) {
	const most = 4 << 10
	if n := len(p.pieces); n > 0 {
		last := p.pieces[n-1]
		if len(last.text)+most <= pieceBytes {
			return last, nil
		}
		p.bytes += len(last.text)
	}
	fresh := pieces.Get().(*piece)
	p.pieces = append(p.pieces, fresh)
	return fresh, p.reserve(cap(fresh.text))
}

func (p *pageText) release() {
	p.api.inFlightBytes.Add(-p.reserved)
	p.reserved = 0
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
	head = web.AppendText(head, page.Stream.Category)
	head = append(head, `,"id":`...)
	head = web.AppendText(head, page.Stream.ID)
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
		b = web.AppendText(b, e.Stream.Category)
		b = append(b, `,"stream":`...)
		b = web.AppendText(b, e.Stream.ID)
		b = append(b, ',')
	}
	b = append(b, `"version":`...)
	b = strconv.AppendInt(b, int64(e.Version), 10)
	b = append(b, `,"id":`...)
	b = web.AppendText(b, e.ID)
	b = append(b, `,"type":`...)
	b = web.AppendText(b, e.Type)
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
	return web.AppendText(b, err.Error()), nil
}

func appendOptional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return web.AppendText(append(b, name...), value)
}

// appendMetadata appends the headers that are not ours. Of those with one name the last counts: the
// event's own stand behind those of its request.
func appendMetadata(b []byte, headers []event.Header) []byte {
	if len(headers) == 0 {
		return b
	}
	b = append(b, `,"metadata":{`...)
	begun := false
	for i, h := range headers {
		if has(headers[i+1:], h.Key) {
			continue
		}
		if begun {
			b = append(b, ',')
		}
		begun = true
		b = web.AppendText(b, h.Key)
		b = append(b, ':')
		b = web.AppendText(b, h.Value)
	}
	return append(b, '}')
}

func has(headers []event.Header, name string) bool {
	for _, h := range headers {
		if h.Key == name {
			return true
		}
	}
	return false
}
