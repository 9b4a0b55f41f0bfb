package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/foldstream/foldstream/internal/devstack"
)

// proxy stands between the services and a broker.
type proxy struct {
	listen string
	mu     sync.Mutex
	proxy  *toxiproxy.Proxy
	toxics []string
}

// newProxy gives a broker a second listener, which advertises a proxy's address, and starts the
// proxy. The ports are chosen here and handed to the broker's start by the file in which it
// remembers its own.
func newProxy(cfg *devstack.JVMConfig) (*proxy, error) {
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	broker, controller, behind, front := ports[0], ports[1], ports[2], ports[3]
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil {
		return nil, err
	}
	remembered, err := json.Marshal(map[string]int{"broker": broker, "controller": controller})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(cfg.DataDir, "ports.json"), remembered, 0o644); err != nil {
		return nil, err
	}
	at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	cfg.Properties["listeners"] = fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s,PROXIED://%s", at(broker), at(controller), at(behind))
	cfg.Properties["advertised.listeners"] = fmt.Sprintf("PLAINTEXT://%s,CONTROLLER://%s,PROXIED://%s", at(broker), at(controller), at(front))
	cfg.Properties["listener.security.protocol.map"] = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT"

	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &proxy{listen: at(front), proxy: toxiproxy.NewProxy(server, "broker", at(front), at(behind))}
	if err := p.proxy.Start(); err != nil {
		return nil, fmt.Errorf("start the proxy: %w", err)
	}
	return p, nil
}

// freePorts finds ports that nothing listens on.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are found, so that they differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// cut closes every connection and refuses new ones until mend.
func (p *proxy) cut() { p.proxy.Stop() }

func (p *proxy) mend() error { return p.proxy.Start() }

// poison adds a toxic in one direction (upstream is towards the broker) until cure.
func (p *proxy) poison(kind, stream string, attributes map[string]int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := fmt.Sprintf("%s-%s-%d", kind, stream, len(p.toxics))
	text, err := json.Marshal(map[string]any{"name": name, "type": kind, "stream": stream, "toxicity": 1.0, "attributes": attributes})
	if err != nil {
		return err
	}
	if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		return fmt.Errorf("make the connection worse: %w", err)
	}
	p.toxics = append(p.toxics, name)
	return nil
}

// cure removes all toxics.
func (p *proxy) cure(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range p.toxics {
		if err := p.proxy.Toxics.RemoveToxic(ctx, name); err != nil {
			return err
		}
	}
	p.toxics = nil
	return nil
}

func (p *proxy) stop() { p.proxy.Stop() }
