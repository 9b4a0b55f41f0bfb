package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"
)

// directNobody stands for the instance of a request that no instance took.
const directNobody = "nobody"

// submit asks the instances in memory, one after the other, until one owns the stream. One sending
// is one call: those before it are certainly not stored.
func (l *load) submit(ctx context.Context, s *Sending, timeout time.Duration, first int) (Reply, bool) {
	instances := l.instances()
	s.Offset = -1
	typ, value, err := l.payload(s)
	if err != nil {
		l.stray("request %s does not encode: %v", s.ID, err)
		return Reply{}, false
	}
	body, err := json.Marshal(map[string]any{
		"Category": s.Category, "Stream": s.Stream, "ID": s.ID, "Type": typ, "Expected": s.Expected, "Time": loadEpoch, "Value": value,
	})
	if err != nil {
		l.stray("request %s does not encode: %v", s.ID, err)
		return Reply{}, false
	}
	l.mu.Lock()
	s.Called, s.Direct = l.now(), directNobody
	l.sendings = append(l.sendings, s)
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for i := range instances {
		instance := instances[(first+i)%len(instances)]
		if !instance.alive() {
			continue
		}
		reply, stored, err := instance.submit(ctx, body)
		if err == nil || stored {
			return l.submitted(s, instance.name, reply, err)
		}
	}
	// Nobody took it: as a sending that the client could not make.
	l.mu.Lock()
	s.Fault = "no instance owns its partition"
	l.mu.Unlock()
	_ = sleep(ctx, 20*time.Millisecond)
	return Reply{}, false
}

func (l *load) submitted(s *Sending, instance string, reply Reply, err error) (Reply, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Direct = instance
	if err != nil {
		s.Fault = err.Error()
		return Reply{}, false
	}
	reply.At = l.now()
	s.Replies = append(s.Replies, reply)
	l.answers.Add(1)
	close(l.answered)
	l.answered = make(chan struct{})
	return reply, true
}

// submit posts one request. stored says, of an error, that the request may have been stored.
func (s *service) submit(ctx context.Context, body []byte) (reply Reply, stored bool, err error) {
	addr, err := s.addr()
	if err != nil {
		return Reply{}, false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/submit", bytes.NewReader(body))
	if err != nil {
		return Reply{}, false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Reply{}, true, err // sent or not: not known
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return Reply{}, true, err
	case resp.StatusCode == http.StatusConflict:
		return Reply{}, false, fmt.Errorf("%s", text)
	case resp.StatusCode != http.StatusOK:
		return Reply{}, true, fmt.Errorf("%s: %s", resp.Status, text)
	}
	var o struct {
		Kind, Code                  string
		First, Last, Actual, Offset int64
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return Reply{}, true, err
	}
	return Reply{Outcome: o.Kind, First: o.First, Last: o.Last, Actual: o.Actual, Offset: o.Offset, Code: o.Code}, false, nil
}

// servedAt finds, in a service's log, where it listens.
var servedAt = regexp.MustCompile(`"HTTP is served".*"addr":"([^"]+)"`)

// addr is where the service's current run listens.
func (s *service) addr() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listens != "" {
		return s.listens, nil
	}
	text, err := os.ReadFile(s.log)
	if err != nil {
		return "", err
	}
	match := servedAt.FindSubmatch(text)
	if match == nil {
		return "", errors.New("it does not listen yet")
	}
	s.listens = string(match[1])
	return s.listens, nil
}
