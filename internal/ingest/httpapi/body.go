package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync"
)

// Media types of bodies.
const (
	mediaJSON = "application/json"
	mediaAvro = "application/avro"
)

// body is a request's body in memory, until release.
type body struct {
	api      *API
	bytes    []byte
	reserved int64
	pooled   *[]byte
}

// Bodies up to pooledBytesMax are read into buffers that are used again.
const (
	pooledBytesMin = 4 << 10
	pooledBytesMax = 1 << 20
)

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, pooledBytesMin); return &b }}

// mediaTypeOf is the media type of a request's body.
func mediaTypeOf(r *http.Request) string {
	text := r.Header.Get("Content-Type")
	if text == mediaJSON || text == mediaAvro {
		return text
	}
	media, params, err := mime.ParseMediaType(text)
	if charset, has := params["charset"]; err != nil || (has && !strings.EqualFold(charset, "utf-8")) {
		return ""
	}
	return media
}

// readBody reads a body of one of the media types, of at most so many bytes.
func (a *API) readBody(r *http.Request, most int, media ...string) (*body, string, error) {
	got := mediaTypeOf(r)
	known := false
	for _, m := range media {
		known = known || m == got
	}
	if encoding := r.Header.Get("Content-Encoding"); !known || (encoding != "" && encoding != "identity") {
		return nil, "", problem(http.StatusUnsupportedMediaType, codeMediaType, "want Content-Type: "+strings.Join(media, " or ")+", without Content-Encoding")
	}
	if r.ContentLength > int64(most) {
		return nil, "", bodyTooLarge(most)
	}
	b := &body{api: a, reserved: r.ContentLength}
	if r.ContentLength < 0 {
		b.reserved = int64(most)
	}
	if a.inFlightBytes.Add(b.reserved) > a.cfg.Limits.InFlightBytesMax {
		a.inFlightBytes.Add(-b.reserved)
		return nil, "", overloaded("the bodies of the requests that are worked on have as many bytes as may be: come again")
	}
	if err := b.read(r, most); err != nil {
		b.release()
		return nil, "", err
	}
	return b, got, nil
}

func bodyTooLarge(most int) *Problem {
	return problem(http.StatusRequestEntityTooLarge, codeBodyTooLarge, fmt.Sprintf("the body may have at most %d bytes: send less at once", most))
}

// read reads at most one byte too many.
func (b *body) read(r *http.Request, most int) error {
	b.pooled = buffers.Get().(*[]byte)
	buf := (*b.pooled)[:0]
	if want := int(r.ContentLength) + 1; r.ContentLength >= 0 && cap(buf) < want {
		buf = make([]byte, 0, want)
	}
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Body.Read(buf[len(buf):min(cap(buf), most+1)])
		buf = buf[:len(buf)+n]
		*b.pooled, b.bytes = buf, buf
		switch {
		case len(buf) > most:
			return bodyTooLarge(most)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return unread(err)
		}
	}
}

// unread is why a body did not come.
func unread(err error) *Problem {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return problem(http.StatusRequestTimeout, codeBody, "the body did not come in time: see http.read_timeout")
	}
	return problem(http.StatusBadRequest, codeBody, "the body ended early")
}

// release gives the memory back. The bytes must not be used any more.
func (b *body) release() {
	b.api.inFlightBytes.Add(-b.reserved)
	b.reserved, b.bytes = 0, nil
	if b.pooled != nil && cap(*b.pooled) <= pooledBytesMax {
		buffers.Put(b.pooled)
	}
	b.pooled = nil
}
