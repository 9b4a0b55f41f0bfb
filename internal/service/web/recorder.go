package web

import (
	"net/http"
	"sync"
)

// Recorder notes the status of an answer. It passes flushes and deadlines through by Unwrap.
type Recorder struct {
	http.ResponseWriter
	Status int // 0 until the answer begins
}

var recorders = sync.Pool{New: func() any { return new(Recorder) }}

// Record wraps a writer. Release takes the Recorder back once nobody holds it.
func Record(w http.ResponseWriter) *Recorder {
	r := recorders.Get().(*Recorder)
	r.ResponseWriter, r.Status = w, 0
	return r
}

// Release ends the use of a Recorder.
func (r *Recorder) Release() {
	r.ResponseWriter = nil
	recorders.Put(r)
}

// WriteHeader implements http.ResponseWriter.
func (r *Recorder) WriteHeader(status int) {
	if r.Status == 0 && status >= http.StatusOK {
		r.Status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *Recorder) Write(b []byte) (int, error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
