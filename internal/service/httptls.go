package service

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"
)

// tlsConfig is that of the HTTP server, or nil. The certificate is read again when its files change.
func (c HTTPConfig) tlsConfig(logger *slog.Logger) (*tls.Config, error) {
	if c.TLSCertFile == "" {
		return nil, nil
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		return &pair, err
	}
	held, err := newReloaded(load, logger, time.Now, c.TLSCertFile, c.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("http.tls_cert_file, http.tls_key_file: %w", err)
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return held.get(), nil },
	}, nil
}
