package httpapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
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

// pageChunkBytes is how much of an answer is gathered before it is sent; most are much smaller.
const (
	pageChunkBytes  = 128 << 10
	pageBufferBytes = 4 << 10
)

// writePage answers with a StreamPage. Its text is made by hand, event by event, since it can be
// long: reflection over ten thousand events would cost more than reading them.
func (a *API) writePage(ctx context.Context, w http.ResponseWriter, page *streams.Page, encoding string) error {
	out := chunked{w: w, control: http.NewResponseController(w)}
	b := append(make([]byte, 0, pageBufferBytes), `{"category":`...)
	b = appendJSONText(b, page.Stream.Category)
	b = append(b, `,"id":`...)
	b = appendJSONText(b, page.Stream.ID)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, int64(page.Version), 10)
	b = append(b, `,"events":[`...)
	for i := range page.Events {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = a.appendEvent(ctx, b, &page.Events[i], encoding, false); err != nil {
			return err
		}
		if b, err = out.sendFull(b); err != nil {
			return err
		}
	}
	b = append(b, ']')
	if page.Next > 0 {
		b = append(b, `,"next":`...)
		b = strconv.AppendInt(b, int64(page.Next), 10)
	}
	return out.sendLast(append(b, '}'))
}

// chunked sends an answer piece by piece; one that fits a piece has its length in the head.
type chunked struct {
	w       http.ResponseWriter
	control *http.ResponseController
	sent    bool
}

func (c *chunked) sendFull(b []byte) ([]byte, error) {
	if len(b) < pageChunkBytes {
		return b, nil
	}
	err := c.send(b)
	return b[:0], err
}

func (c *chunked) sendLast(b []byte) error {
	if !c.sent {
		c.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	}
	return c.send(b)
}

func (c *chunked) send(b []byte) error {
	if !c.sent {
		c.w.Header().Set("Content-Type", "application/json")
		c.sent = true
	}
	if err := c.control.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := c.w.Write(b)
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
